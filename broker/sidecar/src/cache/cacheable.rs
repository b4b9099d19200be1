//! Which requests the cache may answer. None with a recipient is among them.

use key_broker_core::{Bounds, KeyArn, KeyId, UNBOUNDED};

use super::partition::{Owner, Partition, Subject};
use super::rules::Rule;
use crate::kms::recorded::CallableRequest;
use crate::operation::{
    DataKey, DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptMessageRequest, DecryptRequest,
    Decryption, DryRunOf, DryRunRequest, EncryptMessageRequest, EncryptedDataKey, WorkloadRequest,
};
use crate::policy::SealedReply;

/// A request whose reply the cache may keep.
pub(crate) trait Cacheable: WorkloadRequest + CallableRequest<Reply: CacheableReply> {
    /// Whether draws are charged against bounds of messages and bytes. A data key encrypts more with each
    /// draw; a decrypted plaintext does not.
    const IS_CHARGED: bool;

    /// Which of a rule's bounds hold for it.
    fn bounds(rule: &Rule) -> Bounds {
        rule.bounds
    }

    fn partition(&self, owner: Owner<'_>) -> Partition;

    /// Whether a kept reply may answer this request at all.
    fn may_reuse(&self) -> bool;

    /// The same of KMS, as a dry run under `key`.
    fn dry_run(&self, key: KeyId) -> DryRunRequest;
}

/// A reply that the cache may keep.
pub(crate) trait CacheableReply: Send + Sync + 'static {
    /// The KMS key that it was made with.
    fn key(&self) -> &KeyArn;

    /// How much it holds: plaintext and ciphertext.
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

    /// Each message has a key of its own, made of the data key: nonces set no bound.
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
