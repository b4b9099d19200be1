//! The requests, one type for each operation.

use std::sync::Arc;

use super::attested::AttestedRequest;
use super::{GrantTokens, KmsRequest, Operation, TypedRequest, WorkloadRequest};
use crate::named_key::RequestedKey;
use key_broker_core::{Action, CiphertextBlob, DataKeyLength, EncryptionContext, KeyId, RandomLength};
use key_broker_trail::record::RequestParameters;

/// A data key in both forms (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>).
#[derive(Clone)]
pub(crate) struct DataKeyRequest {
    /// The KMS key.
    pub key: RequestedKey,
    /// The data key's length.
    pub length: DataKeyLength,
    /// Bound to the ciphertext.
    pub context: EncryptionContext,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

/// A data key in encrypted form only
/// (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyWithoutPlaintext.html>).
#[derive(Clone)]
pub(crate) struct DataKeyWithoutPlaintextRequest(pub DataKeyRequest);

/// A decrypt (<https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>).
#[derive(Clone)]
pub(crate) struct DecryptRequest {
    /// The ciphertext that KMS made.
    pub ciphertext: CiphertextBlob,
    /// Exactly the context of encryption.
    pub context: EncryptionContext,
    /// The KMS key, if the caller named it.
    pub key: Option<RequestedKey>,
    /// The caller's grant tokens.
    pub grant_tokens: GrantTokens,
}

/// Random bytes (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateRandom.html>).
#[derive(Clone)]
pub(crate) struct RandomRequest {
    /// The number of bytes.
    pub length: RandomLength,
}

/// What KMS knows about a key (<https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html>).
#[derive(Clone)]
pub(crate) struct DescribeKeyRequest {
    /// The KMS key.
    pub key: RequestedKey,
}

/// Whether KMS would allow an operation: with `DryRun`, it does nothing
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>).
#[derive(Clone)]
pub(crate) struct DryRunRequest {
    /// The operation.
    pub of: DryRunOf,
    /// The KMS key.
    pub key: RequestedKey,
    /// The encryption context that permission is tested with.
    pub context: EncryptionContext,
}

/// What a dry run is of.
#[derive(Clone)]
pub(crate) enum DryRunOf {
    /// A data key.
    GenerateDataKey(DataKeyLength),
    /// A data key in encrypted form only.
    GenerateDataKeyWithoutPlaintext(DataKeyLength),
    /// A decrypt under a key that is named; of no ciphertext, only permission is tested.
    Decrypt(Option<CiphertextBlob>),
    /// A signature as the trail's digests have it.
    Sign,
}

impl DryRunOf {
    /// The operation's name at KMS.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::GenerateDataKey(_) => GENERATE_DATA_KEY,
            Self::GenerateDataKeyWithoutPlaintext(_) => GENERATE_DATA_KEY_WITHOUT_PLAINTEXT,
            Self::Decrypt(_) => DECRYPT,
            Self::Sign => SIGN,
        }
    }

    /// Whether permission may depend on an encryption context.
    pub(crate) fn has_context(&self) -> bool {
        !matches!(self, Self::Sign)
    }
}

/// A signature, `RSASSA_PKCS1_V1_5_SHA_256` (<https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html>).
#[derive(Clone)]
pub(crate) struct SignRequest {
    /// The signing key.
    pub key: RequestedKey,
    /// The SHA-256 digest to sign.
    pub digest: [u8; 32],
}

/// The public half of a key (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html>).
#[derive(Clone)]
pub(crate) struct PublicKeyRequest {
    /// The key.
    pub key: RequestedKey,
}

impl Operation for DataKeyRequest {
    fn name(&self) -> &'static str {
        GENERATE_DATA_KEY
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        Some(of(&self.key).with_context(&self.context).with_length(self.length))
    }
}

impl WorkloadRequest for DataKeyRequest {
    fn action(&self) -> Action {
        Action::GenerateDataKey
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

impl Operation for DataKeyWithoutPlaintextRequest {
    fn name(&self) -> &'static str {
        GENERATE_DATA_KEY_WITHOUT_PLAINTEXT
    }

    fn key(&self) -> Option<&RequestedKey> {
        self.0.key()
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        self.0.parameters()
    }
}

impl WorkloadRequest for DataKeyWithoutPlaintextRequest {
    fn action(&self) -> Action {
        Action::GenerateDataKeyWithoutPlaintext
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

impl Operation for DecryptRequest {
    fn name(&self) -> &'static str {
        DECRYPT
    }

    fn key(&self) -> Option<&RequestedKey> {
        self.key.as_ref()
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        let parameters = RequestParameters {
            encryption_algorithm: Some(SYMMETRIC.into()),
            key_id: self.sent_key().map(Into::into),
            ..RequestParameters::default()
        };
        Some(parameters.with_context(&self.context))
    }

    fn ciphertext(&self) -> Option<&[u8]> {
        Some(self.ciphertext.as_bytes())
    }
}

impl WorkloadRequest for DecryptRequest {
    fn action(&self) -> Action {
        Action::Decrypt
    }

    fn key_mut(&mut self) -> Option<&mut RequestedKey> {
        self.key.as_mut()
    }

    fn context(&self) -> Option<&EncryptionContext> {
        Some(&self.context)
    }

    fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
        Some(&mut self.context)
    }
}

impl Operation for RandomRequest {
    fn name(&self) -> &'static str {
        "GenerateRandom"
    }

    fn key(&self) -> Option<&RequestedKey> {
        None
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        None
    }

    fn random_bytes(&self) -> Option<u16> {
        Some(self.length.into())
    }
}

impl WorkloadRequest for RandomRequest {
    fn action(&self) -> Action {
        Action::GenerateRandom
    }

    fn key_mut(&mut self) -> Option<&mut RequestedKey> {
        None
    }

    fn context(&self) -> Option<&EncryptionContext> {
        None
    }

    fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
        None
    }
}

impl Operation for DescribeKeyRequest {
    fn name(&self) -> &'static str {
        "DescribeKey"
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        Some(of(&self.key))
    }
}

impl WorkloadRequest for DescribeKeyRequest {
    fn action(&self) -> Action {
        Action::DescribeKey
    }

    fn key_mut(&mut self) -> Option<&mut RequestedKey> {
        Some(&mut self.key)
    }

    fn context(&self) -> Option<&EncryptionContext> {
        None
    }

    fn context_mut(&mut self) -> Option<&mut EncryptionContext> {
        None
    }
}

impl Operation for DryRunRequest {
    fn name(&self) -> &'static str {
        self.of.name()
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        Some(match &self.of {
            DryRunOf::GenerateDataKey(length) | DryRunOf::GenerateDataKeyWithoutPlaintext(length) => {
                of(&self.key).with_context(&self.context).with_length(*length)
            }
            DryRunOf::Decrypt(_) => {
                RequestParameters { encryption_algorithm: Some(SYMMETRIC.into()), ..of(&self.key) }
                    .with_context(&self.context)
            }
            DryRunOf::Sign => of_signature(&self.key),
        })
    }
}

impl Operation for SignRequest {
    fn name(&self) -> &'static str {
        SIGN
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        Some(of_signature(&self.key))
    }
}

impl Operation for PublicKeyRequest {
    fn name(&self) -> &'static str {
        "GetPublicKey"
    }

    fn key(&self) -> Option<&RequestedKey> {
        Some(&self.key)
    }

    fn parameters(&self) -> Option<RequestParameters<'_>> {
        Some(of(&self.key))
    }
}

impl From<KeyId> for DescribeKeyRequest {
    fn from(key: KeyId) -> Self {
        Self { key: key.into() }
    }
}

impl From<KeyId> for PublicKeyRequest {
    fn from(key: KeyId) -> Self {
        Self { key: key.into() }
    }
}

macro_rules! kms_requests {
    ($($variant:ident($request:ty)),+ $(,)?) => {
        $(impl TypedRequest for $request {
            fn into_kms_request(self: Arc<Self>) -> KmsRequest {
                KmsRequest::$variant(self)
            }
        })+
    };
}

kms_requests! {
    DataKey(DataKeyRequest),
    DataKeyWithoutPlaintext(DataKeyWithoutPlaintextRequest),
    Decrypt(DecryptRequest),
    Random(RandomRequest),
    DescribeKey(DescribeKeyRequest),
    DryRun(DryRunRequest),
    Sign(SignRequest),
    PublicKey(PublicKeyRequest),
    AttestedDataKey(AttestedRequest<DataKeyRequest>),
    AttestedDecrypt(AttestedRequest<DecryptRequest>),
    AttestedRandom(AttestedRequest<RandomRequest>),
}

pub(super) fn of(key: &RequestedKey) -> RequestParameters<'_> {
    RequestParameters { key_id: Some(key.sent().into()), ..RequestParameters::default() }
}

fn of_signature(key: &RequestedKey) -> RequestParameters<'_> {
    RequestParameters {
        message_type: Some("DIGEST".into()),
        signing_algorithm: Some("RSASSA_PKCS1_V1_5_SHA_256".into()),
        ..of(key)
    }
}

const GENERATE_DATA_KEY: &str = "GenerateDataKey";
const GENERATE_DATA_KEY_WITHOUT_PLAINTEXT: &str = "GenerateDataKeyWithoutPlaintext";
const DECRYPT: &str = "Decrypt";
const SIGN: &str = "Sign";
pub(super) const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
