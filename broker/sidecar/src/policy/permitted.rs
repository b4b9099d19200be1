//! Proof that policy said yes.

use std::sync::Arc;

use key_broker_core::KeyArn;

use super::AnswerPolicy;
use crate::operation::{KmsRequest, TypedRequest};

/// What policy has permitted. Only policy makes one, of the very value that it was asked about, and every way to KMS takes one.
#[derive(Clone)]
pub struct Permitted<T> {
    subject: T,
    asker: Asker,
    /// Decides on the key of KMS's answer, where the request named none.
    answer: Option<Arc<AnswerPolicy>>,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A workload.
    Workload,
    /// The broker, for itself: no workload gets anything by it.
    Broker,
}

impl<T> Permitted<T> {
    pub(super) fn new(subject: T, asker: Asker, answer: Option<Arc<AnswerPolicy>>) -> Self {
        Self { subject, asker, answer }
    }

    /// What is permitted.
    #[must_use]
    pub fn subject(&self) -> &T {
        &self.subject
    }

    /// Who asked.
    #[must_use]
    pub fn asker(&self) -> Asker {
        self.asker
    }

    /// Whether what KMS made with this key may be kept for, and handed to, who asked: of a request that named its key, that key was
    /// permitted.
    #[must_use]
    pub fn admits(&self, key: &KeyArn) -> bool {
        self.answer.as_ref().is_none_or(|policy| policy.permits(key))
    }
}

impl<R: TypedRequest> Permitted<Arc<R>> {
    /// The key that the request names: permitted with it.
    #[must_use]
    pub fn named_key(&self) -> Option<Permitted<KeyArn>> {
        let key = self.subject.key()?.arn()?.clone();
        Some(Permitted { subject: key, asker: self.asker, answer: None })
    }

    /// The same request as one of any operation.
    #[must_use]
    pub fn widen(self) -> Permitted<KmsRequest> {
        Permitted { subject: self.subject.into_kms_request(), asker: self.asker, answer: self.answer }
    }
}
