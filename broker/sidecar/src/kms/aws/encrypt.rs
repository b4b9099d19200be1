//! Encrypt, ReEncrypt and data key pairs with the SDK.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeyPairSpec, EncryptionAlgorithmSpec};
use key_broker_core::secret::wipe_stack;

use super::answer::{ciphertext, for_recipient, plaintext, required, used_key};
use super::error::kms_error;
use super::input::{context_map, non_empty, recipient_info};
use super::operations::Way;
use crate::attestation::VerifiedRecipient;
use crate::kms::KmsError;
use crate::operation::{
    AttestedDataKeyPair, DataKeyPair, DataKeyPairRequest, EncryptRequest, EncryptedDataKey,
    EncryptedDataKeyPair, Encryption, KeyPairSpec, KmsReply, ReEncryptRequest, ReEncryption,
};

impl Way<'_> {
    pub(super) async fn encrypt(self, request: &EncryptRequest) -> Result<KmsReply, KmsError> {
        let key = self.sent(&request.key);
        let output = self
            .client
            .encrypt()
            .key_id(key.as_str())
            .plaintext(Blob::new((*request.plaintext).as_ref()))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault)
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        // Copies of the plaintext that the SDK made while sending it.
        wipe_stack();
        let used = used_key(Some(&key), output.key_id.as_deref(), None, self.home)?;
        Ok(KmsReply::Encryption(Encryption(EncryptedDataKey::new(ciphertext(output.ciphertext_blob)?, used))))
    }

    pub(super) async fn re_encrypt(self, request: &ReEncryptRequest) -> Result<KmsReply, KmsError> {
        let source = request.source.as_ref().map(|key| self.sent(key));
        let destination = self.sent(&request.destination);
        let output = self
            .client
            .re_encrypt()
            .ciphertext_blob(Blob::new(request.ciphertext.as_bytes()))
            .set_source_key_id(source.as_ref().map(|key| key.as_str().to_owned()))
            .set_source_encryption_context(context_map(&request.source_context))
            .destination_key_id(destination.as_str())
            .set_destination_encryption_context(context_map(&request.destination_context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let home = self.home;
        let (from, to) = (output.source_key_material_id, output.destination_key_material_id);
        Ok(KmsReply::ReEncryption(ReEncryption {
            ciphertext_blob: ciphertext(output.ciphertext_blob)?,
            source: used_key(source.as_ref(), output.source_key_id.as_deref(), from, home)?,
            destination: used_key(Some(&destination), output.key_id.as_deref(), to, home)?,
        }))
    }

    pub(super) async fn generate_data_key_pair(
        self,
        request: &DataKeyPairRequest,
        recipient: Option<&VerifiedRecipient>,
    ) -> Result<KmsReply, KmsError> {
        let key = self.sent(&request.key);
        let output = self
            .client
            .generate_data_key_pair()
            .key_id(key.as_str())
            .key_pair_spec(key_pair_spec(request.spec))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let home = self.home;
        let pair = |public_key, blob| {
            let used = used_key(Some(&key), output.key_id.as_deref(), output.key_material_id, home)?;
            encrypted_pair(public_key, blob, used)
        };
        if recipient.is_some() {
            let ciphertext_for_recipient =
                for_recipient(output.private_key_plaintext, output.ciphertext_for_recipient)?;
            let encrypted = pair(output.public_key, output.private_key_ciphertext_blob)?;
            return Ok(KmsReply::AttestedDataKeyPair(AttestedDataKeyPair {
                ciphertext_for_recipient,
                encrypted,
            }));
        }
        let private_key = plaintext(output.private_key_plaintext)?;
        let encrypted = pair(output.public_key, output.private_key_ciphertext_blob)?;
        Ok(KmsReply::DataKeyPair(DataKeyPair { private_key, encrypted }))
    }

    pub(super) async fn generate_data_key_pair_without_plaintext(
        self,
        request: &DataKeyPairRequest,
    ) -> Result<KmsReply, KmsError> {
        let key = self.sent(&request.key);
        let output = self
            .client
            .generate_data_key_pair_without_plaintext()
            .key_id(key.as_str())
            .key_pair_spec(key_pair_spec(request.spec))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let used = used_key(Some(&key), output.key_id.as_deref(), output.key_material_id, self.home)?;
        let pair = encrypted_pair(output.public_key, output.private_key_ciphertext_blob, used)?;
        Ok(KmsReply::EncryptedDataKeyPair(pair))
    }
}

fn encrypted_pair(
    public_key: Option<Blob>,
    blob: Option<Blob>,
    used: crate::operation::UsedKey,
) -> Result<EncryptedDataKeyPair, KmsError> {
    Ok(EncryptedDataKeyPair {
        public_key: required(public_key, "the answer has no public key")?,
        private_key: EncryptedDataKey::new(ciphertext(blob)?, used),
    })
}

fn key_pair_spec(spec: KeyPairSpec) -> DataKeyPairSpec {
    match spec {
        KeyPairSpec::Rsa2048 => DataKeyPairSpec::Rsa2048,
        KeyPairSpec::Rsa3072 => DataKeyPairSpec::Rsa3072,
        KeyPairSpec::Rsa4096 => DataKeyPairSpec::Rsa4096,
        KeyPairSpec::EccNistP256 => DataKeyPairSpec::EccNistP256,
        KeyPairSpec::EccNistP384 => DataKeyPairSpec::EccNistP384,
        KeyPairSpec::EccNistP521 => DataKeyPairSpec::EccNistP521,
        KeyPairSpec::EccSecgP256k1 => DataKeyPairSpec::EccSecgP256K1,
    }
}
