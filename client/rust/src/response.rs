//! Replies, with key material in types that erase themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use key_broker_proto::v1 as pb;
use zeroize::Zeroizing;

/// Key material. Erased when dropped; it cannot be printed, copied or compared.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// The bytes themselves. Whoever copies them erases the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Plaintext {
    fn from(bytes: Bytes) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl From<Zeroizing<Vec<u8>>> for Plaintext {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(…)")
    }
}

/// An encrypted message.
#[derive(Debug)]
pub struct EncryptedMessage {
    /// A message of the AWS Encryption SDK.
    pub message: Bytes,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The KMS call behind its data key, and how far that key has been used.
    pub provenance: Provenance,
}

/// A decrypted message.
#[derive(Debug)]
pub struct DecryptedMessage {
    /// The plaintext.
    pub plaintext: Plaintext,
    /// All of the message's encryption context, authentic.
    pub encryption_context: BTreeMap<String, String>,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The KMS call behind its data key, and how far that key has been used.
    pub provenance: Provenance,
}

/// A data key in both forms.
#[derive(Debug)]
pub struct DataKey {
    /// The data key.
    pub plaintext: Plaintext,
    /// The data key encrypted under the KMS key.
    pub ciphertext_blob: Bytes,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The key material of the KMS key; empty if KMS did not say.
    pub key_material_id: String,
    /// The KMS call behind it.
    pub provenance: Provenance,
}

/// A data key encrypted under a KMS key.
#[derive(Debug)]
pub struct EncryptedDataKey {
    /// The data key encrypted under the KMS key.
    pub ciphertext_blob: Bytes,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The key material of the KMS key; empty if KMS did not say.
    pub key_material_id: String,
    /// The KMS call behind it.
    pub provenance: Provenance,
}

/// A decrypted ciphertext.
#[derive(Debug)]
pub struct Decryption {
    /// The plaintext.
    pub plaintext: Plaintext,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The key material of the KMS key; empty if KMS did not say.
    pub key_material_id: String,
    /// The KMS call behind it.
    pub provenance: Provenance,
}

/// A plaintext that KMS has encrypted.
#[derive(Debug)]
pub struct Encryption {
    /// The ciphertext.
    pub ciphertext_blob: Bytes,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The KMS call behind it.
    pub provenance: Provenance,
}

/// A ciphertext that KMS has re-encrypted.
#[derive(Debug)]
pub struct ReEncryption {
    /// The new ciphertext.
    pub ciphertext_blob: Bytes,
    /// The ARN of the KMS key of the old ciphertext.
    pub source_key_id: String,
    /// The ARN of the KMS key of the new ciphertext.
    pub key_id: String,
    /// The KMS call behind it.
    pub provenance: Provenance,
}

/// A data key pair.
#[derive(Debug)]
pub struct DataKeyPair {
    /// The private key, PKCS #8 in DER; none if it was not asked for.
    pub private_key: Option<Plaintext>,
    /// The private key encrypted under the KMS key.
    pub private_key_ciphertext_blob: Bytes,
    /// The public key, `SubjectPublicKeyInfo` in DER.
    pub public_key: Bytes,
    /// The ARN of the KMS key.
    pub key_id: String,
    /// The KMS call behind it.
    pub provenance: Provenance,
}

/// Random bytes.
#[derive(Debug)]
pub struct RandomBytes {
    /// The bytes.
    pub plaintext: Plaintext,
    /// The KMS call behind them.
    pub provenance: Provenance,
}

/// KMS's description of a key, in the words of the KMS API reference (`KeyMetadata`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// The key's ARN.
    pub arn: String,
    /// For example `SYMMETRIC_DEFAULT`.
    pub key_spec: String,
    /// For example `ENCRYPT_DECRYPT`.
    pub key_usage: String,
    /// For example `Enabled`.
    pub key_state: String,
    /// Whether it is a multi-Region key.
    pub multi_region: bool,
    /// For example `AWS_KMS`.
    pub origin: String,
    /// `CUSTOMER` or `AWS`.
    pub key_manager: String,
    /// May be empty.
    pub description: String,
    /// When the key was made.
    pub creation_date: Option<SystemTime>,
    /// The KMS call behind the answer.
    pub provenance: Provenance,
}

/// The KMS call behind an answer, and how far the answer's data key has been used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Whether an earlier KMS call made the answer.
    pub from_cache: bool,
    /// The requestID of the KMS call behind the answer, as AWS CloudTrail has it.
    pub kms_request_id: String,
    /// The eventID of that call's KMS record in the broker's trail.
    pub kms_event_id: String,
    /// When KMS answered.
    pub minted_at: Option<SystemTime>,
    /// When the broker stops handing this data key out; none for a key that is handed out once.
    pub expires_at: Option<SystemTime>,
    /// Messages charged to this data key so far, this draw included.
    pub messages_used: u64,
    /// Messages it may serve in all.
    pub messages_limit: u64,
    /// Declared bytes charged to this data key so far, this draw included.
    pub bytes_used: u64,
    /// Declared bytes it may serve in all.
    pub bytes_limit: u64,
}

impl From<pb::EncryptMessageResponse> for EncryptedMessage {
    fn from(reply: pb::EncryptMessageResponse) -> Self {
        Self { message: reply.message, key_id: reply.key_id, provenance: reply.provenance.into() }
    }
}

impl From<pb::DecryptMessageResponse> for DecryptedMessage {
    fn from(reply: pb::DecryptMessageResponse) -> Self {
        Self {
            plaintext: reply.plaintext.into(),
            encryption_context: reply.encryption_context,
            key_id: reply.key_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::GenerateDataKeyResponse> for DataKey {
    fn from(reply: pb::GenerateDataKeyResponse) -> Self {
        Self {
            plaintext: reply.plaintext.into(),
            ciphertext_blob: reply.ciphertext_blob,
            key_id: reply.key_id,
            key_material_id: reply.key_material_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::GenerateDataKeyWithoutPlaintextResponse> for EncryptedDataKey {
    fn from(reply: pb::GenerateDataKeyWithoutPlaintextResponse) -> Self {
        Self {
            ciphertext_blob: reply.ciphertext_blob,
            key_id: reply.key_id,
            key_material_id: reply.key_material_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::DecryptResponse> for Decryption {
    fn from(reply: pb::DecryptResponse) -> Self {
        Self {
            plaintext: reply.plaintext.into(),
            key_id: reply.key_id,
            key_material_id: reply.key_material_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::EncryptResponse> for Encryption {
    fn from(reply: pb::EncryptResponse) -> Self {
        Self {
            ciphertext_blob: reply.ciphertext_blob,
            key_id: reply.key_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::ReEncryptResponse> for ReEncryption {
    fn from(reply: pb::ReEncryptResponse) -> Self {
        Self {
            ciphertext_blob: reply.ciphertext_blob,
            source_key_id: reply.source_key_id,
            key_id: reply.key_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::GenerateDataKeyPairResponse> for DataKeyPair {
    fn from(reply: pb::GenerateDataKeyPairResponse) -> Self {
        Self {
            private_key: Some(reply.private_key_plaintext.into()),
            private_key_ciphertext_blob: reply.private_key_ciphertext_blob,
            public_key: reply.public_key,
            key_id: reply.key_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::GenerateDataKeyPairWithoutPlaintextResponse> for DataKeyPair {
    fn from(reply: pb::GenerateDataKeyPairWithoutPlaintextResponse) -> Self {
        Self {
            private_key: None,
            private_key_ciphertext_blob: reply.private_key_ciphertext_blob,
            public_key: reply.public_key,
            key_id: reply.key_id,
            provenance: reply.provenance.into(),
        }
    }
}

impl From<pb::GenerateRandomResponse> for RandomBytes {
    fn from(reply: pb::GenerateRandomResponse) -> Self {
        Self { plaintext: reply.plaintext.into(), provenance: reply.provenance.into() }
    }
}

impl From<pb::DescribeKeyResponse> for KeyDescription {
    fn from(reply: pb::DescribeKeyResponse) -> Self {
        Self {
            arn: reply.arn,
            key_spec: reply.key_spec,
            key_usage: reply.key_usage,
            key_state: reply.key_state,
            multi_region: reply.multi_region,
            origin: reply.origin,
            key_manager: reply.key_manager,
            description: reply.description,
            creation_date: reply.creation_date.as_ref().and_then(time_of),
            provenance: reply.provenance.into(),
        }
    }
}

impl From<Option<pb::Provenance>> for Provenance {
    fn from(provenance: Option<pb::Provenance>) -> Self {
        let provenance = provenance.unwrap_or_default();
        Self {
            from_cache: provenance.served_from() == pb::provenance::Source::Cache,
            minted_at: provenance.minted_at.as_ref().and_then(time_of),
            expires_at: provenance.expires_at.as_ref().and_then(time_of),
            kms_request_id: provenance.kms_request_id,
            kms_event_id: provenance.kms_event_id,
            messages_used: provenance.messages_used,
            messages_limit: provenance.messages_limit,
            bytes_used: provenance.bytes_used,
            bytes_limit: provenance.bytes_limit,
        }
    }
}

fn time_of(timestamp: &prost_types::Timestamp) -> Option<SystemTime> {
    let since_epoch = Duration::new(timestamp.seconds.try_into().ok()?, timestamp.nanos.try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}
