//! How far long work is, on a terminal's stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::clock::{Clock as _, SystemClock};

/// Tells how far the work is, every second.
pub(super) struct Progress {
    what: &'static str,
    done: usize,
    all: usize,
    said_at: Instant,
    was_said: bool,
    is_shown: bool,
}

impl Progress {
    /// Of so many of `what`.
    pub(super) fn new(what: &'static str, all: usize) -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { what, done: 0, all, said_at: SystemClock.instant(), was_said: false, is_shown }
    }

    /// One more is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        let now = SystemClock.instant();
        if !self.is_shown || now.saturating_duration_since(self.said_at) < EVERY {
            return;
        }
        (self.said_at, self.was_said) = (now, true);
        let Self { what, done, all, .. } = self;
        // Nothing depends on it.
        let _ = write!(io::stderr(), "\r{CLEAR}{done} of {all} {what}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.was_said {
            let _ = write!(io::stderr(), "\r{CLEAR}");
        }
    }
}

const EVERY: Duration = Duration::from_secs(1);
/// ECMA-48, EL: clears the line.
const CLEAR: &str = "\u{1b}[K";
