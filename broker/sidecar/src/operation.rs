//! A call to KMS as a value: request and reply. Policy permits the request, the guard admits it, the AWS SDK sends it, and its records and
//! span describe it.

pub(crate) mod attested;
mod encrypt;
mod grant_tokens;
mod key_pairs;
mod measured;
mod messages;
mod reply;
mod request;

use std::sync::Arc;

use attested::AttestedRequest;
pub(crate) use encrypt::{
    EncryptRequest, Encryption, ReEncryptFrom, ReEncryptRequest, ReEncryptTo, ReEncryption,
};
pub(crate) use grant_tokens::GrantTokens;
use key_broker_core::{Action, EncryptionContext, KeyArn, KeyId};
use key_broker_trail::record::RequestParameters;
pub(crate) use key_pairs::{
    AttestedDataKeyPair, DataKeyPair, DataKeyPairRequest, DataKeyPairWithoutPlaintextRequest,
    EncryptedDataKeyPair, KeyPairSpec,
};
pub(crate) use measured::{recorded, recorded_at_kms};
pub(crate) use messages::{DecryptMessageRequest, EncryptMessageRequest};
pub(crate) use reply::KmsReply;
pub(crate) use reply::{
    DataKey, Decryption, EncryptedDataKey, KeyDescription, KeyedReply, PublicKey, Signature, UnexpectedReply,
    UsedKey,
};
pub(crate) use request::{
    DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptRequest, DescribeKeyRequest, DryRunOf,
    DryRunRequest, PublicKeyRequest, RandomRequest, SignRequest,
};

use crate::attestation::Measurements;
use crate::named_key::RequestedKey;

/// A request to KMS of any operation. Cheap to clone.
#[derive(Clone)]
pub(crate) enum KmsRequest {
    /// GenerateDataKey.
    DataKey(Arc<DataKeyRequest>),
    /// GenerateDataKeyWithoutPlaintext.
    DataKeyWithoutPlaintext(Arc<DataKeyWithoutPlaintextRequest>),
    /// Decrypt.
    Decrypt(Arc<DecryptRequest>),
    /// Encrypt.
    Encrypt(Arc<EncryptRequest>),
    /// ReEncrypt.
    ReEncrypt(Arc<ReEncryptRequest>),
    /// GenerateDataKeyPair.
    DataKeyPair(Arc<DataKeyPairRequest>),
    /// GenerateDataKeyPairWithoutPlaintext.
    DataKeyPairWithoutPlaintext(Arc<DataKeyPairWithoutPlaintextRequest>),
    /// GenerateDataKeyPair for one recipient.
    AttestedDataKeyPair(Arc<AttestedRequest<DataKeyPairRequest>>),
    /// GenerateRandom.
    Random(Arc<RandomRequest>),
    /// DescribeKey.
    DescribeKey(Arc<DescribeKeyRequest>),
    /// An operation with `DryRun`.
    DryRun(Arc<DryRunRequest>),
    /// Sign.
    Sign(Arc<SignRequest>),
    /// `GetPublicKey`.
    PublicKey(Arc<PublicKeyRequest>),
    /// GenerateDataKey for one recipient.
    AttestedDataKey(Arc<AttestedRequest<DataKeyRequest>>),
    /// Decrypt for one recipient.
    AttestedDecrypt(Arc<AttestedRequest<DecryptRequest>>),
    /// GenerateRandom for one recipient.
    AttestedRandom(Arc<AttestedRequest<RandomRequest>>),
}

impl KmsRequest {
    /// The request, whatever its operation.
    #[must_use]
    pub(crate) fn operation(&self) -> &dyn Operation {
        match self {
            Self::DataKey(request) => &**request,
            Self::DataKeyWithoutPlaintext(request) => &**request,
            Self::Decrypt(request) => &**request,
            Self::Encrypt(request) => &**request,
            Self::ReEncrypt(request) => &**request,
            Self::DataKeyPair(request) => &**request,
            Self::DataKeyPairWithoutPlaintext(request) => &**request,
            Self::AttestedDataKeyPair(request) => &**request,
            Self::Random(request) => &**request,
            Self::DescribeKey(request) => &**request,
            Self::DryRun(request) => &**request,
            Self::Sign(request) => &**request,
            Self::PublicKey(request) => &**request,
            Self::AttestedDataKey(request) => &**request,
            Self::AttestedDecrypt(request) => &**request,
            Self::AttestedRandom(request) => &**request,
        }
    }
}

/// What records, spans and policy need to know of a request.
pub(crate) trait Operation: Send + Sync + 'static {
    /// The operation's name at KMS.
    fn name(&self) -> &'static str;

    /// The KMS key that the request names, if it names one.
    fn key(&self) -> Option<&RequestedKey>;

    /// The `requestParameters` that CloudTrail has of it, with the key as KMS is asked for it; none for GenerateRandom.
    fn parameters(&self) -> Option<RequestParameters<'_>>;

    /// The same, with keys as the caller wrote them.
    fn written_parameters(&self) -> Option<RequestParameters<'_>> {
        let written = self.written_key().map(Into::into);
        self.parameters().map(|parameters| RequestParameters { key_id: written, ..parameters })
    }

    /// Whom alone KMS's reply is for: what their attestation document proves.
    fn recipient(&self) -> Option<&Arc<Measurements>> {
        None
    }

    /// The ciphertext of a Decrypt.
    fn ciphertext(&self) -> Option<&[u8]> {
        None
    }

    /// The number of bytes of a GenerateRandom, which activity records have, and CloudTrail has not.
    fn random_bytes(&self) -> Option<u16> {
        None
    }

    /// The KMS key as the caller wrote it.
    fn written_key(&self) -> Option<&KeyId> {
        self.key().map(|key| &key.written)
    }

    /// The KMS key as KMS is asked for it.
    fn sent_key(&self) -> Option<&KeyId> {
        self.key().map(RequestedKey::sent)
    }
}

/// The key as KMS in `region` is asked for it: a multi-Region key by the ARN of its replica there, any other as it is.
#[must_use]
pub(crate) fn key_in_region(key: &KeyId, region: &str) -> KeyId {
    KeyArn::parse(key.as_str()).map_or_else(|| key.clone(), |arn| KeyId::from(&arn.in_region(region)))
}

/// A request of one operation, which is also one of any.
pub(crate) trait TypedRequest: Operation + Sized {
    /// The request as one of any operation.
    fn into_kms_request(self: Arc<Self>) -> KmsRequest;
}

/// A request that workloads can make, as the service brings it before policy.
pub(crate) trait WorkloadRequest: TypedRequest + Clone {
    /// What policy is asked for.
    fn action(&self) -> Action;

    /// The key, to be resolved.
    fn key_mut(&mut self) -> Option<&mut RequestedKey>;

    /// The encryption context; none where the operation has none.
    fn context(&self) -> Option<&EncryptionContext>;

    /// The encryption context, to be bound to the principal.
    fn context_mut(&mut self) -> Option<&mut EncryptionContext>;
}
