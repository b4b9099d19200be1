//! The operations as the SDK takes them, one function each, and what an answer must hold to be one.

use async_trait::async_trait;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{self, MessageType, SigningAlgorithmSpec};
use key_broker_core::DataKeyLength;
use time::OffsetDateTime;

use super::AwsKms;
use super::answer::{ciphertext, for_recipient, plaintext, required, used_key};
use super::error::{kms_error, unexpected};
use super::input::{context_map, length_fields, non_empty, recipient_info};
use crate::attestation::VerifiedRecipient;
use crate::kms::{AttemptLog, Kms, KmsError};
use crate::operation::attested::{AttestedDataKey, AttestedPlaintext, AttestedRandom};
use crate::operation::{
    DataKey, DataKeyRequest, DecryptRequest, Decryption, DescribeKeyRequest, EncryptedDataKey,
    KeyDescription, KmsReply, KmsRequest, Operation as _, PublicKey, PublicKeyRequest, RandomRequest,
    SignRequest, Signature,
};
use crate::policy::Permitted;

#[async_trait]
impl Kms for AwsKms {
    async fn call(
        &self,
        request: Permitted<KmsRequest>,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        match request.subject() {
            KmsRequest::DataKey(request) => self.generate_data_key(request, None, attempts).await,
            KmsRequest::DataKeyWithoutPlaintext(request) => {
                self.generate_data_key_without_plaintext(&request.0, attempts).await
            }
            KmsRequest::Decrypt(request) => self.decrypt(request, None, attempts).await,
            KmsRequest::Random(request) => self.generate_random(request, None, attempts).await,
            KmsRequest::DescribeKey(request) => self.describe_key(request, attempts).await,
            KmsRequest::DryRun(request) => self.dry_run(request, attempts).await,
            KmsRequest::Sign(request) => self.sign(request, attempts).await,
            KmsRequest::PublicKey(request) => self.public_key(request, attempts).await,
            KmsRequest::AttestedDataKey(attested) => {
                self.generate_data_key(&attested.request, Some(&attested.recipient), attempts).await
            }
            KmsRequest::AttestedDecrypt(attested) => {
                self.decrypt(&attested.request, Some(&attested.recipient), attempts).await
            }
            KmsRequest::AttestedRandom(attested) => {
                self.generate_random(&attested.request, Some(&attested.recipient), attempts).await
            }
        }
    }
}

impl AwsKms {
    pub(super) async fn generate_data_key(
        &self,
        request: &DataKeyRequest,
        recipient: Option<&VerifiedRecipient>,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let (key_spec, number_of_bytes) = length_fields(request.length);
        let output = self
            .client
            .generate_data_key()
            .key_id(request.key.sent().as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let encrypted = |blob| {
            Ok(EncryptedDataKey {
                ciphertext_blob: ciphertext(blob)?,
                key: used_key(Some(request.key.sent()), output.key_id.as_deref(), output.key_material_id)?,
            })
        };
        if recipient.is_some() {
            let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
            let encrypted = encrypted(output.ciphertext_blob)?;
            return Ok(KmsReply::AttestedDataKey(AttestedDataKey { ciphertext_for_recipient, encrypted }));
        }
        let plaintext = plaintext(output.plaintext)?;
        if plaintext.len() != length_in_bytes(request.length) {
            return Err(unexpected("the data key has another length than was asked for"));
        }
        Ok(KmsReply::DataKey(DataKey { plaintext, encrypted: encrypted(output.ciphertext_blob)? }))
    }

    pub(super) async fn generate_data_key_without_plaintext(
        &self,
        request: &DataKeyRequest,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let (key_spec, number_of_bytes) = length_fields(request.length);
        let output = self
            .client
            .generate_data_key_without_plaintext()
            .key_id(request.key.sent().as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(KmsReply::EncryptedDataKey(EncryptedDataKey {
            ciphertext_blob: ciphertext(output.ciphertext_blob)?,
            key: used_key(Some(request.key.sent()), output.key_id.as_deref(), output.key_material_id)?,
        }))
    }

    pub(super) async fn decrypt(
        &self,
        request: &DecryptRequest,
        recipient: Option<&VerifiedRecipient>,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let output = self
            .client
            .decrypt()
            .ciphertext_blob(Blob::new(request.ciphertext.as_bytes()))
            .set_key_id(request.sent_key().map(|key| key.as_str().to_owned()))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let key = used_key(request.sent_key(), output.key_id.as_deref(), output.key_material_id);
        if recipient.is_some() {
            let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
            return Ok(KmsReply::AttestedPlaintext(AttestedPlaintext {
                ciphertext_for_recipient,
                key: key?,
            }));
        }
        Ok(KmsReply::Decryption(Decryption { plaintext: plaintext(output.plaintext)?, key: key? }))
    }

    pub(super) async fn generate_random(
        &self,
        request: &RandomRequest,
        recipient: Option<&VerifiedRecipient>,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let output = self
            .client
            .generate_random()
            .number_of_bytes(i32::from(request.length.get()))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        if recipient.is_some() {
            let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
            return Ok(KmsReply::AttestedRandom(AttestedRandom { ciphertext_for_recipient }));
        }
        let plaintext = plaintext(output.plaintext)?;
        if plaintext.len() != usize::from(request.length.get()) {
            return Err(unexpected("there are more or fewer random bytes than were asked for"));
        }
        Ok(KmsReply::Random(plaintext))
    }

    pub(super) async fn describe_key(
        &self,
        request: &DescribeKeyRequest,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let key = request.key.sent();
        let output = self
            .client
            .describe_key()
            .key_id(key.as_str())
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let Some(metadata) = output.key_metadata else {
            return Err(unexpected("the answer has no KeyMetadata"));
        };
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Ok(KmsReply::KeyDescription(KeyDescription {
            arn: used_key(Some(key), metadata.arn.as_deref(), None)?.arn,
            key_spec: text(metadata.key_spec.as_ref().map(types::KeySpec::as_str)),
            key_usage: text(metadata.key_usage.as_ref().map(types::KeyUsageType::as_str)),
            key_state: text(metadata.key_state.as_ref().map(types::KeyState::as_str)),
            origin: text(metadata.origin.as_ref().map(types::OriginType::as_str)),
            key_manager: text(metadata.key_manager.as_ref().map(types::KeyManagerType::as_str)),
            description: metadata.description.unwrap_or_default(),
            multi_region: metadata.multi_region.unwrap_or_default(),
            creation_date: metadata
                .creation_date
                .and_then(|date| OffsetDateTime::from_unix_timestamp_nanos(date.as_nanos()).ok()),
        }))
    }

    pub(super) async fn sign(
        &self,
        request: &SignRequest,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let output = self
            .client
            .sign()
            .key_id(request.key.sent().as_str())
            .message(Blob::new(request.digest))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::RsassaPkcs1V15Sha256)
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(KmsReply::Signature(Signature {
            bytes: required(output.signature, "the answer has no signature")?,
            key: used_key(Some(request.key.sent()), output.key_id.as_deref(), None)?,
        }))
    }

    pub(super) async fn public_key(
        &self,
        request: &PublicKeyRequest,
        attempts: &AttemptLog,
    ) -> Result<KmsReply, KmsError> {
        let output = self
            .client
            .get_public_key()
            .key_id(request.key.sent().as_str())
            .customize()
            .interceptor(self.watch(attempts))
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(KmsReply::PublicKey(PublicKey {
            spki: required(output.public_key, "the answer has no public key")?,
            key: used_key(Some(request.key.sent()), output.key_id.as_deref(), None)?,
        }))
    }
}

fn length_in_bytes(length: DataKeyLength) -> usize {
    match length {
        DataKeyLength::Aes256 => 32,
        DataKeyLength::Aes128 => 16,
        DataKeyLength::Bytes(n) => n.get().into(),
    }
}
