//! The bounds that no configuration may cross.

use key_broker_core::MAX_MESSAGES;

use super::within;

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
