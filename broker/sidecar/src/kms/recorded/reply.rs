//! Which reply belongs to which request. What KMS made with a key that only its answer named stays sealed.

use key_broker_core::Plaintext;

use crate::operation::attested::{Attested, AttestedDataKey, AttestedPlaintext, AttestedRandom};
use crate::operation::{
    DataKey, DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptRequest, Decrypted, DescribeKeyRequest,
    DryRunRequest, EncryptedDataKey, KeyDescription, KmsReply, PublicKey, PublicKeyRequest, RandomRequest,
    SignRequest, Signature, TypedRequest, UnexpectedReply,
};
use crate::policy::Sealed;

/// A request whose reply has a type of its own.
pub trait Typed: TypedRequest {
    /// KMS's reply.
    type Reply: Send + 'static;

    /// Takes it out of what KMS replied.
    fn reply(reply: KmsReply) -> Result<Self::Reply, UnexpectedReply>;
}

macro_rules! typed {
    ($($request:ty => $reply:ty),+ $(,)?) => {
        $(impl Typed for $request {
            type Reply = $reply;

            fn reply(reply: KmsReply) -> Result<$reply, UnexpectedReply> {
                reply.try_into()
            }
        })+
    };
}

typed! {
    DataKeyRequest => DataKey,
    DataKeyWithoutPlaintextRequest => EncryptedDataKey,
    RandomRequest => Plaintext,
    DescribeKeyRequest => KeyDescription,
    SignRequest => Signature,
    PublicKeyRequest => PublicKey,
    Attested<DataKeyRequest> => AttestedDataKey,
    Attested<RandomRequest> => AttestedRandom,
}

impl Typed for DryRunRequest {
    type Reply = ();

    fn reply(reply: KmsReply) -> Result<(), UnexpectedReply> {
        if let KmsReply::Permitted = reply { Ok(()) } else { Err(UnexpectedReply) }
    }
}

impl Typed for DecryptRequest {
    type Reply = Sealed<Decrypted>;

    fn reply(reply: KmsReply) -> Result<Sealed<Decrypted>, UnexpectedReply> {
        let decrypted = Decrypted::try_from(reply)?;
        let (key, bytes) = (decrypted.key.arn.clone(), decrypted.plaintext.len());
        Ok(Sealed::new(decrypted, key, bytes))
    }
}

impl Typed for Attested<DecryptRequest> {
    type Reply = Sealed<AttestedPlaintext>;

    fn reply(reply: KmsReply) -> Result<Sealed<AttestedPlaintext>, UnexpectedReply> {
        let decrypted = AttestedPlaintext::try_from(reply)?;
        let (key, bytes) = (decrypted.key.arn.clone(), decrypted.ciphertext_for_recipient.len());
        Ok(Sealed::new(decrypted, key, bytes))
    }
}
