//! Data key pairs: requests and replies.

use std::sync::Arc;

use key_broker_core::{Action, EncryptionContext, KeyArn, Plaintext};
use key_broker_trail::record::RequestParameters;

use super::attested::AttestedRequest;
use super::request::of;
use super::{
    EncryptedDataKey, GrantTokens, KeyedReply, KmsRequest, Operation, TypedRequest, WorkloadRequest,
};
use crate::named_key::RequestedKey;

/// A data key pair in both forms (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyPair.html>).
#[derive(Clone)]
pub(crate) struct DataKeyPairRequest {
    /// The KMS key that encrypts the private key.
    pub key: RequestedKey,
    /// The kind of the pair.
    pub spec: KeyPairSpec,
    /// Bound to the ciphertext.
    pub context: EncryptionContext,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

/// A data key pair with its private key in encrypted form only
/// (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyPairWithoutPlaintext.html>).
#[derive(Clone)]
pub(crate) struct DataKeyPairWithoutPlaintextRequest(pub DataKeyPairRequest);

/// KMS's `DataKeyPairSpec`, except those of single regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyPairSpec {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    EccNistP256,
    EccNistP384,
    EccNistP521,
    EccSecgP256k1,
}

/// A data key pair.
pub(crate) struct DataKeyPair {
    /// PKCS #8.
    pub private_key: Plaintext,
    /// The rest.
    pub encrypted: EncryptedDataKeyPair,
}

/// A data key pair with its private key in encrypted form only.
pub(crate) struct EncryptedDataKeyPair {
    /// `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// The private key.
    pub private_key: EncryptedDataKey,
}

/// A data key pair whose private key only its recipient can read.
pub(crate) struct AttestedDataKeyPair {
    /// The private key, in CMS `EnvelopedData` (RFC 5652, 6).
    pub ciphertext_for_recipient: bytes::Bytes,
    /// The rest.
    pub encrypted: EncryptedDataKeyPair,
}

impl KeyPairSpec {
    /// KMS's name.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA_2048",
            Self::Rsa3072 => "RSA_3072",
            Self::Rsa4096 => "RSA_4096",
            Self::EccNistP256 => "ECC_NIST_P256",
            Self::EccNistP384 => "ECC_NIST_P384",
            Self::EccNistP521 => "ECC_NIST_P521",
            Self::EccSecgP256k1 => "ECC_SECG_P256K1",
        }
    }
}

impl Operation for DataKeyPairRequest {
    fn name(&self) -> &'static str {
        "GenerateDataKeyPair"
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        let parameters = of(&self.key).with_context(&self.context);
        Some(RequestParameters { key_pair_spec: Some(self.spec.name().into()), ..parameters })
    }
}

impl WorkloadRequest for DataKeyPairRequest {
    fn action(&self) -> Action {
        Action::GenerateDataKeyPair
    }

    fn key_mut(&mut self) -> Option<&mut RequestedKey> {
        Some(&mut self.key)
    }

    fn context(&self) -> Option<&EncryptionContext> {
        Some(&self.context)
    }

    fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
        Some(&mut self.context)
    }
}

impl Operation for DataKeyPairWithoutPlaintextRequest {
    fn name(&self) -> &'static str {
        "GenerateDataKeyPairWithoutPlaintext"
    }

    fn key(&self) -> Option<&RequestedKey> {
        self.0.key()
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        self.0.parameters()
    }
}

impl WorkloadRequest for DataKeyPairWithoutPlaintextRequest {
    fn action(&self) -> Action {
        Action::GenerateDataKeyPairWithoutPlaintext
    }

    fn key_mut(&mut self) -> Option<&mut RequestedKey> {
        self.0.key_mut()
    }

    fn context(&self) -> Option<&EncryptionContext> {
        self.0.context()
    }

    fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
        self.0.context_mut()
    }
}

impl TypedRequest for DataKeyPairRequest {
    fn into_kms_request(self: Arc<Self>) -> KmsRequest {
        KmsRequest::DataKeyPair(self)
    }
}

impl TypedRequest for DataKeyPairWithoutPlaintextRequest {
    fn into_kms_request(self: Arc<Self>) -> KmsRequest {
        KmsRequest::DataKeyPairWithoutPlaintext(self)
    }
}

impl TypedRequest for AttestedRequest<DataKeyPairRequest> {
    fn into_kms_request(self: Arc<Self>) -> KmsRequest {
        KmsRequest::AttestedDataKeyPair(self)
    }
}

/// The key, and the ciphertext of the private key.
macro_rules! keyed_by {
    ($($reply:ty => $field:ident),+ $(,)?) => {
        $(impl KeyedReply for $reply {
            fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
                self.$field.used_key()
            }

            fn ciphertext_sha256(&self) -> Option<&Arc<str>> {
                self.$field.ciphertext_sha256()
            }
        })+
    };
}

keyed_by! {
    DataKeyPair => encrypted,
    AttestedDataKeyPair => encrypted,
    EncryptedDataKeyPair => private_key,
}
