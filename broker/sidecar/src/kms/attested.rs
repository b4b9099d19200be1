//! What KMS answers to attested calls: encrypted to the recipient's public key, so that the broker never sees it.
//!
//! The cache takes none of these types: what is for one recipient is kept for nobody.

use bytes::Bytes;
use key_broker_core::KeyArn;

use super::{EncryptedDataKey, UsedKey, Uses};

/// A data key that only its recipient can read.
pub struct AttestedDataKey {
    /// The data key, in CMS `EnvelopedData` (RFC 5652, 6).
    pub ciphertext_for_recipient: Bytes,
    /// Encrypted under the KMS key.
    pub encrypted: EncryptedDataKey,
}

/// A plaintext, or random bytes, that only their recipient can read.
pub struct AttestedPlaintext {
    /// The plaintext, in CMS `EnvelopedData`.
    pub ciphertext_for_recipient: Bytes,
    /// The KMS key of a decrypt.
    pub key: Option<UsedKey>,
}

impl Uses for AttestedDataKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.encrypted.used_key()
    }
}

impl Uses for AttestedPlaintext {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.key.as_ref().map(|key| (&key.arn, key.material_id.as_deref()))
    }
}
