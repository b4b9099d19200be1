//! What the cache may keep, and how KMS makes it.

use std::sync::Arc;

use async_trait::async_trait;
use key_broker_core::{Action, RequestedKey};

use super::Inner;
use super::partition::{Owner, Partition, Subject};
use super::pool::Pool;
use crate::kms::recorded::{Recorded, RecordedKms, Waiting};
use crate::kms::{DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey, Uses};
use crate::policy::Permit;

/// Something that KMS makes and the cache may keep.
#[async_trait]
pub(super) trait Mint: Uses + Send + Sync + Sized + 'static {
    type Request: Send + Sync + 'static;

    /// Whether draws are charged: a data key encrypts, a decrypted ciphertext is only looked at again.
    const IS_CHARGED: bool;

    fn pool(inner: &Inner) -> &Pool<Self>;

    fn partition(owner: Owner<'_>, action: Action, request: &Self::Request) -> Partition;

    /// Whether a request may be answered by a kept key at all.
    fn may_reuse(request: &Self::Request) -> bool;

    fn key(request: &Self::Request) -> Option<&RequestedKey>;

    /// How much it holds: plaintext and ciphertext.
    fn bytes(&self) -> usize;

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<Self::Request>,
        waiting: Waiting,
    ) -> Recorded<Self>;
}

#[async_trait]
impl Mint for DataKey {
    type Request = DataKeyRequest;
    const IS_CHARGED: bool = true;

    fn pool(inner: &Inner) -> &Pool<Self> {
        &inner.data_keys
    }

    fn partition(owner: Owner<'_>, action: Action, request: &DataKeyRequest) -> Partition {
        Partition::of(owner, action, &Subject::DataKey(&request.key, request.length), &request.context)
    }

    fn may_reuse(request: &DataKeyRequest) -> bool {
        request.grant_tokens.as_slice().is_empty()
    }

    fn key(request: &DataKeyRequest) -> Option<&RequestedKey> {
        Some(&request.key)
    }

    fn bytes(&self) -> usize {
        self.plaintext.len() + self.encrypted.bytes()
    }

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<DataKeyRequest>,
        waiting: Waiting,
    ) -> Recorded<Self> {
        kms.generate_data_key(permit, request, waiting).await
    }
}

#[async_trait]
impl Mint for EncryptedDataKey {
    type Request = DataKeyRequest;
    const IS_CHARGED: bool = true;

    fn pool(inner: &Inner) -> &Pool<Self> {
        &inner.encrypted_data_keys
    }

    fn partition(owner: Owner<'_>, action: Action, request: &DataKeyRequest) -> Partition {
        DataKey::partition(owner, action, request)
    }

    fn may_reuse(request: &DataKeyRequest) -> bool {
        DataKey::may_reuse(request)
    }

    fn key(request: &DataKeyRequest) -> Option<&RequestedKey> {
        Some(&request.key)
    }

    fn bytes(&self) -> usize {
        self.ciphertext_blob.len()
    }

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<DataKeyRequest>,
        waiting: Waiting,
    ) -> Recorded<Self> {
        kms.generate_data_key_without_plaintext(permit, request, waiting).await
    }
}

#[async_trait]
impl Mint for Decrypted {
    type Request = DecryptRequest;
    const IS_CHARGED: bool = false;

    fn pool(inner: &Inner) -> &Pool<Self> {
        &inner.decrypted
    }

    fn partition(owner: Owner<'_>, action: Action, request: &DecryptRequest) -> Partition {
        let subject = Subject::Decrypt(request.ciphertext.as_bytes(), request.key.as_ref());
        Partition::of(owner, action, &subject, &request.context)
    }

    fn may_reuse(request: &DecryptRequest) -> bool {
        request.grant_tokens.as_slice().is_empty()
    }

    fn key(request: &DecryptRequest) -> Option<&RequestedKey> {
        request.key.as_ref()
    }

    fn bytes(&self) -> usize {
        self.plaintext.len()
    }

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<DecryptRequest>,
        waiting: Waiting,
    ) -> Recorded<Self> {
        kms.decrypt(permit, request, waiting).await
    }
}
