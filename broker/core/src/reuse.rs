//! How far a data key may be reused.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a caller declared that it would encrypt with one draw. The default is zero of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredUse {
    /// At least 1.
    pub messages: u64,
    /// 0 is not declared.
    pub bytes: u64,
}

/// The three bounds of one data key. None is ever crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Since KMS was asked for it.
    pub max_age: Duration,
    /// Messages in total, over all draws.
    pub max_messages: u64,
    /// Declared bytes in total, over all draws.
    pub max_bytes: u64,
}

/// Bounds that a caller sets for its own draw; they only tighten the configured ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reuse {
    /// The data key may be at most this old.
    pub max_age: Option<Duration>,
    /// The data key may serve at most this many messages in all.
    pub max_messages: Option<u64>,
    /// The data key may serve at most this many declared bytes in all.
    pub max_bytes: Option<u64>,
    /// A data key for this call alone: never handed out before or after.
    pub fresh: bool,
}

impl Bounds {
    /// The sum of `used` and one more draw, if that exceeds no bound.
    #[must_use]
    pub fn charge(&self, used: DeclaredUse, more: DeclaredUse) -> Option<DeclaredUse> {
        let messages = used.messages.checked_add(more.messages).filter(|n| *n <= self.max_messages)?;
        let bytes = used.bytes.checked_add(more.bytes).filter(|n| *n <= self.max_bytes)?;
        Some(DeclaredUse { messages, bytes })
    }
}

/// The longest age that a configuration may allow, in seconds: a day. A key in KMS that was disabled longer ago than this is
/// served by nobody.
pub const MAX_AGE_SECONDS: u64 = 86_400;
/// The most messages that it may allow. NIST SP 800-38D, 8.3: at most 2^32 invocations with random 96-bit nonces under one
/// key.
pub const MAX_MESSAGES: u64 = 1 << 32;
