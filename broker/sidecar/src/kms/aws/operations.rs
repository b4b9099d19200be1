//! The KMS operations with the SDK, one function each, and the validation of their answers.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{self, MessageType, SigningAlgorithmSpec};
use key_broker_core::{DataKeyLength, KeyId};
use time::OffsetDateTime;

use super::answer::{ciphertext, for_recipient, plaintext, required, used_key};
use super::error::{kms_error, unexpected};
use super::input::{context_map, length_fields, non_empty, recipient_info};
use super::watch::AttemptWatch;
use crate::attestation::VerifiedRecipient;
use crate::kms::KmsError;
use crate::named_key::RequestedKey;
use crate::operation::attested::{AttestedDataKey, AttestedPlaintext, AttestedRandom};
use crate::operation::{
    DataKey, DataKeyRequest, DecryptRequest, Decryption, DescribeKeyRequest, EncryptedDataKey,
    KeyDescription, KmsReply, KmsRequest, Operation as _, PublicKey, PublicKeyRequest, RandomRequest,
    SignRequest, Signature, key_in_region,
};

/// How one call to KMS is signed, and where it goes.
pub(super) struct Way<'a> {
    pub(super) client: &'a aws_sdk_kms::Client,
    pub(super) watch: AttemptWatch,
    /// The region in which KMS is called.
    pub(super) region: &'a str,
    /// The region whose ARNs the broker uses for multi-Region keys.
    pub(super) home: &'a str,
}

impl Way<'_> {
    /// Makes the call.
    pub(super) async fn call(self, request: &KmsRequest) -> Result<KmsReply, KmsError> {
        match request {
            KmsRequest::DataKey(request) => self.generate_data_key(request, None).await,
            KmsRequest::DataKeyWithoutPlaintext(request) => {
                self.generate_data_key_without_plaintext(&request.0).await
            }
            KmsRequest::Decrypt(request) => self.decrypt(request, None).await,
            KmsRequest::Encrypt(request) => self.encrypt(request).await,
            KmsRequest::ReEncrypt(request) => self.re_encrypt(request).await,
            KmsRequest::DataKeyPair(request) => self.generate_data_key_pair(request, None).await,
            KmsRequest::DataKeyPairWithoutPlaintext(request) => {
                self.generate_data_key_pair_without_plaintext(&request.0).await
            }
            KmsRequest::AttestedDataKeyPair(attested) => {
                self.generate_data_key_pair(&attested.request, Some(&attested.recipient)).await
            }
            KmsRequest::Random(request) => self.generate_random(request, None).await,
            KmsRequest::DescribeKey(request) => self.describe_key(request).await,
            KmsRequest::DryRun(request) => self.dry_run(request).await,
            KmsRequest::Sign(request) => self.sign(request).await,
            KmsRequest::PublicKey(request) => self.public_key(request).await,
            KmsRequest::AttestedDataKey(attested) => {
                self.generate_data_key(&attested.request, Some(&attested.recipient)).await
            }
            KmsRequest::AttestedDecrypt(attested) => {
                self.decrypt(&attested.request, Some(&attested.recipient)).await
            }
            KmsRequest::AttestedRandom(attested) => {
                self.generate_random(&attested.request, Some(&attested.recipient)).await
            }
        }
    }

    /// The key as KMS in this region knows it.
    pub(super) fn sent(&self, key: &RequestedKey) -> KeyId {
        key_in_region(key.sent(), self.region)
    }

    async fn generate_data_key(
        self,
        request: &DataKeyRequest,
        recipient: Option<&VerifiedRecipient>,
    ) -> Result<KmsReply, KmsError> {
        let (key_spec, number_of_bytes) = length_fields(request.length);
        let key = self.sent(&request.key);
        let output = self
            .client
            .generate_data_key()
            .key_id(key.as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let home = self.home;
        let encrypted = |blob| {
            let used = used_key(Some(&key), output.key_id.as_deref(), output.key_material_id, home)?;
            Ok(EncryptedDataKey::new(ciphertext(blob)?, used))
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

    async fn generate_data_key_without_plaintext(
        self,
        request: &DataKeyRequest,
    ) -> Result<KmsReply, KmsError> {
        let (key_spec, number_of_bytes) = length_fields(request.length);
        let key = self.sent(&request.key);
        let output = self
            .client
            .generate_data_key_without_plaintext()
            .key_id(key.as_str())
            .set_key_spec(key_spec)
            .set_number_of_bytes(number_of_bytes)
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let used = used_key(Some(&key), output.key_id.as_deref(), output.key_material_id, self.home)?;
        Ok(KmsReply::EncryptedDataKey(EncryptedDataKey::new(ciphertext(output.ciphertext_blob)?, used)))
    }

    async fn decrypt(
        self,
        request: &DecryptRequest,
        recipient: Option<&VerifiedRecipient>,
    ) -> Result<KmsReply, KmsError> {
        let output = self
            .client
            .decrypt()
            .ciphertext_blob(Blob::new(request.ciphertext.as_bytes()))
            .set_key_id(request.key.as_ref().map(|key| self.sent(key).as_str().to_owned()))
            .set_encryption_context(context_map(&request.context))
            .set_grant_tokens(non_empty(request.grant_tokens.as_slice()))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let key = used_key(request.sent_key(), output.key_id.as_deref(), output.key_material_id, self.home);
        if recipient.is_some() {
            let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
            return Ok(KmsReply::AttestedPlaintext(AttestedPlaintext {
                ciphertext_for_recipient,
                key: key?,
            }));
        }
        Ok(KmsReply::Decryption(Decryption { plaintext: plaintext(output.plaintext)?, key: key? }))
    }

    async fn generate_random(
        self,
        request: &RandomRequest,
        recipient: Option<&VerifiedRecipient>,
    ) -> Result<KmsReply, KmsError> {
        let output = self
            .client
            .generate_random()
            .number_of_bytes(i32::from(u16::from(request.length)))
            .set_recipient(recipient.map(recipient_info))
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        if recipient.is_some() {
            let ciphertext_for_recipient = for_recipient(output.plaintext, output.ciphertext_for_recipient)?;
            return Ok(KmsReply::AttestedRandom(AttestedRandom { ciphertext_for_recipient }));
        }
        let plaintext = plaintext(output.plaintext)?;
        if plaintext.len() != usize::from(u16::from(request.length)) {
            return Err(unexpected("there are more or fewer random bytes than were asked for"));
        }
        Ok(KmsReply::Random(plaintext))
    }

    async fn describe_key(self, request: &DescribeKeyRequest) -> Result<KmsReply, KmsError> {
        let key = self.sent(&request.key);
        let output = self
            .client
            .describe_key()
            .key_id(key.as_str())
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        let Some(metadata) = output.key_metadata else {
            return Err(unexpected("the answer has no KeyMetadata"));
        };
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Ok(KmsReply::KeyDescription(KeyDescription {
            arn: used_key(Some(&key), metadata.arn.as_deref(), None, self.home)?.arn,
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

    async fn sign(self, request: &SignRequest) -> Result<KmsReply, KmsError> {
        let key = self.sent(&request.key);
        let output = self
            .client
            .sign()
            .key_id(key.as_str())
            .message(Blob::new(request.digest))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::RsassaPkcs1V15Sha256)
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(KmsReply::Signature(Signature {
            bytes: required(output.signature, "the answer has no signature")?,
            key: used_key(Some(&key), output.key_id.as_deref(), None, self.home)?,
        }))
    }

    async fn public_key(self, request: &PublicKeyRequest) -> Result<KmsReply, KmsError> {
        let key = self.sent(&request.key);
        let output = self
            .client
            .get_public_key()
            .key_id(key.as_str())
            .customize()
            .interceptor(self.watch)
            .send()
            .await
            .map_err(|error| kms_error(&error))?;
        Ok(KmsReply::PublicKey(PublicKey {
            spki: required(output.public_key, "the answer has no public key")?,
            key: used_key(Some(&key), output.key_id.as_deref(), None, self.home)?,
        }))
    }
}

fn length_in_bytes(length: DataKeyLength) -> usize {
    match length {
        DataKeyLength::Aes256 => 32,
        DataKeyLength::Aes128 => 16,
        DataKeyLength::Bytes(n) => u16::from(n).into(),
    }
}
