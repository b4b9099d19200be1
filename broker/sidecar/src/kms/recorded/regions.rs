//! The regions in which a call is made, one after the other: a multi-Region key has a replica in each of them, any other key is in the
//! broker's own alone.
//!
//! Where another region can be turned to, one is given the time of an attempt, and half of what the call has left; retries are for the
//! last. Each region has its own limit on calls, its own circuit, and its own budget of retries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use key_broker_core::KeyArn;

use super::{RecordedReply, Recorder};
use crate::error::{BrokerError, KmsErrorKind};
use crate::kms::Kms;
use crate::kms::guard::{Guard, is_failure};
use crate::operation::{KmsReply, KmsRequest};

/// KMS in one region.
pub(crate) struct KmsRegion {
    /// With retries.
    pub(crate) kms: Arc<dyn Kms>,
    /// With one attempt, for calls that another region may answer.
    pub(crate) once: Arc<dyn Kms>,
    /// Bounds calls to it.
    pub(crate) guard: Guard,
    /// Makes records of its answers.
    pub(crate) recorder: Recorder,
}

/// How a region is asked.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// Until when it may take its time.
    pub(super) until: Instant,
    /// Whether another region is asked if this one does not answer.
    pub(super) has_others: bool,
}

impl Turn {
    /// The turn of a region at `now`, in a call that goes on until `deadline` and can go on in `others` more regions.
    pub(super) fn new(now: Instant, deadline: Instant, others: usize, attempt: Duration) -> Self {
        let has_others = others > 0;
        let half = deadline.saturating_duration_since(now) / 2;
        let until = if has_others { now + half.min(attempt) } else { deadline };
        Self { until, has_others }
    }
}

/// Whether a request may be made in another region: it is a use of a key that it names, and that is a multi-Region key.
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
        // Of no key; about the key in this very region; or the broker's own, which can wait.
        // Two keys, which may have replicas in different regions.
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

/// Whether the broker's own region has not answered, and another one may.
pub(super) fn is_unanswered<T>(result: &Result<T, BrokerError>) -> bool {
    match result {
        Err(BrokerError::Kms(error)) => error.kind == KmsErrorKind::Throttled || is_failure(error),
        Err(BrokerError::CircuitOpen(_) | BrokerError::KmsBusy | BrokerError::DeadlineExceeded) => true,
        _ => false,
    }
}

/// Whether what another region said is an answer to the call: a refusal may be of the replica there alone, which is disabled by
/// itself, or not there at all, or has a key policy of its own.
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
    /// What is told after `next`, another region, was asked, too: its answer, or that the first one has not answered.
    pub(super) fn or(mut self, next: Self) -> Self {
        let Self { result, source, region, records } = next;
        if is_answer(&result) {
            (self.result, self.source, self.region) = (result, source, region);
        }
        self.records.add(records);
        self
    }
}
