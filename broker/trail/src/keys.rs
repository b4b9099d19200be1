//! What a trail needs from KMS: four calls. An implementation records every answer of KMS before it returns it.

use std::fmt;

use async_trait::async_trait;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, KeyId, Plaintext};

/// The calls of a broker that delivers.
#[async_trait]
pub trait TrailKeys: Send + Sync + 'static {
    /// GenerateDataKey: 256 bits under `key`. When this returns, the record is in the journal or in its backlog.
    async fn data_key(&self, key: &KeyId, context: &EncryptionContext) -> Result<DataKey, KeysError>;

    /// Sign: RSASSA-PKCS1-v1_5 over this SHA-256 digest. Also returns the requestID of KMS's answer.
    async fn sign(&self, key: &KeyId, digest: [u8; 32]) -> Result<(Vec<u8>, Option<String>), KeysError>;

    /// GetPublicKey: the public half of `key`.
    async fn public_key(&self, key: &KeyId) -> Result<KmsPublicKey, KeysError>;
}

/// The call needed to read an encrypted trail.
#[async_trait]
pub trait Decrypter: Send + Sync + 'static {
    /// Decrypt: the data key of a log file. When this returns, the record is durable, if the reader keeps such records.
    async fn decrypt(
        &self,
        ciphertext: CiphertextBlob,
        key: &KeyArn,
        context: EncryptionContext,
    ) -> Result<Plaintext, KeysError>;
}

/// A new data key.
pub struct DataKey {
    /// The key under which it is encrypted.
    pub key: KeyArn,
    /// The data key itself.
    pub plaintext: Plaintext,
    /// The same, encrypted.
    pub ciphertext: CiphertextBlob,
    /// The requestID of KMS's answer.
    pub request_id: Option<String>,
}

/// The public half of an asymmetric key.
pub struct KmsPublicKey {
    /// The key's ARN.
    pub key: KeyArn,
    /// X.509 `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
}

/// KMS's refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysError {
    /// The kind of error.
    pub kind: KeysErrorKind,
    /// The reason, for people.
    pub words: String,
}

/// The kinds of errors, by what can be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysErrorKind {
    /// Trying again may help: KMS cannot be reached or throttles, or the record could not be committed.
    Passing,
    /// The key is of another kind.
    WrongKey,
    /// KMS refuses.
    Refused,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for KeysError {}
