//! Proof that policy permits a request.

use std::sync::Arc;

use key_broker_core::{KeyArn, Principal};

use super::AnswerPolicy;
use crate::operation::{KmsRequest, ReEncryptFrom, ReEncryptRequest, ReEncryptTo, TypedRequest};

/// What policy has permitted. Only policy makes one, of the very value that it was asked about, and every way to KMS takes one.
#[derive(Clone)]
pub(crate) struct Permitted<T> {
    subject: T,
    requester: Requester,
    /// Of whose share of calls to KMS it is; none is the broker's own.
    share_of: Option<Principal>,
    /// Decides on the key of KMS's answer, where the request named none.
    answer: Option<Arc<AnswerPolicy>>,
}

/// On whose behalf a call to KMS is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A workload.
    Workload,
    /// The broker, for itself: no workload gets anything by it.
    Broker,
}

impl<T> Permitted<T> {
    pub(super) fn new(
        subject: T,
        requester: Requester,
        share_of: Option<Principal>,
        answer: Option<Arc<AnswerPolicy>>,
    ) -> Self {
        Self { subject, requester, share_of, answer }
    }

    /// What is permitted.
    #[must_use]
    pub(crate) fn subject(&self) -> &T {
        &self.subject
    }

    /// On whose behalf.
    #[must_use]
    pub(crate) fn requester(&self) -> Requester {
        self.requester
    }

    /// The principal of whose share of calls to KMS it is; none is the broker's own.
    #[must_use]
    pub(crate) fn share_of(&self) -> Option<&Principal> {
        self.share_of.as_ref()
    }

    /// Whether what KMS made with this key may be kept and handed out. A request that named its key was
    /// permitted for that key; for any other, policy is asked about the key that answered.
    #[must_use]
    pub(crate) fn admits(&self, key: &KeyArn) -> bool {
        self.answer.as_ref().is_none_or(|policy| policy.permits(key))
    }
}

impl Permitted<Arc<ReEncryptFrom>> {
    /// Both sides of one request: none where they are of different ones, which is a defect.
    #[must_use]
    pub(crate) fn and_to(self, to: &Permitted<Arc<ReEncryptTo>>) -> Option<Permitted<Arc<ReEncryptRequest>>> {
        let Self { subject, requester, share_of, answer } = self;
        let request = subject.0.clone();
        let is_one = request.destination == to.subject.0.destination
            && request.destination_context == to.subject.0.destination_context;
        is_one.then(|| Permitted { subject: Arc::new(request), requester, share_of, answer })
    }
}

impl<R: TypedRequest> Permitted<Arc<R>> {
    /// The key that the request names: permitted with it.
    #[must_use]
    pub(crate) fn named_key(&self) -> Option<Permitted<KeyArn>> {
        let key = self.subject.key()?.arn()?.clone();
        Some(Permitted {
            subject: key,
            requester: self.requester,
            share_of: self.share_of.clone(),
            answer: None,
        })
    }

    /// The same request as one of any operation.
    #[must_use]
    pub(crate) fn widen(self) -> Permitted<KmsRequest> {
        let Self { subject, requester, share_of, answer } = self;
        Permitted { subject: subject.into_kms_request(), requester, share_of, answer }
    }
}
