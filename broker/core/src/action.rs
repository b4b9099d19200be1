//! The actions that workloads can request.

use serde::{Deserialize, Serialize};

/// An action that policies permit. It is named like the KMS operation, like IAM's permission for a part of one (`ReEncryptFrom`), or, for
/// messages, like the broker's own RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// A message encrypted under a data key that stays in the broker.
    EncryptMessage,
    /// Such a message, or one of an AWS Encryption SDK, decrypted.
    DecryptMessage,
    /// A data key.
    GenerateDataKey,
    /// A data key in encrypted form only.
    GenerateDataKeyWithoutPlaintext,
    /// A decrypt.
    Decrypt,
    /// A short plaintext encrypted under a KMS key itself.
    Encrypt,
    /// Re-encryption: the key of the source ciphertext.
    ReEncryptFrom,
    /// The same, of the key that encrypts it now.
    ReEncryptTo,
    /// A data key pair.
    GenerateDataKeyPair,
    /// A data key pair with its private key in encrypted form only.
    GenerateDataKeyPairWithoutPlaintext,
    /// Random bytes.
    GenerateRandom,
    /// What KMS knows about a key.
    DescribeKey,
}

impl Action {
    /// Every action, in the order of the contract.
    pub const ALL: [Self; 12] = [
        Self::EncryptMessage,
        Self::DecryptMessage,
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::Decrypt,
        Self::Encrypt,
        Self::ReEncryptFrom,
        Self::ReEncryptTo,
        Self::GenerateDataKeyPair,
        Self::GenerateDataKeyPairWithoutPlaintext,
        Self::GenerateRandom,
        Self::DescribeKey,
    ];

    /// Its name in policies and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EncryptMessage => "EncryptMessage",
            Self::DecryptMessage => "DecryptMessage",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "GenerateDataKeyWithoutPlaintext",
            Self::Decrypt => "Decrypt",
            Self::Encrypt => "Encrypt",
            Self::ReEncryptFrom => "ReEncryptFrom",
            Self::ReEncryptTo => "ReEncryptTo",
            Self::GenerateDataKeyPair => "GenerateDataKeyPair",
            Self::GenerateDataKeyPairWithoutPlaintext => "GenerateDataKeyPairWithoutPlaintext",
            Self::GenerateRandom => "GenerateRandom",
            Self::DescribeKey => "DescribeKey",
        }
    }

    /// The KMS operation that an event of this name stands for: a message is encrypted or decrypted by the broker, with a data key that KMS
    /// makes or decrypts. Any other name is KMS's own.
    #[must_use]
    pub fn operation_at_kms(event_name: &str) -> &str {
        match event_name {
            "EncryptMessage" => "GenerateDataKey",
            "DecryptMessage" => "Decrypt",
            other => other,
        }
    }
}
