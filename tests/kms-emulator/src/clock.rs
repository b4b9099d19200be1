//! Time: the one place that reads the machine's clock, and the clock that the emulator goes by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time that the emulator goes by: the machine's, and what tests have advanced it by.
#[derive(Default)]
pub(crate) struct Clock {
    /// Milliseconds.
    ahead: AtomicU64,
}

impl Clock {
    /// Unix milliseconds.
    pub(crate) fn now(&self) -> u64 {
        unix_millis().saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let add = |ahead: u64| Some(ahead.saturating_add(millis));
        let _always_added = self.ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// The time of day in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the machine's clock")]
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as AWS writes a time in JSON: seconds with a fraction.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 need 41 of the 52 bits")]
pub(crate) fn epoch_seconds(unix_millis: u64) -> f64 {
    unix_millis as f64 / 1000.0
}
