//! Requests, built step by step.

use bytes::Bytes;
use key_broker_proto::v1 as pb;

/// Asks for a message to be encrypted.
#[derive(Debug, Clone)]
pub struct EncryptMessage(pub(crate) pb::EncryptMessageRequest);

impl EncryptMessage {
    /// Encrypts `plaintext`, at most 3,145,728 bytes, under `key_id`: a key id, key ARN, alias name or alias ARN.
    pub fn new(key_id: impl Into<String>, plaintext: impl Into<Bytes>) -> Self {
        let (key_id, plaintext) = (key_id.into(), plaintext.into());
        Self(pb::EncryptMessageRequest { key_id, plaintext, ..pb::EncryptMessageRequest::default() })
    }

    /// Adds a pair to the encryption context, which the message has in clear.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.encryption_context.insert(name.into(), value.into());
        self
    }

    /// Adds a grant token.
    #[must_use]
    pub fn grant_token(mut self, token: impl Into<String>) -> Self {
        self.0.grant_tokens.push(token.into());
        self
    }

    /// A data key for this message alone.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.0.reuse.get_or_insert_default().fresh = true;
        self
    }

    /// The same in parts, of any length together: whatever plaintext was given is the first.
    pub(crate) fn start(&self, plaintext_length: Option<u64>) -> pb::EncryptMessageStart {
        pb::EncryptMessageStart {
            key_id: self.0.key_id.clone(),
            encryption_context: self.0.encryption_context.clone(),
            grant_tokens: self.0.grant_tokens.clone(),
            reuse: self.0.reuse,
            plaintext_length,
        }
    }
}

/// Asks for a message to be decrypted: one of [`EncryptMessage`], or of an AWS Encryption SDK.
#[derive(Debug, Clone)]
pub struct DecryptMessage(pub(crate) pb::DecryptMessageRequest);

impl DecryptMessage {
    /// Decrypts `message`.
    pub fn new(message: impl Into<Bytes>) -> Self {
        Self(pb::DecryptMessageRequest { message: message.into(), ..pb::DecryptMessageRequest::default() })
    }

    /// Expects a pair in the message's encryption context: a message without it is refused.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.encryption_context.insert(name.into(), value.into());
        self
    }

    /// Expects the message to be encrypted under this key.
    #[must_use]
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.0.key_id = key_id.into();
        self
    }

    /// Adds a grant token.
    #[must_use]
    pub fn grant_token(mut self, token: impl Into<String>) -> Self {
        self.0.grant_tokens.push(token.into());
        self
    }

    pub(crate) fn start(&self, release_before_signature: bool) -> pb::DecryptMessageStart {
        pb::DecryptMessageStart {
            encryption_context: self.0.encryption_context.clone(),
            key_id: self.0.key_id.clone(),
            grant_tokens: self.0.grant_tokens.clone(),
            reuse: self.0.reuse,
            release_before_signature,
        }
    }
}

/// Asks for a data key.
#[derive(Debug, Clone)]
pub struct GenerateDataKey(pub(crate) pb::GenerateDataKeyRequest);

impl GenerateDataKey {
    /// A 32-byte data key under `key_id`: a key id, key ARN, alias name or alias ARN.
    pub fn aes_256(key_id: impl Into<String>) -> Self {
        Self::of(key_id, pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into()))
    }

    /// A 16-byte data key.
    pub fn aes_128(key_id: impl Into<String>) -> Self {
        Self::of(key_id, pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes128.into()))
    }

    /// A data key of 1 to 1,024 bytes.
    pub fn bytes(key_id: impl Into<String>, number_of_bytes: u32) -> Self {
        Self::of(key_id, pb::generate_data_key_request::Length::NumberOfBytes(number_of_bytes))
    }

    /// Adds a pair to the encryption context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.encryption_context.insert(name.into(), value.into());
        self
    }

    /// Adds a grant token.
    #[must_use]
    pub fn grant_token(mut self, token: impl Into<String>) -> Self {
        self.0.grant_tokens.push(token.into());
        self
    }

    /// Declares what the data key will encrypt.
    #[must_use]
    pub fn declare_use(mut self, messages: u64, bytes: u64) -> Self {
        self.0.r#use = Some(pb::Use { messages, bytes });
        self
    }

    /// The data key may be at most this old; never older than configured. Zero is as configured.
    #[must_use]
    pub fn max_age_seconds(mut self, seconds: u32) -> Self {
        self.reuse().max_age_seconds = seconds;
        self
    }

    /// The data key may serve at most this many messages in all; never more than configured. Zero is as configured.
    #[must_use]
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.reuse().max_messages = messages;
        self
    }

    /// The data key may serve at most this many declared bytes in all; never more than configured. Zero is as configured.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.reuse().max_bytes = bytes;
        self
    }

    /// A data key for this call alone: never handed out before or after.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.reuse().fresh = true;
        self
    }

    fn reuse(&mut self) -> &mut pb::Reuse {
        self.0.reuse.get_or_insert_default()
    }

    fn of(key_id: impl Into<String>, length: pb::generate_data_key_request::Length) -> Self {
        Self(pb::GenerateDataKeyRequest {
            key_id: key_id.into(),
            length: Some(length),
            ..pb::GenerateDataKeyRequest::default()
        })
    }
}

/// Asks for a data key in encrypted form only.
#[derive(Debug, Clone)]
pub struct GenerateDataKeyWithoutPlaintext(pub(crate) pb::GenerateDataKeyWithoutPlaintextRequest);

impl From<GenerateDataKey> for GenerateDataKeyWithoutPlaintext {
    fn from(GenerateDataKey(message): GenerateDataKey) -> Self {
        use pb::generate_data_key_request::Length;
        use pb::generate_data_key_without_plaintext_request::Length as Same;
        Self(pb::GenerateDataKeyWithoutPlaintextRequest {
            key_id: message.key_id,
            length: message.length.map(|length| match length {
                Length::KeySpec(spec) => Same::KeySpec(spec),
                Length::NumberOfBytes(n) => Same::NumberOfBytes(n),
            }),
            encryption_context: message.encryption_context,
            grant_tokens: message.grant_tokens,
            r#use: message.r#use,
            reuse: message.reuse,
        })
    }
}

/// Asks for a decrypt.
#[derive(Debug, Clone)]
pub struct Decrypt(pub(crate) pb::DecryptRequest);

impl Decrypt {
    /// Decrypts `ciphertext_blob`.
    pub fn new(ciphertext_blob: impl Into<Bytes>) -> Self {
        Self(pb::DecryptRequest { ciphertext_blob: ciphertext_blob.into(), ..pb::DecryptRequest::default() })
    }

    /// Names the key that encrypted it: another one is refused.
    #[must_use]
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.0.key_id = key_id.into();
        self
    }

    /// Adds a pair to the encryption context, which must be that of encryption.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.encryption_context.insert(name.into(), value.into());
        self
    }

    /// Adds a grant token.
    #[must_use]
    pub fn grant_token(mut self, token: impl Into<String>) -> Self {
        self.0.grant_tokens.push(token.into());
        self
    }
}

/// Asks for up to 4,096 bytes to be encrypted under a KMS key itself.
#[derive(Debug, Clone)]
pub struct Encrypt(pub(crate) pb::EncryptRequest);

impl Encrypt {
    /// Encrypts `plaintext` under `key_id`: a key id, key ARN, alias name or alias ARN.
    pub fn new(key_id: impl Into<String>, plaintext: impl Into<Bytes>) -> Self {
        let (key_id, plaintext) = (key_id.into(), plaintext.into());
        Self(pb::EncryptRequest { key_id, plaintext, ..pb::EncryptRequest::default() })
    }

    /// Adds a pair to the encryption context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.encryption_context.insert(name.into(), value.into());
        self
    }
}

/// Asks for a ciphertext of KMS to be encrypted anew.
#[derive(Debug, Clone)]
pub struct ReEncrypt(pub(crate) pb::ReEncryptRequest);

impl ReEncrypt {
    /// Encrypts `ciphertext_blob` under `destination_key_id`, by whatever name.
    pub fn new(ciphertext_blob: impl Into<Bytes>, destination_key_id: impl Into<String>) -> Self {
        let (ciphertext_blob, destination_key_id) = (ciphertext_blob.into(), destination_key_id.into());
        Self(pb::ReEncryptRequest { ciphertext_blob, destination_key_id, ..pb::ReEncryptRequest::default() })
    }

    /// Names the key that had encrypted it: another one is refused.
    #[must_use]
    pub fn source_key_id(mut self, key_id: impl Into<String>) -> Self {
        self.0.source_key_id = key_id.into();
        self
    }

    /// Adds a pair to the encryption context that it has.
    #[must_use]
    pub fn source_context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.source_encryption_context.insert(name.into(), value.into());
        self
    }

    /// Adds a pair to the encryption context that it is to have.
    #[must_use]
    pub fn destination_context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.destination_encryption_context.insert(name.into(), value.into());
        self
    }
}

/// The kind of a data key pair.
pub use pb::KeyPairSpec;

/// Asks for a data key pair.
#[derive(Debug, Clone)]
pub struct GenerateDataKeyPair(pub(crate) pb::GenerateDataKeyPairRequest);

impl GenerateDataKeyPair {
    /// A pair of this kind, whose private key is encrypted under `key_id`.
    pub fn new(key_id: impl Into<String>, spec: KeyPairSpec) -> Self {
        Self(pb::GenerateDataKeyPairRequest {
            key_id: key_id.into(),
            key_pair_spec: spec.into(),
            ..pb::GenerateDataKeyPairRequest::default()
        })
    }

    /// Adds a pair to the encryption context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.encryption_context.insert(name.into(), value.into());
        self
    }
}

impl From<GenerateDataKeyPair> for pb::GenerateDataKeyPairWithoutPlaintextRequest {
    fn from(GenerateDataKeyPair(message): GenerateDataKeyPair) -> Self {
        Self {
            key_id: message.key_id,
            key_pair_spec: message.key_pair_spec,
            encryption_context: message.encryption_context,
            grant_tokens: message.grant_tokens,
        }
    }
}
