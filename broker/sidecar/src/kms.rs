//! AWS KMS as the broker uses it: one call that takes a permitted request, and its errors.
//!
//! [`aws`] is the real one, [`guard`] keeps calls within limits, and [`recorded`]
//! makes every attempt that KMS answered a KMS record.

pub(crate) mod aliases;
pub(crate) mod auditor;
pub(crate) mod aws;
pub(crate) mod guard;
pub(crate) mod policy_aliases;
pub(crate) mod recorded;
mod trail_keys;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use time::OffsetDateTime;

pub(crate) use crate::error::{KmsError, KmsErrorKind};
use crate::operation::{KmsReply, KmsRequest};
use crate::policy::Permitted;

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
pub(crate) struct AttemptLog(Arc<Mutex<Vec<Attempt>>>);

impl AttemptLog {
    /// Notes an attempt.
    pub(crate) fn push(&self, attempt: Attempt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }

    /// Takes what has been noted so far.
    #[must_use]
    pub(crate) fn take(&self) -> Vec<Attempt> {
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
    /// The `User-Agent` of the attempt.
    pub(crate) user_agent: String,
    /// KMS's error, if the answer is one: name and words.
    pub error: Option<(String, String)>,
}
