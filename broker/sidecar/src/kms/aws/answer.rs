//! Validates KMS's answers.

use aws_sdk_kms::primitives::Blob;
use bytes::Bytes;
use key_broker_core::secret::wipe_stack;
use key_broker_core::{CiphertextBlob, KeyArn, KeyId, Plaintext};

use super::error::{other_key, unexpected};
use crate::kms::KmsError;
use crate::operation::UsedKey;

pub(super) fn plaintext(blob: Option<Blob>) -> Result<Plaintext, KmsError> {
    wipe_stack();
    match blob.map(|blob| Plaintext::new(blob.into_inner())) {
        Some(plaintext) if plaintext.len() > MAX_PLAINTEXT_BYTES => {
            Err(unexpected("the answer has a plaintext that is longer than KMS's longest"))
        }
        Some(plaintext) if !plaintext.is_empty() => Ok(plaintext),
        _ => Err(unexpected("the answer has no plaintext")),
    }
}

/// The ciphertext for an attested call's recipient, and nothing else. A KMS that does not know `Recipient` answers in plaintext.
pub(super) fn for_recipient(plaintext: Option<Blob>, ciphertext: Option<Blob>) -> Result<Bytes, KmsError> {
    if let Some(blob) = plaintext
        && !blob.as_ref().is_empty()
    {
        drop(Plaintext::new(blob.into_inner()));
        wipe_stack();
        return Err(unexpected("the answer to an attested call has a plaintext: it was erased"));
    }
    let bytes = required(ciphertext, "the answer to an attested call has no ciphertext for the recipient")?;
    if bytes.len() > MAX_FOR_RECIPIENT_BYTES {
        return Err(unexpected(
            "the answer has a ciphertext for the recipient that is longer than KMS's longest",
        ));
    }
    Ok(bytes.into())
}

pub(super) fn ciphertext(blob: Option<Blob>) -> Result<Bytes, KmsError> {
    let bytes = Bytes::from(required(blob, "the answer has no ciphertext")?);
    // A ciphertext that the broker would not accept in a Decrypt would be of no use to anybody.
    CiphertextBlob::parse(bytes.clone())
        .map_err(|_| unexpected("the answer has a ciphertext that is longer than KMS's longest"))?;
    Ok(bytes)
}

pub(super) fn required(blob: Option<Blob>, without: &str) -> Result<Vec<u8>, KmsError> {
    match blob.map(Blob::into_inner) {
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(unexpected(without)),
    }
}

/// The key in an answer, which must be the requested one. A multi-Region key gets its name in the region `home`, whichever of its
/// replicas answered.
pub(super) fn used_key(
    asked: Option<&KeyId>,
    key_id: Option<&str>,
    material_id: Option<String>,
    home: &str,
) -> Result<UsedKey, KmsError> {
    let Some(arn) = key_id.and_then(KeyArn::parse) else {
        return Err(unexpected("the answer names no key ARN"));
    };
    // An alias may stand for any key.
    if asked.is_some_and(|key| !key.is_alias() && !key.names(&arn)) {
        return Err(other_key());
    }
    Ok(UsedKey { arn: arn.in_region(home), material_id })
}

/// KMS: a plaintext has 1 to 4,096 bytes.
const MAX_PLAINTEXT_BYTES: usize = 4_096;
/// KMS: `CiphertextForRecipient` has 1 to 6,144 bytes.
const MAX_FOR_RECIPIENT_BYTES: usize = 6_144;
