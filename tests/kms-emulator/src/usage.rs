//! When each key was last used, as `GetKeyLastUsage` tells it.
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyLastUsage.html>

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    /// Unix milliseconds.
    pub(crate) at: u64,
    /// AWS's name.
    pub(crate) operation: &'static str,
    pub(crate) request_id: String,
    pub(crate) event_id: String,
}

/// The last uses of all keys. They are of this process: a restart forgets them.
pub(crate) struct Usage {
    /// Unix milliseconds from which uses are known.
    since: u64,
    tracked: Mutex<Tracked>,
}

#[derive(Default)]
struct Tracked {
    /// Milliseconds until a use is told.
    delay: u64,
    with_dry_runs: bool,
    /// By key id, the oldest first: the newest that is told, and those that are not told yet.
    keys: BTreeMap<String, VecDeque<Use>>,
}

impl Usage {
    pub(crate) fn since(now: u64) -> Usage {
        Usage { since: now, tracked: Mutex::default() }
    }

    /// Unix milliseconds from which uses are known.
    pub(crate) fn known_since(&self) -> u64 {
        self.since
    }

    /// How long a use is not told, and whether dry runs are uses.
    pub(crate) fn track(&self, delay: Duration, with_dry_runs: bool) {
        let mut tracked = self.lock();
        tracked.delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tracked.with_dry_runs = with_dry_runs;
    }

    pub(crate) fn tracking(&self) -> (Duration, bool) {
        let tracked = self.lock();
        (Duration::from_millis(tracked.delay), tracked.with_dry_runs)
    }

    /// Notes a use.
    pub(crate) fn note(&self, key_id: &str, newest: Use, dry_run: bool) {
        let mut tracked = self.lock();
        if dry_run && !tracked.with_dry_runs {
            return;
        }
        let (delay, now) = (tracked.delay, newest.at);
        if !tracked.keys.contains_key(key_id) {
            tracked.keys.insert(key_id.to_owned(), VecDeque::new());
        }
        let Some(uses) = tracked.keys.get_mut(key_id) else { return };
        forget_outdated(uses, delay, now);
        // So that a busy key keeps a bounded number: of two uses in one such moment, the later is told.
        let moment = delay / MOMENTS + 1;
        if uses.len() > 1 && uses.back().is_some_and(|last| last.at / moment == now / moment) {
            uses.pop_back();
        }
        uses.push_back(newest);
    }

    /// The last use that is told by now.
    pub(crate) fn last(&self, key_id: &str, now: u64) -> Option<Use> {
        let mut tracked = self.lock();
        let delay = tracked.delay;
        let uses = tracked.keys.get_mut(key_id)?;
        forget_outdated(uses, delay, now);
        uses.front().filter(|used| is_told(used, delay, now)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the newest use that is told, and all that are not told yet.
fn forget_outdated(uses: &mut VecDeque<Use>, delay: u64, now: u64) {
    while uses.get(1).is_some_and(|second| is_told(second, delay, now)) {
        uses.pop_front();
    }
}

fn is_told(used: &Use, delay: u64, now: u64) -> bool {
    used.at.saturating_add(delay) <= now
}

/// Into how many moments the delay is cut; a key keeps about one use for each.
const MOMENTS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn used(at: u64) -> Use {
        Use { at, operation: "Decrypt", request_id: at.to_string(), event_id: String::new() }
    }

    proptest! {
        /// For delays short enough that each millisecond is a moment of its own.
        #[test]
        fn the_last_use_is_told_after_the_delay(
            steps in vec((0_u64..50, any::<bool>()), 1..60), delay in 0..MOMENTS,
        ) {
            let usage = Usage::since(0);
            usage.track(Duration::from_millis(delay), false);
            let (mut now, mut all) = (10_000, Vec::new());
            for (pause, uses) in steps {
                now += pause;
                if uses {
                    usage.note("k", used(now), false);
                    all.push(now);
                }
                let expected = all.iter().rev().find(|at| **at + delay <= now);
                prop_assert_eq!(usage.last("k", now).map(|used| used.at), expected.copied());
            }
        }
    }

    #[test]
    fn a_busy_key_keeps_a_bounded_number() {
        let usage = Usage::since(0);
        usage.track(Duration::from_hours(1), false);
        for at in (0..7_200_000).step_by(7) {
            usage.note("k", used(at), false);
        }
        assert!(usage.lock().keys["k"].len() <= 1_002);
        let told = usage.last("k", 7_200_000).expect("a use").at;
        assert!((3_596_000..=3_600_000).contains(&told), "{told}");
    }

    #[test]
    fn dry_runs_are_uses_if_told_so() {
        let usage = Usage::since(0);
        usage.note("k", used(1), true);
        assert_eq!(usage.last("k", 9), None);
        usage.track(Duration::ZERO, true);
        usage.note("k", used(2), true);
        assert_eq!(usage.last("k", 9).map(|used| used.at), Some(2));
    }
}
