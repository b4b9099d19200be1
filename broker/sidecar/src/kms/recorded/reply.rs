//! The reply type of each request. A reply whose key only KMS named stays sealed.

use key_broker_core::Plaintext;

use crate::operation::attested::{AttestedDataKey, AttestedPlaintext, AttestedRandom, AttestedRequest};
use crate::operation::{
    AttestedDataKeyPair, DataKey, DataKeyPair, DataKeyPairRequest, DataKeyPairWithoutPlaintextRequest,
    DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptMessageRequest, DecryptRequest, Decryption,
    DescribeKeyRequest, DryRunRequest, EncryptMessageRequest, EncryptRequest, EncryptedDataKey,
    EncryptedDataKeyPair, Encryption, KeyDescription, KmsReply, PublicKey, PublicKeyRequest, RandomRequest,
    ReEncryptRequest, ReEncryption, SignRequest, Signature, TypedRequest, UnexpectedReply,
};
use crate::policy::SealedReply;

/// A request for [`RecordedKms`](super::RecordedKms), with the type of its reply.
pub(crate) trait CallableRequest: TypedRequest {
    /// KMS's reply.
    type Reply: Send + 'static;

    /// Converts KMS's reply to this type.
    fn reply(reply: KmsReply) -> Result<Self::Reply, UnexpectedReply>;
}

macro_rules! typed {
    ($($request:ty => $reply:ty),+ $(,)?) => {
        $(impl CallableRequest for $request {
            type Reply = $reply;

            fn reply(reply: KmsReply) -> Result<$reply, UnexpectedReply> {
                reply.try_into()
            }
        })+
    };
}

typed! {
    DataKeyRequest => DataKey,
    EncryptMessageRequest => DataKey,
    DataKeyWithoutPlaintextRequest => EncryptedDataKey,
    EncryptRequest => Encryption,
    DataKeyPairRequest => DataKeyPair,
    DataKeyPairWithoutPlaintextRequest => EncryptedDataKeyPair,
    AttestedRequest<DataKeyPairRequest> => AttestedDataKeyPair,
    RandomRequest => Plaintext,
    DescribeKeyRequest => KeyDescription,
    SignRequest => Signature,
    PublicKeyRequest => PublicKey,
    AttestedRequest<DataKeyRequest> => AttestedDataKey,
    AttestedRequest<RandomRequest> => AttestedRandom,
}

impl CallableRequest for DryRunRequest {
    type Reply = ();

    fn reply(reply: KmsReply) -> Result<(), UnexpectedReply> {
        if let KmsReply::Permitted = reply { Ok(()) } else { Err(UnexpectedReply) }
    }
}

impl CallableRequest for DecryptRequest {
    type Reply = SealedReply<Decryption>;

    fn reply(reply: KmsReply) -> Result<SealedReply<Decryption>, UnexpectedReply> {
        sealed(reply)
    }
}

impl CallableRequest for DecryptMessageRequest {
    type Reply = SealedReply<Decryption>;

    fn reply(reply: KmsReply) -> Result<SealedReply<Decryption>, UnexpectedReply> {
        sealed(reply)
    }
}

impl CallableRequest for ReEncryptRequest {
    type Reply = SealedReply<ReEncryption>;

    fn reply(reply: KmsReply) -> Result<SealedReply<ReEncryption>, UnexpectedReply> {
        let encrypted = ReEncryption::try_from(reply)?;
        let (key, bytes) = (encrypted.source.arn.clone(), encrypted.ciphertext_blob.len());
        Ok(SealedReply::new(encrypted, key, bytes))
    }
}

fn sealed(reply: KmsReply) -> Result<SealedReply<Decryption>, UnexpectedReply> {
    let decrypted = Decryption::try_from(reply)?;
    let (key, bytes) = (decrypted.key.arn.clone(), decrypted.plaintext.len());
    Ok(SealedReply::new(decrypted, key, bytes))
}

impl CallableRequest for AttestedRequest<DecryptRequest> {
    type Reply = SealedReply<AttestedPlaintext>;

    fn reply(reply: KmsReply) -> Result<SealedReply<AttestedPlaintext>, UnexpectedReply> {
        let decrypted = AttestedPlaintext::try_from(reply)?;
        let (key, bytes) = (decrypted.key.arn.clone(), decrypted.ciphertext_for_recipient.len());
        Ok(SealedReply::new(decrypted, key, bytes))
    }
}
