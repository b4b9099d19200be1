//! What an answer of KMS must hold to be one.

use aws_sdk_kms::primitives::Blob;
use bytes::Bytes;
use key_broker_core::secret::wipe_stack;
use key_broker_core::{KeyArn, KeyId, Plaintext};

use super::error::unexpected;
use crate::kms::{KmsError, UsedKey};

pub(super) fn plaintext(blob: Option<Blob>) -> Result<Plaintext, KmsError> {
    wipe_stack();
    match blob.map(|blob| Plaintext::new(blob.into_inner())) {
        Some(plaintext) if !plaintext.is_empty() => Ok(plaintext),
        _ => Err(unexpected("the answer has no plaintext")),
    }
}

/// What an attested call gets, and nothing else. A KMS that does not know `Recipient` answers in plaintext.
pub(super) fn for_recipient(plaintext: Option<Blob>, ciphertext: Option<Blob>) -> Result<Bytes, KmsError> {
    if let Some(blob) = plaintext
        && !blob.as_ref().is_empty()
    {
        drop(Plaintext::new(blob.into_inner()));
        wipe_stack();
        return Err(unexpected("the answer to an attested call has a plaintext: it was erased"));
    }
    required(ciphertext, "the answer to an attested call has no ciphertext for the recipient").map(Into::into)
}

pub(super) fn ciphertext(blob: Option<Blob>) -> Result<Bytes, KmsError> {
    required(blob, "the answer has no ciphertext").map(Into::into)
}

pub(super) fn required(blob: Option<Blob>, without: &str) -> Result<Vec<u8>, KmsError> {
    match blob.map(Blob::into_inner) {
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(unexpected(without)),
    }
}

/// The key of an answer, which must be the key that was asked for.
pub(super) fn used_key(
    asked: Option<&KeyId>,
    key_id: Option<&str>,
    material_id: Option<String>,
) -> Result<UsedKey, KmsError> {
    let Some(arn) = key_id.and_then(KeyArn::parse) else {
        return Err(unexpected("the answer names no key ARN"));
    };
    if asked.is_some_and(|key| !key.may_be(&arn)) {
        return Err(unexpected("the answer is for another key than was asked for"));
    }
    Ok(UsedKey { arn, material_id })
}
