//! Requests with a recipient, and KMS's replies to them: encrypted to the recipient's public key, so that the
//! broker never sees the plaintext.
//!
//! The cache accepts none of these types: a reply for one recipient is never cached.

use std::sync::Arc;

use bytes::Bytes;
use key_broker_core::{Action, EncryptionContext, KeyArn};
use key_broker_trail::record::RequestParameters;

use super::{EncryptedDataKey, KeyedReply, Operation, TypedRequest, UsedKey, WorkloadRequest};
use crate::attestation::{Measurements, VerifiedRecipient};
use crate::named_key::RequestedKey;

/// A request whose reply only `recipient` can read
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/cryptographic-attestation.html>).
#[derive(Clone)]
pub(crate) struct AttestedRequest<R> {
    /// The enclave, whose attestation document goes with the request.
    pub recipient: VerifiedRecipient,
    /// The request itself.
    pub request: R,
}

/// A data key that only its recipient can read.
pub(crate) struct AttestedDataKey {
    /// The data key, in CMS `EnvelopedData` (RFC 5652, 6).
    pub ciphertext_for_recipient: Bytes,
    /// Encrypted under the KMS key.
    pub encrypted: EncryptedDataKey,
}

/// A plaintext that only its recipient can read.
pub(crate) struct AttestedPlaintext {
    /// The plaintext, in CMS `EnvelopedData`.
    pub ciphertext_for_recipient: Bytes,
    /// The KMS key.
    pub key: UsedKey,
}

/// Random bytes that only their recipient can read.
pub(crate) struct AttestedRandom {
    /// The bytes, in CMS `EnvelopedData`.
    pub ciphertext_for_recipient: Bytes,
}

impl<R: Operation> Operation for AttestedRequest<R> {
    fn name(&self) -> &'static str {
        self.request.name()
    }

    fn key(&self) -> Option<&RequestedKey> {
        self.request.key()
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        self.request.parameters()
    }

    fn recipient(&self) -> Option<&Arc<Measurements>> {
        Some(self.recipient.measurements())
    }

    fn ciphertext(&self) -> Option<&[u8]> {
        self.request.ciphertext()
    }

    fn random_bytes(&self) -> Option<u16> {
        self.request.random_bytes()
    }
}

impl<R: WorkloadRequest> WorkloadRequest for AttestedRequest<R>
where
    Self: TypedRequest,
{
    fn action(&self) -> Action {
        self.request.action()
    }

    fn key_mut(&mut self) -> Option<&mut RequestedKey> {
        self.request.key_mut()
    }

    fn context(&self) -> Option<&EncryptionContext> {
        self.request.context()
    }

    fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
        self.request.context_mut()
    }
}

impl KeyedReply for AttestedDataKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.encrypted.used_key()
    }

    fn ciphertext_sha256(&self) -> Option<&Arc<str>> {
        self.encrypted.ciphertext_sha256()
    }
}

impl KeyedReply for AttestedPlaintext {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, self.key.material_id.as_deref()))
    }
}

impl KeyedReply for AttestedRandom {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        None
    }
}
