//! `[messages]`: how far the data keys of encrypted messages are reused, and which messages are decrypted.

use std::time::Duration;

use key_broker_core::{Bounds, MAX_MESSAGES};
use serde::Deserialize;

use super::bounds::{MAX_BYTES, byte_bound, message_bound};

/// `[messages]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct MessagesSection {
    max_messages: u64,
    max_bytes: u64,
    pub(super) suites_without_commitment: bool,
}

impl Default for MessagesSection {
    /// The bounds are those of the AWS Encryption SDK's caching, which are as wide as they can be: each message has a key of its own.
    fn default() -> Self {
        Self { max_messages: MAX_MESSAGES, max_bytes: MAX_BYTES, suites_without_commitment: false }
    }
}

impl MessagesSection {
    /// The bounds of the data keys of messages, which live as long as others.
    pub(super) fn bounds(&self, max_age: Duration) -> Result<Bounds, String> {
        Ok(Bounds {
            max_age,
            max_messages: message_bound("messages.max_messages", self.max_messages)?,
            max_bytes: byte_bound("messages.max_bytes", self.max_bytes)?,
        })
    }
}
