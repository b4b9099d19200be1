//! KMS's replies, one type for each operation that has its own.

use std::sync::Arc;

use bytes::Bytes;
use key_broker_core::{KeyArn, Plaintext};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::attested::{AttestedDataKey, AttestedPlaintext, AttestedRandom};
use super::{AttestedDataKeyPair, DataKeyPair, EncryptedDataKeyPair, Encryption, ReEncryption};

/// KMS's reply to a [`KmsRequest`](super::KmsRequest).
pub(crate) enum KmsReply {
    /// To GenerateDataKey.
    DataKey(DataKey),
    /// To GenerateDataKeyWithoutPlaintext.
    EncryptedDataKey(EncryptedDataKey),
    /// To Decrypt.
    Decryption(Decryption),
    /// To Encrypt.
    Encryption(Encryption),
    /// To ReEncrypt.
    ReEncryption(ReEncryption),
    /// To GenerateDataKeyPair.
    DataKeyPair(DataKeyPair),
    /// To GenerateDataKeyPairWithoutPlaintext.
    EncryptedDataKeyPair(EncryptedDataKeyPair),
    /// To GenerateDataKeyPair with a recipient.
    AttestedDataKeyPair(AttestedDataKeyPair),
    /// To GenerateRandom.
    Random(Plaintext),
    /// To DescribeKey.
    KeyDescription(KeyDescription),
    /// To a dry run: KMS would have done it.
    Permitted,
    /// To Sign.
    Signature(Signature),
    /// To `GetPublicKey`.
    PublicKey(PublicKey),
    /// To GenerateDataKey with a recipient.
    AttestedDataKey(AttestedDataKey),
    /// To Decrypt with a recipient.
    AttestedPlaintext(AttestedPlaintext),
    /// To GenerateRandom with a recipient.
    AttestedRandom(AttestedRandom),
}

/// A reply to another operation than was asked for: a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnexpectedReply;

/// A data key in both forms.
pub(crate) struct DataKey {
    /// The key itself.
    pub plaintext: Plaintext,
    /// Encrypted under the KMS key.
    pub encrypted: EncryptedDataKey,
}

/// A data key encrypted under a KMS key.
pub(crate) struct EncryptedDataKey {
    /// The ciphertext.
    pub ciphertext_blob: Bytes,
    /// Its SHA-256 in hex, the name that it has in every record of its uses: computed once.
    pub ciphertext_sha256: Arc<str>,
    /// The KMS key.
    pub key: UsedKey,
}

impl EncryptedDataKey {
    /// A data key as KMS has encrypted it.
    #[must_use]
    pub(crate) fn new(ciphertext_blob: Bytes, key: UsedKey) -> Self {
        let ciphertext_sha256 = hex::encode(Sha256::digest(&ciphertext_blob)).into();
        Self { ciphertext_blob, ciphertext_sha256, key }
    }
}

/// What a ciphertext held.
pub(crate) struct Decryption {
    /// The bytes.
    pub plaintext: Plaintext,
    /// The KMS key.
    pub key: UsedKey,
}

/// The KMS key that an answer was made with.
#[derive(Debug, Clone)]
pub(crate) struct UsedKey {
    /// Its ARN.
    pub arn: KeyArn,
    /// The key material: 64 hex digits.
    pub material_id: Option<String>,
}

/// A signature.
pub(crate) struct Signature {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The key that made it.
    pub key: UsedKey,
}

/// The public half of a key.
pub(crate) struct PublicKey {
    /// X.509 `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
    /// The key.
    pub key: UsedKey,
}

/// What KMS knows about a key.
pub(crate) struct KeyDescription {
    /// The key's ARN.
    pub arn: KeyArn,
    /// KMS's `KeySpec`.
    pub key_spec: String,
    /// KMS's `KeyUsage`.
    pub key_usage: String,
    /// KMS's `KeyState`.
    pub key_state: String,
    /// KMS's `Origin`.
    pub origin: String,
    /// KMS's `KeyManager`.
    pub key_manager: String,
    /// KMS's `Description`.
    pub description: String,
    /// KMS's `MultiRegion`.
    pub multi_region: bool,
    /// KMS's `CreationDate`.
    pub creation_date: Option<OffsetDateTime>,
}

/// A reply that can name the KMS key it was made with.
pub(crate) trait KeyedReply {
    /// The key, where there is one.
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)>;

    /// The key of the new ciphertext.
    fn new_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        None
    }

    /// The SHA-256 of the ciphertext that KMS made, if any, by which its owner finds the call in the records.
    fn ciphertext_sha256(&self) -> Option<&Arc<str>> {
        None
    }
}

impl KeyedReply for DataKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.encrypted.used_key()
    }

    fn ciphertext_sha256(&self) -> Option<&Arc<str>> {
        self.encrypted.ciphertext_sha256()
    }
}

impl KeyedReply for EncryptedDataKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, self.key.material_id.as_deref()))
    }

    fn ciphertext_sha256(&self) -> Option<&Arc<str>> {
        Some(&self.ciphertext_sha256)
    }
}

impl KeyedReply for Decryption {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, self.key.material_id.as_deref()))
    }
}

impl KeyedReply for Signature {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, None))
    }
}

impl KeyedReply for PublicKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, None))
    }
}

impl KeyedReply for Plaintext {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        None
    }
}

impl KeyedReply for KeyDescription {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.arn, None))
    }
}

impl KeyedReply for KmsReply {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        match self {
            Self::DataKey(reply) => reply.used_key(),
            Self::EncryptedDataKey(reply) => reply.used_key(),
            Self::Decryption(reply) => reply.used_key(),
            Self::KeyDescription(reply) => reply.used_key(),
            Self::Encryption(reply) => reply.used_key(),
            Self::ReEncryption(reply) => reply.used_key(),
            Self::DataKeyPair(reply) => reply.used_key(),
            Self::EncryptedDataKeyPair(reply) => reply.used_key(),
            Self::AttestedDataKeyPair(reply) => reply.used_key(),
            Self::Signature(reply) => reply.used_key(),
            Self::PublicKey(reply) => reply.used_key(),
            Self::AttestedDataKey(reply) => reply.used_key(),
            Self::AttestedPlaintext(reply) => reply.used_key(),
            Self::Random(_) | Self::AttestedRandom(_) | Self::Permitted => None,
        }
    }

    fn new_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        if let Self::ReEncryption(reply) = self { reply.new_key() } else { None }
    }
}

impl KmsReply {
    /// The key it was made with; for ReEncrypt, the new key, too.
    #[must_use]
    pub(crate) fn used_keys(&self) -> [Option<(&KeyArn, Option<&str>)>; 2] {
        [self.used_key(), self.new_key()]
    }
}

/// Each reply can be taken out of a [`KmsReply`].
macro_rules! kms_replies {
    ($($variant:ident($reply:ty)),+ $(,)?) => {
        $(impl TryFrom<KmsReply> for $reply {
            type Error = UnexpectedReply;

            fn try_from(reply: KmsReply) -> Result<Self, UnexpectedReply> {
                if let KmsReply::$variant(reply) = reply { Ok(reply) } else { Err(UnexpectedReply) }
            }
        })+
    };
}

kms_replies! {
    DataKey(DataKey),
    EncryptedDataKey(EncryptedDataKey),
    Decryption(Decryption),
    Encryption(Encryption),
    ReEncryption(ReEncryption),
    DataKeyPair(DataKeyPair),
    EncryptedDataKeyPair(EncryptedDataKeyPair),
    AttestedDataKeyPair(AttestedDataKeyPair),
    Random(Plaintext),
    KeyDescription(KeyDescription),
    Signature(Signature),
    PublicKey(PublicKey),
    AttestedDataKey(AttestedDataKey),
    AttestedPlaintext(AttestedPlaintext),
    AttestedRandom(AttestedRandom),
}
