//! What the cache may keep. No request with a recipient is among it.

use key_broker_core::KeyArn;

use super::partition::{Owner, Partition, Subject};
use crate::kms::recorded::Typed;
use crate::operation::{
    DataKey, DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptRequest, Decrypted, EncryptedDataKey,
    WorkloadRequest,
};
use crate::policy::Sealed;

/// A request whose reply the cache may keep.
pub(crate) trait Cacheable: WorkloadRequest + Typed<Reply: Kept> {
    /// Whether draws are charged: a data key encrypts, a decrypted ciphertext is only looked at again.
    const IS_CHARGED: bool;

    fn partition(&self, owner: Owner<'_>) -> Partition;

    /// Whether a kept reply may answer this request at all.
    fn may_reuse(&self) -> bool;
}

/// A reply that can be kept.
pub(crate) trait Kept: Send + Sync + 'static {
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
}

impl Cacheable for DecryptRequest {
    const IS_CHARGED: bool = false;

    fn partition(&self, owner: Owner<'_>) -> Partition {
        let subject = Subject::Decrypt(self.ciphertext.as_bytes(), self.key.as_ref());
        Partition::of(owner, self.action(), &subject, &self.context)
    }

    fn may_reuse(&self) -> bool {
        self.grant_tokens.as_slice().is_empty()
    }
}

impl Kept for DataKey {
    fn key(&self) -> &KeyArn {
        &self.encrypted.key.arn
    }

    fn bytes(&self) -> usize {
        self.plaintext.len() + self.encrypted.bytes()
    }
}

impl Kept for EncryptedDataKey {
    fn key(&self) -> &KeyArn {
        &self.key.arn
    }

    fn bytes(&self) -> usize {
        self.ciphertext_blob.len()
    }
}

impl Kept for Sealed<Decrypted> {
    fn key(&self) -> &KeyArn {
        Sealed::key(self)
    }

    fn bytes(&self) -> usize {
        Sealed::bytes(self)
    }
}
