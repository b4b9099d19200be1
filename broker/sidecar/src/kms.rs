//! AWS KMS as the broker uses it: exactly the calls it makes, as a trait, and their errors.
//!
//! [`aws`] is the real one, [`caller`] whom AWS takes the broker for, [`guard`] keeps calls within limits, and [`recorded`]
//! makes every answer a KMS record.

pub mod aliases;
pub mod attested;
pub mod aws;
pub mod caller;
pub mod guard;
pub mod recorded;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use key_broker_core::{
    CiphertextBlob, DataKeyLength, EncryptionContext, GrantTokens, KeyArn, KeyId, Plaintext, RandomLength,
    RequestedKey,
};
use time::OffsetDateTime;

use crate::attestation::VerifiedRecipient;
use crate::audit::record::RequestParameters;
pub use crate::error::{KmsError, KmsErrorKind};
use crate::policy::Permit;
use attested::{AttestedDataKey, AttestedPlaintext};

/// The calls to KMS. Each takes the permit by value, so that none can be made without asking policy, and a log for what
/// KMS answers: a retried call has several answers.
#[async_trait]
pub trait Kms: Send + Sync + 'static {
    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>
    async fn generate_data_key(
        &self,
        permit: Permit,
        request: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<DataKey, KmsError>;

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyWithoutPlaintext.html>
    async fn generate_data_key_without_plaintext(
        &self,
        permit: Permit,
        request: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<EncryptedDataKey, KmsError>;

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>
    async fn decrypt(
        &self,
        permit: Permit,
        request: &DecryptRequest,
        answers: &Answers,
    ) -> Result<Decrypted, KmsError>;

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateRandom.html>
    async fn generate_random(
        &self,
        permit: Permit,
        length: RandomLength,
        answers: &Answers,
    ) -> Result<Plaintext, KmsError>;

    /// A data key for `recipient` alone: <https://docs.aws.amazon.com/kms/latest/developerguide/cryptographic-attestation.html>
    async fn generate_data_key_for(
        &self,
        permit: Permit,
        recipient: &VerifiedRecipient,
        request: &DataKeyRequest,
        answers: &Answers,
    ) -> Result<AttestedDataKey, KmsError>;

    /// A decrypt for `recipient` alone.
    async fn decrypt_for(
        &self,
        permit: Permit,
        recipient: &VerifiedRecipient,
        request: &DecryptRequest,
        answers: &Answers,
    ) -> Result<AttestedPlaintext, KmsError>;

    /// Random bytes for `recipient` alone.
    async fn generate_random_for(
        &self,
        permit: Permit,
        recipient: &VerifiedRecipient,
        length: RandomLength,
        answers: &Answers,
    ) -> Result<AttestedPlaintext, KmsError>;

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html>
    async fn describe_key(
        &self,
        permit: Permit,
        key: &KeyId,
        answers: &Answers,
    ) -> Result<KeyDescription, KmsError>;

    /// Whether the broker may still make data keys under `key`: GenerateDataKey with `DryRun`, which makes none
    /// (<https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>).
    async fn check(&self, permit: Permit, key: &KeyId, answers: &Answers) -> Result<(), KmsError>;

    /// Signs a SHA-256 digest, `RSASSA_PKCS1_V1_5_SHA_256`: <https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html>
    async fn sign(
        &self,
        permit: Permit,
        key: &KeyId,
        digest: [u8; 32],
        answers: &Answers,
    ) -> Result<Signature, KmsError>;

    /// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html>
    async fn public_key(&self, permit: Permit, key: &KeyId, answers: &Answers)
    -> Result<PublicKey, KmsError>;
}

/// What a call asks, as its records tell it.
#[derive(Clone)]
pub enum Asked {
    /// GenerateDataKey and GenerateDataKeyWithoutPlaintext.
    DataKey(Arc<DataKeyRequest>),
    /// Decrypt.
    Decrypt(Arc<DecryptRequest>),
    /// GenerateRandom.
    Random(RandomLength),
    /// DescribeKey.
    Describe(RequestedKey),
    /// The broker's own question what an alias means.
    Resolve(KeyId),
    /// The broker's own question whether it may still use a key.
    Check(KeyId),
    /// The trail's own data key for a log file.
    OwnDataKey(Arc<DataKeyRequest>),
    /// An auditor's decrypt of the trail.
    OwnDecrypt(Arc<DecryptRequest>),
    /// The signature of a digest of the trail.
    Sign(KeyId),
    /// What signatures of the trail are checked with.
    PublicKey(KeyId),
}

impl Asked {
    /// The KMS key, as the caller wrote it.
    #[must_use]
    pub fn key(&self) -> Option<&KeyId> {
        match self {
            Self::DataKey(request) | Self::OwnDataKey(request) => Some(&request.key.written),
            Self::Decrypt(request) | Self::OwnDecrypt(request) => {
                request.key.as_ref().map(|key| &key.written)
            }
            Self::Random(_) => None,
            Self::Describe(key) => Some(&key.written),
            Self::Resolve(key) | Self::Check(key) | Self::Sign(key) | Self::PublicKey(key) => Some(key),
        }
    }

    /// The KMS key, as KMS is asked for it.
    #[must_use]
    pub fn asked_key(&self) -> Option<&KeyId> {
        match self {
            Self::DataKey(request) | Self::OwnDataKey(request) => Some(&request.key.asked),
            Self::Decrypt(request) | Self::OwnDecrypt(request) => request.key.as_ref().map(|key| &key.asked),
            Self::Describe(key) => Some(&key.asked),
            _ => self.key(),
        }
    }

    /// Who asks, where that is no workload: CloudTrail's `invokedBy`.
    #[must_use]
    pub fn invoked_by(&self) -> Option<&'static str> {
        match self {
            Self::Resolve(_)
            | Self::Check(_)
            | Self::OwnDataKey(_)
            | Self::OwnDecrypt(_)
            | Self::Sign(_)
            | Self::PublicKey(_) => Some("key-broker"),
            Self::DataKey(_) | Self::Decrypt(_) | Self::Random(_) | Self::Describe(_) => None,
        }
    }

    /// The `requestParameters` that CloudTrail has, with the key as KMS is asked for it; none for GenerateRandom.
    #[must_use]
    pub fn parameters(&self) -> Option<RequestParameters<'_>> {
        match self {
            Self::DataKey(request) | Self::OwnDataKey(request) => Some(request.parameters()),
            Self::Decrypt(request) | Self::OwnDecrypt(request) => Some(request.parameters()),
            Self::Random(_) => None,
            Self::Sign(key) => Some(RequestParameters {
                message_type: Some("DIGEST"),
                key_id: Some(key),
                signing_algorithm: Some("RSASSA_PKCS1_V1_5_SHA_256"),
                ..RequestParameters::default()
            }),
            Self::Describe(RequestedKey { asked: key, .. }) | Self::Resolve(key) | Self::PublicKey(key) => {
                Some(RequestParameters { key_id: Some(key), ..RequestParameters::default() })
            }
            Self::Check(key) => {
                let parameters = RequestParameters { key_id: Some(key), ..RequestParameters::default() };
                Some(parameters.with_length(DataKeyLength::Aes256))
            }
        }
    }
}

/// What to ask for a data key with.
#[derive(Clone)]
pub struct DataKeyRequest {
    /// The KMS key.
    pub key: RequestedKey,
    /// The data key's length.
    pub length: DataKeyLength,
    /// Bound to the ciphertext.
    pub context: EncryptionContext,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

impl DataKeyRequest {
    /// As records have it.
    #[must_use]
    pub fn parameters(&self) -> RequestParameters<'_> {
        RequestParameters {
            key_id: Some(&self.key.asked),
            encryption_context: (!self.context.is_empty()).then_some(&self.context),
            ..RequestParameters::default()
        }
        .with_length(self.length)
    }
}

/// What to ask for a decrypt with.
#[derive(Clone)]
pub struct DecryptRequest {
    /// What KMS encrypted.
    pub ciphertext: CiphertextBlob,
    /// Exactly the context of encryption.
    pub context: EncryptionContext,
    /// The KMS key, if the caller named it.
    pub key: Option<RequestedKey>,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

impl DecryptRequest {
    /// As records have it.
    #[must_use]
    pub fn parameters(&self) -> RequestParameters<'_> {
        RequestParameters {
            encryption_algorithm: Some("SYMMETRIC_DEFAULT"),
            key_id: self.key.as_ref().map(|key| &key.asked),
            encryption_context: (!self.context.is_empty()).then_some(&self.context),
            ..RequestParameters::default()
        }
    }
}

/// A data key in both forms.
pub struct DataKey {
    /// The key itself.
    pub plaintext: Plaintext,
    /// Encrypted under the KMS key.
    pub encrypted: EncryptedDataKey,
}

/// A data key encrypted under a KMS key.
pub struct EncryptedDataKey {
    /// The ciphertext.
    pub ciphertext_blob: Bytes,
    /// The KMS key.
    pub key: UsedKey,
}

/// What a ciphertext held.
pub struct Decrypted {
    /// The bytes.
    pub plaintext: Plaintext,
    /// The KMS key.
    pub key: UsedKey,
}

/// The KMS key that an answer was made with.
#[derive(Debug, Clone)]
pub struct UsedKey {
    /// Its ARN.
    pub arn: KeyArn,
    /// The key material: 64 hex digits.
    pub material_id: Option<String>,
}

/// A signature.
pub struct Signature {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The key that made it.
    pub key: UsedKey,
}

/// The public half of a key.
pub struct PublicKey {
    /// X.509 `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
    /// The key.
    pub key: UsedKey,
}

/// What KMS knows about a key.
pub struct KeyDescription {
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

/// Outputs that name the KMS key they were made with.
pub trait Uses {
    /// The key, where there is one.
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)>;
}

impl Uses for DataKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.encrypted.used_key()
    }
}

impl Uses for EncryptedDataKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, self.key.material_id.as_deref()))
    }
}

impl Uses for Decrypted {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, self.key.material_id.as_deref()))
    }
}

impl Uses for Signature {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, None))
    }
}

impl Uses for PublicKey {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.key.arn, None))
    }
}

impl Uses for Plaintext {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        None
    }
}

impl Uses for () {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        None
    }
}

impl Uses for KeyDescription {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.arn, None))
    }
}

/// The answers that KMS has given during one call, each attempt of a retried call one.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Mutex<Vec<Answer>>>);

impl Answers {
    /// Notes an answer.
    pub fn push(&self, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// Takes what has been noted so far.
    #[must_use]
    pub fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One answer of KMS.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When it came.
    pub at: OffsetDateTime,
    /// `x-amzn-RequestId`.
    pub request_id: String,
    /// The access key that signed the question.
    pub access_key_id: Option<String>,
    /// The `User-Agent` of the question.
    pub user_agent: String,
    /// KMS's error, if it is one: name and words.
    pub error: Option<(String, String)>,
}
