//! Progress of long commands, on a terminal's stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use key_broker_core::clock::{Clock as _, SystemClock};

/// Tells how far the work is, every second.
pub(super) struct Progress {
    said_at: Instant,
    was_said: bool,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { said_at: SystemClock.instant(), was_said: false, is_shown }
    }

    /// Shows what `so_far` says, if it is time to.
    pub(super) fn tell(&mut self, so_far: impl FnOnce() -> String) {
        if !self.is_shown {
            return;
        }
        let now = SystemClock.instant();
        if now.saturating_duration_since(self.said_at) < EVERY {
            return;
        }
        (self.said_at, self.was_said) = (now, true);
        // Nothing depends on it.
        let _ = write!(io::stderr(), "\r{CLEAR}{}", so_far());
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
