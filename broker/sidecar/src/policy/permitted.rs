//! Proof that policy permits a request.

use std::sync::Arc;

use key_broker_core::{KeyArn, Principal};

use super::AnswerPolicy;
use crate::operation::{KmsRequest, ReEncryptFrom, ReEncryptRequest, ReEncryptTo, TypedRequest};

/// What policy has permitted. Only policy can make one, of the value that it was asked about, and every way to KMS requires one.
#[derive(Clone)]
pub(crate) struct Permitted<T> {
    subject: T,
    requester: Requester,
    /// The principal whose share of calls to KMS it counts against; `None` for the broker's own.
    share_of: Option<Principal>,
    /// Decides about the key in KMS's answer if the request named none.
    answer: Option<Arc<AnswerPolicy>>,
}

/// On whose behalf a call to KMS is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requester {
    Workload,
    /// The broker itself: no workload gets the reply.
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

    /// The permitted value.
    #[must_use]
    pub(crate) fn subject(&self) -> &T {
        &self.subject
    }

    /// On whose behalf the call is made.
    #[must_use]
    pub(crate) fn requester(&self) -> Requester {
        self.requester
    }

    /// The principal whose share of calls to KMS it counts against; `None` for the broker's own.
    #[must_use]
    pub(crate) fn share_of(&self) -> Option<&Principal> {
        self.share_of.as_ref()
    }

    /// Whether a reply that KMS made with this key may be cached and handed out. A request that named its key was
    /// permitted for that key; otherwise policy is asked about this one.
    #[must_use]
    pub(crate) fn admits(&self, key: &KeyArn) -> bool {
        self.answer.as_ref().is_none_or(|policy| policy.permits(key))
    }
}

impl Permitted<Arc<ReEncryptFrom>> {
    /// Joins both sides of one request; `None` if they belong to different requests, which is a defect.
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
    /// The key that the request names, which is permitted with it.
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
