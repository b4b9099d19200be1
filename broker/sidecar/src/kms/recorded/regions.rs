//! The regions in which a call is made, one after the other: a multi-Region key has a replica in each; any other key is only in the
//! broker's own.
//!
//! If other regions remain, a region may take the time of one attempt, but at most half of the time that the call has left; only the last
//! one gets retries. Each region has its own limit on calls, its own circuit breaker, and its own budget of retries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use key_broker_core::KeyArn;

use super::{RecordedReply, Recorder};
use crate::error::{BrokerError, KmsErrorKind};
use crate::kms::Kms;
use crate::kms::guard::{Guard, is_failure};
use crate::operation::{KmsReply, KmsRequest};

pub(crate) struct KmsRegion {
    /// With retries.
    pub(crate) kms: Arc<dyn Kms>,
    /// With one attempt, for calls that another region may answer.
    pub(crate) once: Arc<dyn Kms>,
    /// Limits calls to this region.
    pub(crate) guard: Guard,
    /// Makes records of this region's answers.
    pub(crate) recorder: Recorder,
}

/// How one region is asked.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// When its time ends.
    pub(super) until: Instant,
    /// Whether another region is asked if this one does not answer.
    pub(super) has_others: bool,
}

impl Turn {
    /// A region's turn at `now`, in a call until `deadline` that can go on to `others` more regions.
    pub(super) fn new(now: Instant, deadline: Instant, others: usize, attempt: Duration) -> Self {
        let has_others = others > 0;
        let half = deadline.saturating_duration_since(now) / 2;
        let until = if has_others { now + half.min(attempt) } else { deadline };
        Self { until, has_others }
    }
}

/// Whether a request may be made in another region: it must use a key that it names, and that must be a multi-Region key.
pub(super) fn goes_elsewhere(request: &KmsRequest) -> bool {
    let is_use = match request {
        KmsRequest::DataKey(_)
        | KmsRequest::DataKeyWithoutPlaintext(_)
        | KmsRequest::Decrypt(_)
        | KmsRequest::Encrypt(_)
        | KmsRequest::DataKeyPair(_)
        | KmsRequest::DataKeyPairWithoutPlaintext(_)
        | KmsRequest::AttestedDataKeyPair(_)
        | KmsRequest::AttestedDataKey(_)
        | KmsRequest::AttestedDecrypt(_) => true,
        // These concern no key, or the key in this region, or are the broker's own and can wait. ReEncrypt has two keys, which may
        // have replicas in different regions.
        KmsRequest::ReEncrypt(_)
        | KmsRequest::Random(_)
        | KmsRequest::AttestedRandom(_)
        | KmsRequest::DescribeKey(_)
        | KmsRequest::DryRun(_)
        | KmsRequest::Sign(_)
        | KmsRequest::PublicKey(_) => false,
    };
    let key = request.operation().sent_key().and_then(|key| KeyArn::parse(key.as_str()));
    is_use && key.is_some_and(|key| key.is_multi_region())
}

/// Whether the broker's own region has not answered, so that another one may.
pub(super) fn is_unanswered<T>(result: &Result<T, BrokerError>) -> bool {
    match result {
        Err(BrokerError::Kms(error)) => error.kind == KmsErrorKind::Throttled || is_failure(error),
        Err(BrokerError::CircuitOpen(_) | BrokerError::KmsBusy | BrokerError::DeadlineExceeded) => true,
        _ => false,
    }
}

/// Whether another region's reply answers the call. A refusal may concern only the replica there, which can be disabled by itself, or
/// missing, or have a key policy of its own.
pub(super) fn is_answer<T>(result: &Result<T, BrokerError>) -> bool {
    use KmsErrorKind::{IncorrectKey, InvalidCiphertext, Validation};
    match result {
        Ok(_) => true,
        Err(BrokerError::Kms(error)) => {
            matches!(error.kind, InvalidCiphertext | IncorrectKey | Validation)
        }
        Err(_) => false,
    }
}

impl RecordedReply<KmsReply> {
    /// The reply after another region gave `next`: its answer or, failing that, that the first region has not answered.
    pub(super) fn or(mut self, next: Self) -> Self {
        let Self { result, source, region, records } = next;
        if is_answer(&result) {
            (self.result, self.source, self.region) = (result, source, region);
        }
        self.records.add(records);
        self
    }
}
