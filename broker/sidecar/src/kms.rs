//! AWS KMS as the broker uses it: a call that takes a permitted request, and its errors.
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
    /// Makes one call with a request that policy has permitted. Each attempt that KMS answers is added to `attempts`: a call with
    /// retries has several.
    async fn call(&self, request: Permitted<KmsRequest>, attempts: &AttemptLog)
    -> Result<KmsReply, KmsError>;
}

/// The attempts of one call that KMS has answered so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttemptLog(Arc<Mutex<Answered>>);

/// What KMS has answered to one call.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// The attempts, each of which gets a record.
    pub(crate) attempts: Vec<Attempt>,
    /// Answers without a requestID, which can have no record.
    pub(crate) unidentified: u64,
    /// Whether the last answer has no requestID.
    last_is_unidentified: bool,
}

impl Answered {
    /// The result of the call, unless it came from an answer that can have no record.
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
    /// Adds an attempt.
    pub(crate) fn push(&self, attempt: Attempt) {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answered.attempts.push(attempt);
        answered.last_is_unidentified = false;
    }

    /// Adds an answer without a requestID.
    pub(crate) fn push_unidentified(&self) {
        let mut answered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answered.unidentified += 1;
        answered.last_is_unidentified = true;
    }

    /// Takes what was added so far.
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
    /// The session to which the access key belongs, if that is known.
    pub(crate) session: Option<Session>,
    /// This host's address on the connection to KMS, or to a proxy before it.
    pub(crate) source_address: Option<IpAddr>,
    /// The `User-Agent` of the attempt.
    pub(crate) user_agent: String,
    /// TLS details of the connection to KMS, and its host, if the connection reports them.
    pub(crate) encryption: Option<(Encryption, String)>,
    /// The code and message of KMS's error, if the answer is one.
    pub error: Option<(String, String)>,
}
