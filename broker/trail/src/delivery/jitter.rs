//! Keeps brokers that start together from delivering together: the upper half of the first interval is jitter, derived from the trail's
//! name. So a journal keeps its offset across restarts, and the configured interval stays the upper limit.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// A duration from half of `interval` to all of it.
pub(super) fn with_jitter(interval: Duration, of: &str) -> Duration {
    interval.mul_f64(f64::midpoint(1.0, jitter(of)))
}

/// A number from 0 to 1.
fn jitter(of: &str) -> f64 {
    let [first, second, ..] = <[u8; 32]>::from(Sha256::digest(of));
    f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    //! A thousand trails start evenly over half of an interval, and each trail always at the same point.

    use super::*;
    use crate::trail_name::of_new_journal;

    #[test]
    fn a_thousand_trails_begin_over_half_an_interval() {
        let interval = Duration::from_mins(5);
        let mut of_each_tenth = [0; 10];
        for _ in 0..1_000 {
            let name = of_new_journal("orders");
            let first = with_jitter(interval, &name);
            assert_eq!(first, with_jitter(interval, &name));
            assert!((interval / 2..=interval).contains(&first), "{first:?}");
            let tenth = first.saturating_sub(interval / 2).as_secs() / 15;
            of_each_tenth[usize::try_from(tenth).expect("ten").min(9)] += 1;
        }
        // A hundred each are expected; one of ten is beyond these bounds once in 10^6 runs.
        assert!(of_each_tenth.iter().all(|trails| (50..160).contains(trails)), "{of_each_tenth:?}");
    }
}
