//! Conversions for Encrypt, ReEncrypt and data key pairs.

use std::sync::Arc;

use bytes::Bytes;
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyId, Plaintext};
use key_broker_proto::v1 as pb;
use key_broker_trail::record::DataKeyData;

use super::wire::{attestation_document, provenance};
use crate::error::BrokerError;
use crate::operation::{
    AttestedDataKeyPair, DataKeyPair, DataKeyPairRequest, DataKeyPairWithoutPlaintextRequest, EncryptRequest,
    EncryptedDataKeyPair, Encryption, GrantTokens, KeyPairSpec, ReEncryptRequest, ReEncryption, UsedKey,
};

pub(super) fn encrypt(message: pb::EncryptRequest) -> Result<EncryptRequest, BrokerError> {
    let plaintext = message.plaintext;
    if !(1..=MAX_PLAINTEXT_BYTES).contains(&plaintext.len()) {
        return Err(BrokerError::Rejected(
            format!(
                "plaintext has {} bytes; KMS takes 1 to {MAX_PLAINTEXT_BYTES}: use EncryptMessage for more",
                plaintext.len()
            )
            .into(),
        ));
    }
    Ok(EncryptRequest {
        key: KeyId::parse(&message.key_id)?.into(),
        plaintext: Arc::new(Plaintext::new(plaintext.into())),
        context: EncryptionContext::parse(message.encryption_context)?,
        grant_tokens: GrantTokens::parse(message.grant_tokens)?,
    })
}

pub(super) fn encrypted(encrypted: &Encryption, source: &DataKeyData) -> pb::EncryptResponse {
    let Encryption(encrypted) = encrypted;
    pb::EncryptResponse {
        ciphertext_blob: encrypted.ciphertext_blob.clone(),
        key_id: encrypted.key.arn.to_string(),
        provenance: Some(provenance(source)),
    }
}

pub(super) fn re_encrypt(message: pb::ReEncryptRequest) -> Result<ReEncryptRequest, BrokerError> {
    let source = message.source_key_id;
    Ok(ReEncryptRequest {
        ciphertext: CiphertextBlob::parse(message.ciphertext_blob)?,
        source_context: EncryptionContext::parse(message.source_encryption_context)?,
        source: if source.is_empty() { None } else { Some(KeyId::parse(&source)?.into()) },
        destination: KeyId::parse(&message.destination_key_id)?.into(),
        destination_context: EncryptionContext::parse(message.destination_encryption_context)?,
        grant_tokens: GrantTokens::parse(message.grant_tokens)?,
    })
}

pub(super) fn re_encrypted(encrypted: &ReEncryption, source: &DataKeyData) -> pb::ReEncryptResponse {
    let material = |key: &UsedKey| key.material_id.clone().unwrap_or_default();
    pb::ReEncryptResponse {
        ciphertext_blob: encrypted.ciphertext_blob.clone(),
        source_key_id: encrypted.source.arn.to_string(),
        key_id: encrypted.destination.arn.to_string(),
        source_key_material_id: material(&encrypted.source),
        destination_key_material_id: material(&encrypted.destination),
        provenance: Some(provenance(source)),
    }
}

pub(super) fn data_key_pair(
    message: pb::GenerateDataKeyPairRequest,
) -> Result<(DataKeyPairRequest, Option<Bytes>), BrokerError> {
    let spec = key_pair_spec(message.key_pair_spec)?;
    let request = DataKeyPairRequest {
        key: KeyId::parse(&message.key_id)?.into(),
        spec,
        context: EncryptionContext::parse(message.encryption_context)?,
        grant_tokens: GrantTokens::parse(message.grant_tokens)?,
    };
    Ok((request, attestation_document(message.recipient)?))
}

pub(super) fn data_key_pair_without_plaintext(
    message: pb::GenerateDataKeyPairWithoutPlaintextRequest,
) -> Result<DataKeyPairWithoutPlaintextRequest, BrokerError> {
    let (request, _) = data_key_pair(pb::GenerateDataKeyPairRequest {
        key_id: message.key_id,
        key_pair_spec: message.key_pair_spec,
        encryption_context: message.encryption_context,
        recipient: None,
        grant_tokens: message.grant_tokens,
    })?;
    Ok(DataKeyPairWithoutPlaintextRequest(request))
}

pub(super) fn key_pair(pair: &DataKeyPair, source: &DataKeyData) -> pb::GenerateDataKeyPairResponse {
    let private_key_plaintext = pair.private_key.reply();
    pb::GenerateDataKeyPairResponse { private_key_plaintext, ..reply(&pair.encrypted, source) }
}

pub(super) fn attested_key_pair(
    pair: &AttestedDataKeyPair,
    source: &DataKeyData,
) -> pb::GenerateDataKeyPairResponse {
    let ciphertext_for_recipient = pair.ciphertext_for_recipient.clone();
    pb::GenerateDataKeyPairResponse { ciphertext_for_recipient, ..reply(&pair.encrypted, source) }
}

pub(super) fn encrypted_key_pair(
    pair: &EncryptedDataKeyPair,
    source: &DataKeyData,
) -> pb::GenerateDataKeyPairWithoutPlaintextResponse {
    let pair = reply(pair, source);
    pb::GenerateDataKeyPairWithoutPlaintextResponse {
        private_key_ciphertext_blob: pair.private_key_ciphertext_blob,
        public_key: pair.public_key,
        key_id: pair.key_id,
        key_material_id: pair.key_material_id,
        provenance: pair.provenance,
    }
}

/// The reply with a pair whose private key is only in encrypted form.
fn reply(pair: &EncryptedDataKeyPair, source: &DataKeyData) -> pb::GenerateDataKeyPairResponse {
    let key = &pair.private_key.key;
    pb::GenerateDataKeyPairResponse {
        private_key_plaintext: Bytes::new(),
        private_key_ciphertext_blob: pair.private_key.ciphertext_blob.clone(),
        public_key: pair.public_key.clone().into(),
        key_id: key.arn.to_string(),
        key_material_id: key.material_id.clone().unwrap_or_default(),
        ciphertext_for_recipient: Bytes::new(),
        provenance: Some(provenance(source)),
    }
}

fn key_pair_spec(spec: i32) -> Result<KeyPairSpec, BrokerError> {
    use pb::KeyPairSpec as Spec;
    match Spec::try_from(spec) {
        Ok(Spec::Rsa2048) => Ok(KeyPairSpec::Rsa2048),
        Ok(Spec::Rsa3072) => Ok(KeyPairSpec::Rsa3072),
        Ok(Spec::Rsa4096) => Ok(KeyPairSpec::Rsa4096),
        Ok(Spec::EccNistP256) => Ok(KeyPairSpec::EccNistP256),
        Ok(Spec::EccNistP384) => Ok(KeyPairSpec::EccNistP384),
        Ok(Spec::EccNistP521) => Ok(KeyPairSpec::EccNistP521),
        Ok(Spec::EccSecgP256k1) => Ok(KeyPairSpec::EccSecgP256k1),
        Ok(Spec::Unspecified) | Err(_) => Err(BrokerError::Rejected(
            "key_pair_spec is required: RSA_2048, RSA_3072, RSA_4096, ECC_NIST_P256, ECC_NIST_P384, ECC_NIST_P521 or \
             ECC_SECG_P256K1"
                .into(),
        )),
    }
}

/// KMS: `Plaintext` of Encrypt has 1 to 4,096 bytes.
const MAX_PLAINTEXT_BYTES: usize = 4_096;
