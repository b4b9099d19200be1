//! Limits log lines of one kind: whatever causes a line at each call, a caller, KMS or the disk, cannot fill the
//! log's disk with it. The lines of one kind are those that one place in the code writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use key_broker_core::clock::Clock;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// Lets a number of lines of each kind pass, and counts the others.
#[derive(Clone)]
pub(crate) struct LogLimit(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    /// There are as many kinds as the code has places.
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

/// The lines of one kind.
#[derive(Debug, Default)]
struct Kind {
    /// When the interval began, and how many lines have passed in it.
    interval: Option<(Instant, u32)>,
    /// Suppressed lines that are not counted in a line yet.
    left_out: u64,
}

impl LogLimit {
    /// All kinds may pass.
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, kinds: Mutex::default() }))
    }

    /// How many lines of this kind were left out since this was last asked: for the line that passes.
    pub(crate) fn take_left_out(&self, line: &Metadata<'_>) -> u64 {
        self.kinds().get_mut(&line.callsite()).map_or(0, |kind| std::mem::take(&mut kind.left_out))
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        // A panic in it is a defect; these are numbers.
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn passes(&mut self, now: Instant) -> bool {
        let (began, written) = match self.interval {
            Some((began, written)) if now.saturating_duration_since(began) < INTERVAL => (began, written),
            _ => (now, 0),
        };
        let passes = written < AT_MOST;
        self.interval = Some((began, written + u32::from(passes)));
        self.left_out += u64::from(!passes);
        passes
    }
}

impl<S> Filter<S> for LogLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let line = event.metadata();
        // Whoever asks for more has them all.
        if *line.level() > LevelFilter::INFO {
            return true;
        }
        let now = self.0.clock.instant();
        self.kinds().entry(line.callsite()).or_default().passes(now)
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
/// Lines of a kind in an interval.
const AT_MOST: u32 = 10;

#[cfg(test)]
mod tests {
    //! However often a line is to be written: ten in five seconds are, and all others are counted.

    use key_broker_core::clock::SystemClock;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ten_of_a_kind_pass_in_five_seconds(pauses in prop::collection::vec(0..1_500_u64, 0..300)) {
            let (mut kind, mut now, mut passed) = (Kind::default(), SystemClock.instant(), Vec::new());
            let all = pauses.len();
            for pause in pauses {
                now += Duration::from_millis(pause);
                if kind.passes(now) {
                    passed.push(now);
                }
            }
            prop_assert_eq!(passed.len() as u64 + kind.left_out, all as u64);
            for (place, first) in passed.iter().enumerate() {
                // Of two intervals at most.
                let near = passed[place..].iter().take_while(|at| at.duration_since(*first) < INTERVAL);
                prop_assert!(near.count() <= 2 * AT_MOST as usize);
            }
        }
    }

    #[test]
    fn a_seldom_line_always_passes() {
        let (mut kind, mut now) = (Kind::default(), SystemClock.instant());
        for _ in 0..100 {
            assert!(kind.passes(now));
            now += Duration::from_millis(500);
        }
        assert_eq!(kind.left_out, 0);
    }
}
