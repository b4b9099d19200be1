//! All conversions between the contract's messages and the broker's own types. Every `INVALID_ARGUMENT` of the broker
//! originates here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use key_broker_core::{
    CiphertextBlob, DataKeyLength, DeclaredUse, EncryptionContext, KeyArn, KeyId, Plaintext, RandomLength,
    Reuse,
};
use key_broker_proto as proto;
use key_broker_proto::v1 as pb;
use key_broker_trail::record::{DataKeyData, ServedFrom};
use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

use super::message_format::{self, ExpectedMessage};
use crate::error::{BrokerError, Refusal};
use crate::operation::attested::{AttestedDataKey, AttestedPlaintext, AttestedRandom};
use crate::operation::{
    DataKey, DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptRequest, Decryption, DescribeKeyRequest,
    EncryptMessageRequest, EncryptedDataKey, GrantTokens, KeyDescription, RandomRequest,
};

/// Parses a request to encrypt a message.
pub(super) fn encrypt_message(
    message: pb::EncryptMessageRequest,
) -> Result<(EncryptMessageRequest, Bytes, Reuse), BrokerError> {
    let plaintext = message.plaintext;
    if plaintext.len() > MAX_PLAINTEXT_BYTES {
        return Err(BrokerError::Rejected(
            format!(
                "plaintext has {} bytes; EncryptMessage takes at most {MAX_PLAINTEXT_BYTES}: use EncryptMessageStream",
                plaintext.len()
            )
            .into(),
        ));
    }
    let request = message_data_key(&message.key_id, message.encryption_context, message.grant_tokens)?;
    Ok((request, plaintext, reuse(message.reuse)))
}

/// Parses the start of a message to encrypt, and returns its length, if that is declared.
pub(super) fn encrypt_message_start(
    start: pb::EncryptMessageStart,
) -> Result<(EncryptMessageRequest, Option<u64>, Reuse), BrokerError> {
    let request = message_data_key(&start.key_id, start.encryption_context, start.grant_tokens)?;
    Ok((request, start.plaintext_length, reuse(start.reuse)))
}

/// The data key request behind a message to encrypt.
fn message_data_key(
    key_id: &str,
    context: BTreeMap<String, String>,
    grant_tokens: Vec<String>,
) -> Result<EncryptMessageRequest, BrokerError> {
    message_format::check_context(&context)?;
    Ok(EncryptMessageRequest::new(DataKeyRequest {
        key: KeyId::parse(key_id)?.into(),
        length: DataKeyLength::Aes256,
        context: EncryptionContext::parse(context)?,
        grant_tokens: GrantTokens::parse(grant_tokens)?,
    }))
}

/// Parses a request to decrypt a message.
pub(super) fn decrypt_message(
    message: pb::DecryptMessageRequest,
) -> Result<(Bytes, ExpectedMessage), BrokerError> {
    if message.message.len() > MAX_MESSAGE_BYTES {
        return Err(BrokerError::Rejected(
            format!(
                "message has {} bytes; DecryptMessage takes at most {MAX_MESSAGE_BYTES}: use DecryptMessageStream",
                message.message.len()
            )
            .into(),
        ));
    }
    let expected =
        expected_message(message.encryption_context, &message.key_id, message.grant_tokens, message.reuse)?;
    Ok((message.message, expected))
}

/// Parses the start of a message to decrypt, and whether signed messages are accepted.
pub(super) fn decrypt_message_start(
    start: pb::DecryptMessageStart,
) -> Result<(ExpectedMessage, bool), BrokerError> {
    let takes_signed = start.release_before_signature;
    let expected =
        expected_message(start.encryption_context, &start.key_id, start.grant_tokens, start.reuse)?;
    Ok((expected, takes_signed))
}

fn expected_message(
    context: BTreeMap<String, String>,
    key_id: &str,
    grant_tokens: Vec<String>,
    bounds: Option<pb::Reuse>,
) -> Result<ExpectedMessage, BrokerError> {
    Ok(ExpectedMessage {
        context: EncryptionContext::parse(context)?,
        key: if key_id.is_empty() { None } else { Some(KeyId::parse(key_id)?) },
        grant_tokens: GrantTokens::parse(grant_tokens)?,
        reuse: reuse(bounds),
    })
}

/// Parses a request for a data key.
pub(crate) fn generate_data_key(
    message: pb::GenerateDataKeyRequest,
) -> Result<(DataKeyRequest, DeclaredUse, Reuse, Option<Bytes>), BrokerError> {
    use pb::generate_data_key_request::Length;
    let request = DataKeyRequest {
        key: KeyId::parse(&message.key_id)?.into(),
        length: match message.length {
            Some(Length::KeySpec(spec)) => key_spec(spec)?,
            Some(Length::NumberOfBytes(n)) => DataKeyLength::Bytes(RandomLength::parse(n)?),
            None => return Err(no_length()),
        },
        context: EncryptionContext::parse(message.encryption_context)?,
        grant_tokens: GrantTokens::parse(message.grant_tokens)?,
    };
    let document = attestation_document(message.recipient)?;
    Ok((request, declared_use(message.r#use), reuse(message.reuse), document))
}

/// Parses a request for a data key in encrypted form only.
pub(crate) fn generate_data_key_without_plaintext(
    message: pb::GenerateDataKeyWithoutPlaintextRequest,
) -> Result<(DataKeyWithoutPlaintextRequest, DeclaredUse, Reuse), BrokerError> {
    use pb::generate_data_key_request::Length;
    use pb::generate_data_key_without_plaintext_request as other;
    // The same request without a recipient, since a data key without plaintext needs none.
    let request = pb::GenerateDataKeyRequest {
        key_id: message.key_id,
        length: message.length.map(|length| match length {
            other::Length::KeySpec(spec) => Length::KeySpec(spec),
            other::Length::NumberOfBytes(n) => Length::NumberOfBytes(n),
        }),
        encryption_context: message.encryption_context,
        recipient: None,
        grant_tokens: message.grant_tokens,
        r#use: message.r#use,
        reuse: message.reuse,
    };
    let (request, declared, reuse, _) = generate_data_key(request)?;
    Ok((DataKeyWithoutPlaintextRequest(request), declared, reuse))
}

/// Parses a request to decrypt.
pub(crate) fn decrypt(
    message: pb::DecryptRequest,
) -> Result<(DecryptRequest, Reuse, Option<Bytes>), BrokerError> {
    let request = DecryptRequest {
        ciphertext: CiphertextBlob::parse(message.ciphertext_blob)?,
        context: EncryptionContext::parse(message.encryption_context)?,
        key: if message.key_id.is_empty() { None } else { Some(KeyId::parse(&message.key_id)?.into()) },
        grant_tokens: GrantTokens::parse(message.grant_tokens)?,
    };
    Ok((request, reuse(message.reuse), attestation_document(message.recipient)?))
}

/// Parses a request for random bytes.
pub(crate) fn generate_random(
    message: pb::GenerateRandomRequest,
) -> Result<(RandomRequest, Option<Bytes>), BrokerError> {
    let request = RandomRequest { length: RandomLength::parse(message.number_of_bytes)? };
    Ok((request, attestation_document(message.recipient)?))
}

pub(crate) fn describe_key(message: &pb::DescribeKeyRequest) -> Result<DescribeKeyRequest, BrokerError> {
    Ok(KeyId::parse(&message.key_id)?.into())
}

#[must_use]
pub(super) fn encrypted_message(
    message: Bytes,
    data_key: &DataKey,
    source: &DataKeyData,
) -> pb::EncryptMessageResponse {
    pb::EncryptMessageResponse {
        message,
        key_id: data_key.encrypted.key.arn.to_string(),
        provenance: Some(provenance(source)),
    }
}

#[must_use]
pub(super) fn decrypted_message(
    plaintext: Bytes,
    context: &EncryptionContext,
    key: &KeyArn,
    source: &DataKeyData,
) -> pb::DecryptMessageResponse {
    pb::DecryptMessageResponse {
        plaintext,
        encryption_context: context.pairs().clone(),
        key_id: key.to_string(),
        provenance: Some(provenance(source)),
    }
}

/// The start of the reply to a message encrypted in parts.
#[must_use]
pub(super) fn encrypted_message_start(
    data_key: &DataKey,
    source: &DataKeyData,
) -> pb::EncryptMessageStreamResponse {
    pb::EncryptMessageStreamResponse {
        message: Bytes::new(),
        key_id: data_key.encrypted.key.arn.to_string(),
        provenance: Some(provenance(source)),
    }
}

/// The start of the reply to a message decrypted in parts.
#[must_use]
pub(super) fn decrypted_message_start(
    context: &EncryptionContext,
    key: &KeyArn,
    source: &DataKeyData,
) -> pb::DecryptMessageStreamResponse {
    pb::DecryptMessageStreamResponse {
        plaintext: Bytes::new(),
        encryption_context: context.pairs().clone(),
        key_id: key.to_string(),
        provenance: Some(provenance(source)),
    }
}

#[must_use]
pub(crate) fn data_key(data_key: &DataKey, source: &DataKeyData) -> pb::GenerateDataKeyResponse {
    let encrypted = &data_key.encrypted;
    pb::GenerateDataKeyResponse {
        ciphertext_blob: encrypted.ciphertext_blob.clone(),
        key_id: encrypted.key.arn.to_string(),
        key_material_id: encrypted.key.material_id.clone().unwrap_or_default(),
        ciphertext_for_recipient: Bytes::new(),
        provenance: Some(provenance(source)),
        plaintext: data_key.plaintext.reply(),
    }
}

/// The reply with a data key for an enclave.
#[must_use]
pub(crate) fn attested_data_key(
    data_key: &AttestedDataKey,
    source: &DataKeyData,
) -> pb::GenerateDataKeyResponse {
    let encrypted = &data_key.encrypted;
    pb::GenerateDataKeyResponse {
        ciphertext_blob: encrypted.ciphertext_blob.clone(),
        key_id: encrypted.key.arn.to_string(),
        key_material_id: encrypted.key.material_id.clone().unwrap_or_default(),
        ciphertext_for_recipient: data_key.ciphertext_for_recipient.clone(),
        provenance: Some(provenance(source)),
        plaintext: Bytes::new(),
    }
}

#[must_use]
pub(crate) fn encrypted_data_key(
    data_key: &EncryptedDataKey,
    source: &DataKeyData,
) -> pb::GenerateDataKeyWithoutPlaintextResponse {
    pb::GenerateDataKeyWithoutPlaintextResponse {
        ciphertext_blob: data_key.ciphertext_blob.clone(),
        key_id: data_key.key.arn.to_string(),
        key_material_id: data_key.key.material_id.clone().unwrap_or_default(),
        provenance: Some(provenance(source)),
    }
}

/// The reply with a decrypted ciphertext.
#[must_use]
pub(crate) fn decrypted(decrypted: &Decryption, source: &DataKeyData) -> pb::DecryptResponse {
    pb::DecryptResponse {
        key_id: decrypted.key.arn.to_string(),
        key_material_id: decrypted.key.material_id.clone().unwrap_or_default(),
        ciphertext_for_recipient: Bytes::new(),
        provenance: Some(provenance(source)),
        plaintext: decrypted.plaintext.reply(),
    }
}

/// The reply with a decrypted ciphertext for an enclave.
#[must_use]
pub(crate) fn attested_decrypted(decrypted: &AttestedPlaintext, source: &DataKeyData) -> pb::DecryptResponse {
    pb::DecryptResponse {
        key_id: decrypted.key.arn.to_string(),
        key_material_id: decrypted.key.material_id.clone().unwrap_or_default(),
        ciphertext_for_recipient: decrypted.ciphertext_for_recipient.clone(),
        provenance: Some(provenance(source)),
        plaintext: Bytes::new(),
    }
}

/// The reply with random bytes for an enclave.
#[must_use]
pub(crate) fn attested_random(random: &AttestedRandom, source: &DataKeyData) -> pb::GenerateRandomResponse {
    pb::GenerateRandomResponse {
        plaintext: Bytes::new(),
        ciphertext_for_recipient: random.ciphertext_for_recipient.clone(),
        provenance: Some(provenance(source)),
    }
}

/// The reply with random bytes.
#[must_use]
pub(crate) fn random(random: &Plaintext, source: &DataKeyData) -> pb::GenerateRandomResponse {
    pb::GenerateRandomResponse {
        plaintext: random.reply(),
        ciphertext_for_recipient: Bytes::new(),
        provenance: Some(provenance(source)),
    }
}

/// The reply with what KMS knows about a key.
#[must_use]
pub(crate) fn key_description(description: &KeyDescription, source: &DataKeyData) -> pb::DescribeKeyResponse {
    pb::DescribeKeyResponse {
        arn: description.arn.to_string(),
        key_spec: description.key_spec.clone(),
        key_usage: description.key_usage.clone(),
        key_state: description.key_state.clone(),
        multi_region: description.multi_region,
        origin: description.origin.clone(),
        key_manager: description.key_manager.clone(),
        description: description.description.clone(),
        creation_date: description.creation_date.map(timestamp),
        provenance: Some(provenance(source)),
    }
}

/// The reply for an error, with rich details: google.rpc.ErrorInfo and, if trying again may help, google.rpc.RetryInfo
/// (<https://google.aip.dev/193>).
#[must_use]
pub(crate) fn status(error: &BrokerError, request_id: Uuid) -> Status {
    let refusal = error.refusal();
    let mut details = ErrorDetails::new();
    let domain = if refusal.from_kms { proto::DOMAIN_KMS } else { proto::DOMAIN_BROKER };
    let mut metadata = HashMap::from([(proto::METADATA_REQUEST_ID.to_owned(), request_id.to_string())]);
    if let BrokerError::Kms(kms) = error
        && let Some(id) = &kms.request_id
    {
        metadata.insert(proto::METADATA_KMS_REQUEST_ID.to_owned(), id.clone());
    }
    details.set_error_info(refusal.reason, domain, metadata);
    if let Some(delay) = refusal.retry_after {
        details.set_retry_info(Some(delay));
    }
    let pushback = pushback(&refusal);
    let mut status = Status::with_error_details(refusal.code, refusal.message, details);
    if let Some(pushback) = pushback {
        status.metadata_mut().insert(RETRY_PUSHBACK, pushback.into());
    }
    if let BrokerError::Compressed = error {
        // https://github.com/grpc/grpc/blob/master/doc/compression.md
        status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static("identity"));
    }
    status
}

/// When a client that retries by itself should do so, in milliseconds; -1 means never
/// (<https://github.com/grpc/proposal/blob/master/A6-client-retries.md>, "Pushback"). `None` for errors that clients do not retry.
fn pushback(refusal: &Refusal<'_>) -> Option<i64> {
    match (refusal.code, refusal.retry_after) {
        (_, Some(delay)) => Some(i64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)),
        (Code::ResourceExhausted | Code::Unavailable, None) => Some(-1),
        _ => None,
    }
}

pub(super) fn attestation_document(recipient: Option<pb::Recipient>) -> Result<Option<Bytes>, BrokerError> {
    let Some(pb::Recipient { attestation_document, key_encryption_algorithm }) = recipient else {
        return Ok(None);
    };
    if !matches!(key_encryption_algorithm.as_str(), "" | KEY_ENCRYPTION_ALGORITHM) {
        let why =
            "recipient.key_encryption_algorithm is not RSAES_OAEP_SHA_256, the only one that AWS KMS has";
        return Err(BrokerError::Rejected(why.into()));
    }
    match attestation_document.len() {
        // Fail closed: the caller asked for an answer that is not in plaintext.
        0 => Err(BrokerError::Rejected(
            "recipient.attestation_document is empty: give the document, or call without a recipient".into(),
        )),
        1..=MAX_ATTESTATION_DOCUMENT_BYTES => Ok(Some(attestation_document)),
        n => Err(BrokerError::Rejected(
            format!(
                "recipient.attestation_document has {n} bytes; KMS takes at most {MAX_ATTESTATION_DOCUMENT_BYTES}"
            )
            .into(),
        )),
    }
}

fn key_spec(spec: i32) -> Result<DataKeyLength, BrokerError> {
    match pb::KeySpec::try_from(spec) {
        Ok(pb::KeySpec::Aes256) => Ok(DataKeyLength::Aes256),
        Ok(pb::KeySpec::Aes128) => Ok(DataKeyLength::Aes128),
        Ok(pb::KeySpec::Unspecified) => Err(no_length()),
        Err(_) => {
            Err(BrokerError::Rejected("key_spec is neither KEY_SPEC_AES_256 nor KEY_SPEC_AES_128".into()))
        }
    }
}

fn no_length() -> BrokerError {
    BrokerError::Rejected(
        "no length: set key_spec to KEY_SPEC_AES_256 or KEY_SPEC_AES_128, or set number_of_bytes".into(),
    )
}

fn declared_use(declared: Option<pb::Use>) -> DeclaredUse {
    let declared = declared.unwrap_or_default();
    DeclaredUse { messages: declared.messages.max(1), bytes: declared.bytes }
}

fn reuse(reuse: Option<pb::Reuse>) -> Reuse {
    let reuse = reuse.unwrap_or_default();
    let given = |n: u64| (n > 0).then_some(n);
    Reuse {
        max_age: given(reuse.max_age_seconds.into()).map(Duration::from_secs),
        max_messages: given(reuse.max_messages),
        max_bytes: given(reuse.max_bytes),
        fresh: reuse.fresh,
    }
}

pub(super) fn provenance(source: &DataKeyData) -> pb::Provenance {
    let served_from = match source.served_from {
        ServedFrom::Kms => pb::provenance::Source::Kms,
        ServedFrom::Cache => pb::provenance::Source::Cache,
    };
    pb::Provenance {
        served_from: served_from.into(),
        kms_request_id: source.kms_request_id.as_deref().unwrap_or_default().to_owned(),
        kms_event_id: source.kms_event_id.map(|id| id.to_string()).unwrap_or_default(),
        minted_at: source.minted_at.map(timestamp),
        expires_at: source.expires_at.map(timestamp),
        messages_used: source.messages_used.unwrap_or_default(),
        messages_limit: source.messages_limit.unwrap_or_default(),
        bytes_used: source.bytes_used.unwrap_or_default(),
        bytes_limit: source.bytes_limit.unwrap_or_default(),
    }
}

/// Response metadata of an error.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_RecipientInfo.html>
const KEY_ENCRYPTION_ALGORITHM: &str = "RSAES_OAEP_SHA_256";
/// The most that fits, with the frames around it, in a reply that gRPC clients accept by default.
const MAX_PLAINTEXT_BYTES: usize = 3 << 20;
/// The most that fits in a request beside an encryption context and grant tokens.
const MAX_MESSAGE_BYTES: usize = (4 << 20) - (64 << 10);
/// KMS: `AttestationDocument` has 1 to 262,144 bytes.
const MAX_ATTESTATION_DOCUMENT_BYTES: usize = 262_144;

/// Converts a time.
#[must_use]
pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    //! A gRPC client that retries by itself waits as long as the error says, and does not retry what cannot succeed.

    use super::*;

    #[test]
    fn the_delay_is_told_to_clients_that_retry_by_themselves() {
        let told = |error: BrokerError| {
            let status = status(&error, Uuid::nil());
            status.metadata().get(RETRY_PUSHBACK).map(|text| text.to_str().expect("a number").to_owned())
        };
        assert_eq!(told(BrokerError::Draining), Some("1000".into()));
        assert_eq!(told(BrokerError::CircuitOpen(Duration::from_micros(1))), Some("1".into()), "rounded up");
        assert_eq!(told(BrokerError::MetadataTooLarge), Some("-1".into()));
        assert_eq!(told(BrokerError::NoSuchKey), None);
    }
}
