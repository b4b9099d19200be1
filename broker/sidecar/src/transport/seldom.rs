//! Lines of the log that others can cause: one in a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is told once in a while, however often it happens.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It has happened. If it is to be told now: how often it has happened since it was told last.
    pub(crate) fn is_to_be_told(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            state.untold += 1;
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    //! However often it happens, there is one line in a while, and it counts the others.

    use key_broker_core::clock::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn the_next_line_counts_what_was_not_told() {
        let (seldom, start) = (Seldom::default(), SystemClock.instant());
        assert_eq!(seldom.is_to_be_told(start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(seldom.is_to_be_told(start + PAUSE / 2), None);
        }
        assert_eq!(seldom.is_to_be_told(start + PAUSE), Some(1_000));
    }
}
