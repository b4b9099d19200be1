//! AWS KMS as the broker uses it: one call that takes a permitted request, and its errors.
//!
//! [`aws`] is the real one, [`guard`] keeps calls within limits, and [`recorded`] makes a KMS record of every answered attempt.

pub(crate) mod aliases;
pub(crate) mod auditor;
pub(crate) mod aws;
pub(crate) mod guard;
pub(crate) mod policy_aliases;
pub(crate) mod recorded;
mod trail_keys;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use time::OffsetDateTime;

pub(crate) use crate::error::{KmsError, KmsErrorKind};
use crate::operation::{KmsReply, KmsRequest};
use crate::policy::Permitted;
use aws::Encryption;
use aws::sessions::Session;

/// The way to KMS.
#[async_trait]
pub(crate) trait Kms: Send + Sync + 'static {
    /// Makes one call, which takes what policy has permitted. Each attempt that KMS answers is noted in `attempts`: a retried call
    /// has several.
    async fn call(&self, request: Permitted<KmsRequest>, attempts: &AttemptLog)
    -> Result<KmsReply, KmsError>;
}

/// The attempts of one call that KMS has answered so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttemptLog(Arc<Mutex<Answered>>);

/// What KMS has answered to one call.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// The attempts, each to have its record.
    pub(crate) attempts: Vec<Attempt>,
    /// Answers that can have no record, since they have no requestID.
    pub(crate) unidentified: u64,
    /// Whether the last answer is one of those.
    last_is_unidentified: bool,
}

impl Answered {
    /// The result of the call: none of an answer that has no record is used.
    pub(crate) fn checked(&self, result: Result<KmsReply, KmsError>) -> Result<KmsReply, KmsError> {
        result.and_then(|reply| {
            if self.last_is_unidentified {
                return Err(aws::unexpected("the answer has no x-amzn-RequestId, so it can have no record"));
            }
            Ok(reply)
        })
    }
}

impl AttemptLog {
    /// Notes an attempt.
    pub(crate) fn push(&self, attempt: Attempt) {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answered.attempts.push(attempt);
        answered.last_is_unidentified = false;
    }

    /// Notes an answer without a requestID.
    pub(crate) fn push_unidentified(&self) {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answered.unidentified += 1;
        answered.last_is_unidentified = true;
    }

    /// Takes what has been noted so far.
    #[must_use]
    pub(crate) fn take(&self) -> Answered {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One attempt at a call that KMS has answered.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// When the answer came.
    pub at: OffsetDateTime,
    /// `x-amzn-RequestId` of the answer.
    pub request_id: String,
    /// The access key that signed the attempt.
    pub access_key_id: Option<String>,
    /// Whose it is, if that is known.
    pub(crate) session: Option<Session>,
    /// This host's address on the connection to KMS, or to a proxy before it.
    pub(crate) source_address: Option<IpAddr>,
    /// The `User-Agent` of the attempt.
    pub(crate) user_agent: String,
    /// How the connection to KMS was encrypted, and to which host, where the connection tells.
    pub(crate) encryption: Option<(Encryption, String)>,
    /// KMS's error, if the answer is one: name and words.
    pub error: Option<(String, String)>,
}
