//! Which requests the cache may answer: none of them has a recipient.

use std::time::Duration;

use key_broker_core::{Bounds, KeyArn, KeyId};

use super::partition::{Owner, Partition, Subject};
use super::rules::Rule;
use crate::kms::recorded::CallableRequest;
use crate::operation::{
    DataKey, DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptMessageRequest, DecryptRequest,
    Decryption, DryRunOf, DryRunRequest, EncryptMessageRequest, EncryptedDataKey, WorkloadRequest,
};
use crate::policy::SealedReply;

/// A request whose reply may be cached.
pub(crate) trait Cacheable: WorkloadRequest + CallableRequest<Reply: CacheableReply> {
    /// Whether draws are charged against the bounds on messages and bytes. Each draw of a data key encrypts more;
    /// a draw of a decrypted plaintext does not.
    const IS_CHARGED: bool;

    /// The bounds of a rule that apply to it.
    fn bounds(rule: &Rule) -> Bounds {
        rule.bounds
    }

    fn partition(&self, owner: Owner<'_>) -> Partition;

    /// Whether a cached reply may answer this request at all.
    fn may_reuse(&self) -> bool;

    /// The dry run that asks KMS whether this request is still allowed under `key`.
    fn dry_run(&self, key: KeyId) -> DryRunRequest;
}

/// A reply that may be cached.
pub(crate) trait CacheableReply: Send + Sync + 'static {
    /// The KMS key behind it.
    fn key(&self) -> &KeyArn;

    /// The bytes of its plaintext and ciphertext.
    fn bytes(&self) -> usize;
}

impl Cacheable for DataKeyRequest {
    const IS_CHARGED: bool = true;

    fn partition(&self, owner: Owner<'_>) -> Partition {
        let subject = Subject::DataKey(&self.key, self.length);
        Partition::of(owner, self.action(), &subject, &self.context)
    }

    fn may_reuse(&self) -> bool {
        self.grant_tokens.as_slice().is_empty()
    }

    fn dry_run(&self, key: KeyId) -> DryRunRequest {
        let of = DryRunOf::GenerateDataKey(self.length);
        DryRunRequest { of, key: key.into(), context: self.context.clone() }
    }
}

impl Cacheable for DataKeyWithoutPlaintextRequest {
    const IS_CHARGED: bool = true;

    fn partition(&self, owner: Owner<'_>) -> Partition {
        let Self(request) = self;
        let subject = Subject::DataKey(&request.key, request.length);
        Partition::of(owner, self.action(), &subject, &request.context)
    }

    fn may_reuse(&self) -> bool {
        self.0.may_reuse()
    }

    fn dry_run(&self, key: KeyId) -> DryRunRequest {
        let of = DryRunOf::GenerateDataKeyWithoutPlaintext(self.0.length);
        DryRunRequest { of, key: key.into(), context: self.0.context.clone() }
    }
}

impl Cacheable for EncryptMessageRequest {
    const IS_CHARGED: bool = true;

    /// Each message is encrypted under its own key, derived from the data key, so nonces set no bound.
    fn bounds(rule: &Rule) -> Bounds {
        rule.message_bounds
    }

    fn partition(&self, owner: Owner<'_>) -> Partition {
        let request = self.data_key();
        let subject = Subject::DataKey(&request.key, request.length);
        Partition::of(owner, self.action(), &subject, &request.context)
    }

    fn may_reuse(&self) -> bool {
        self.data_key().may_reuse()
    }

    fn dry_run(&self, key: KeyId) -> DryRunRequest {
        self.data_key().dry_run(key)
    }
}

impl Cacheable for DecryptMessageRequest {
    const IS_CHARGED: bool = false;

    fn bounds(rule: &Rule) -> Bounds {
        DecryptRequest::bounds(rule)
    }

    fn partition(&self, owner: Owner<'_>) -> Partition {
        let request = self.decrypt();
        let subject = Subject::Decrypt(request.ciphertext.as_bytes(), request.key.as_ref());
        Partition::of(owner, self.action(), &subject, &request.context)
    }

    fn may_reuse(&self) -> bool {
        self.decrypt().may_reuse()
    }

    fn dry_run(&self, key: KeyId) -> DryRunRequest {
        self.decrypt().dry_run(key)
    }
}

impl Cacheable for DecryptRequest {
    const IS_CHARGED: bool = false;

    fn bounds(rule: &Rule) -> Bounds {
        Bounds { max_age: rule.bounds.max_age, ..UNBOUNDED }
    }

    fn partition(&self, owner: Owner<'_>) -> Partition {
        let subject = Subject::Decrypt(self.ciphertext.as_bytes(), self.key.as_ref());
        Partition::of(owner, self.action(), &subject, &self.context)
    }

    fn may_reuse(&self) -> bool {
        self.grant_tokens.as_slice().is_empty()
    }

    fn dry_run(&self, key: KeyId) -> DryRunRequest {
        let of = DryRunOf::Decrypt(Some(self.ciphertext.clone()));
        DryRunRequest { of, key: key.into(), context: self.context.clone() }
    }
}

impl CacheableReply for DataKey {
    fn key(&self) -> &KeyArn {
        &self.encrypted.key.arn
    }

    fn bytes(&self) -> usize {
        self.plaintext.len() + self.encrypted.bytes()
    }
}

impl CacheableReply for EncryptedDataKey {
    fn key(&self) -> &KeyArn {
        &self.key.arn
    }

    fn bytes(&self) -> usize {
        self.ciphertext_blob.len()
    }
}

impl CacheableReply for SealedReply<Decryption> {
    fn key(&self) -> &KeyArn {
        SealedReply::key(self)
    }

    fn bytes(&self) -> usize {
        SealedReply::bytes(self)
    }
}

/// Nothing but what a type can hold.
pub(super) const UNBOUNDED: Bounds =
    Bounds { max_age: Duration::MAX, max_messages: u64::MAX, max_bytes: u64::MAX };
