//! Time: the one place that reads the machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the machine's clock")]
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as AWS writes a time in JSON: seconds with a fraction.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 need 41 of the 52 bits")]
pub(crate) fn epoch_seconds(unix_millis: u64) -> f64 {
    unix_millis as f64 / 1000.0
}
