//! Encrypt and ReEncrypt: requests and replies.

use std::sync::Arc;

use bytes::Bytes;
use key_broker_core::{Action, CiphertextBlob, EncryptionContext, KeyArn, KeyId, Plaintext};
use key_broker_trail::record::RequestParameters;

use super::request::{SYMMETRIC, of};
use super::{
    EncryptedDataKey, GrantTokens, KeyedReply, KmsRequest, Operation, TypedRequest, UsedKey, WorkloadRequest,
};
use crate::named_key::RequestedKey;

/// A short plaintext to be encrypted (<https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>).
#[derive(Clone)]
pub(crate) struct EncryptRequest {
    /// The KMS key.
    pub key: RequestedKey,
    /// 1 to 4,096 bytes.
    pub plaintext: Arc<Plaintext>,
    /// Bound to the ciphertext.
    pub context: EncryptionContext,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

/// What KMS has encrypted: kept in the form of an encrypted data key, which it may be.
pub(crate) struct Encryption(pub EncryptedDataKey);

/// A ciphertext to be re-encrypted (<https://docs.aws.amazon.com/kms/latest/APIReference/API_ReEncrypt.html>). Only policy makes a
/// permitted one, of a permit for either side.
#[derive(Clone)]
pub(crate) struct ReEncryptRequest {
    /// The ciphertext that KMS made.
    pub ciphertext: CiphertextBlob,
    /// Exactly the context of encryption.
    pub source_context: EncryptionContext,
    /// The KMS key that encrypted it, if the caller named it.
    pub source: Option<RequestedKey>,
    /// The KMS key to encrypt under.
    pub destination: RequestedKey,
    /// Bound to the new ciphertext.
    pub destination_context: EncryptionContext,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

/// The one side, of the key that had encrypted it: policy is asked for it, KMS is not.
#[derive(Clone)]
pub(crate) struct ReEncryptFrom(pub ReEncryptRequest);

/// The other side, of the key that is to encrypt it now.
#[derive(Clone)]
pub(crate) struct ReEncryptTo(pub ReEncryptRequest);

/// A re-encrypted ciphertext.
pub(crate) struct ReEncryption {
    /// The new ciphertext.
    pub ciphertext_blob: Bytes,
    /// The key that had encrypted it.
    pub source: UsedKey,
    /// The key that has encrypted it now.
    pub destination: UsedKey,
}

impl Operation for EncryptRequest {
    fn name(&self) -> &'static str {
        "Encrypt"
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        let parameters = of(&self.key).with_context(&self.context);
        Some(RequestParameters { encryption_algorithm: Some(SYMMETRIC.into()), ..parameters })
    }
}

impl WorkloadRequest for EncryptRequest {
    fn action(&self) -> Action {
        Action::Encrypt
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

impl TypedRequest for EncryptRequest {
    fn into_kms_request(self: Arc<Self>) -> KmsRequest {
        KmsRequest::Encrypt(self)
    }
}

impl ReEncryptRequest {
    fn parameters_with<'a>(&'a self, name: fn(&'a RequestedKey) -> &'a KeyId) -> RequestParameters<'a> {
        RequestParameters {
            source_encryption_algorithm: Some(SYMMETRIC.into()),
            destination_encryption_algorithm: Some(SYMMETRIC.into()),
            source_key_id: self.source.as_ref().map(|key| name(key).into()),
            destination_key_id: Some(name(&self.destination).into()),
            ..RequestParameters::default()
        }
        .with_contexts(&self.source_context, &self.destination_context)
    }
}

impl Operation for ReEncryptRequest {
    fn name(&self) -> &'static str {
        "ReEncrypt"
    }

    fn key(&self) -> Option<&RequestedKey> {
        self.source.as_ref()
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        Some(self.parameters_with(RequestedKey::sent))
    }

    fn written_parameters(&self) -> Option<RequestParameters<'_>> {
        Some(self.parameters_with(|key| &key.written))
    }

    fn ciphertext(&self) -> Option<&[u8]> {
        Some(self.ciphertext.as_bytes())
    }
}

impl TypedRequest for ReEncryptRequest {
    fn into_kms_request(self: Arc<Self>) -> KmsRequest {
        KmsRequest::ReEncrypt(self)
    }
}

/// A side: described as the whole, with a key and a context of its own.
macro_rules! sides {
    ($($side:ident => $key:expr, $key_mut:expr, $context:ident);+ $(;)?) => {
        $(impl Operation for $side {
            fn name(&self) -> &'static str {
                self.0.name()
            }

            fn key(&self) -> Option<&RequestedKey> {
                let key: fn(&ReEncryptRequest) -> Option<&RequestedKey> = $key;
                key(&self.0)
            }

            fn parameters(&self) -> Option<RequestParameters<'_>> {
                self.0.parameters()
            }

            fn ciphertext(&self) -> Option<&[u8]> {
                self.0.ciphertext()
            }
        }

        impl WorkloadRequest for $side {
            fn action(&self) -> Action {
                Action::$side
            }

            fn key_mut(&mut self) -> Option<&mut RequestedKey> {
                let key: fn(&mut ReEncryptRequest) -> Option<&mut RequestedKey> = $key_mut;
                key(&mut self.0)
            }

            fn context(&self) -> Option<&EncryptionContext> {
                Some(&self.0.$context)
            }

            fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
                Some(&mut self.0.$context)
            }
        }

        impl TypedRequest for $side {
            fn into_kms_request(self: Arc<Self>) -> KmsRequest {
                KmsRequest::ReEncrypt(Arc::new(self.0.clone()))
            }
        })+
    };
}

sides! {
    ReEncryptFrom => |request| request.source.as_ref(), |request| request.source.as_mut(), source_context;
    ReEncryptTo => |request| Some(&request.destination), |request| Some(&mut request.destination), destination_context;
}

impl KeyedReply for Encryption {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        self.0.used_key()
    }

    fn ciphertext_sha256(&self) -> Option<&Arc<str>> {
        self.0.ciphertext_sha256()
    }
}

impl KeyedReply for ReEncryption {
    fn used_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.source.arn, self.source.material_id.as_deref()))
    }

    fn new_key(&self) -> Option<(&KeyArn, Option<&str>)> {
        Some((&self.destination.arn, self.destination.material_id.as_deref()))
    }
}
