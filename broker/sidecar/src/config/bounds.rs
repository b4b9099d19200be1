//! The limits of configured values, and checking them.

use std::fmt;
use std::time::Duration;

use key_broker_core::MAX_MESSAGES;

pub(super) fn milliseconds(key: &str, value: u64) -> Result<Duration, String> {
    within(key, value, 1, 300_000).map(Duration::from_millis)
}

pub(super) fn within<T: PartialOrd + Copy + fmt::Display>(
    key: &str,
    value: T,
    min: T,
    max: T,
) -> Result<T, String> {
    if value < min || value > max {
        Err(format!("{key}: {value} is not within {min} and {max}"))
    } else {
        Ok(value)
    }
}

/// How many messages.
pub(super) fn message_bound(key: &str, n: u64) -> Result<u64, String> {
    if n > MAX_MESSAGES {
        return Err(format!(
            "{key}: {n} is more than 2^32 = {MAX_MESSAGES}: AES-GCM with random nonces is not safe for more messages under \
             one key (NIST SP 800-38D, 8.3)"
        ));
    }
    within(key, n, 1, MAX_MESSAGES)
}

/// How many bytes.
pub(super) fn byte_bound(key: &str, n: u64) -> Result<u64, String> {
    within(key, n, 1, MAX_BYTES)
}

/// The AWS Encryption SDK's own bound for a cached data key is 2^63 - 1.
pub(super) const MAX_BYTES: u64 = i64::MAX as u64;
