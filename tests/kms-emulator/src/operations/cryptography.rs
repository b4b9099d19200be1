//! Data keys, encryption, decryption, random bytes.

use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use zeroize::Zeroizing;

use super::{Answer, Delivery, Request, answer, base64};
use crate::ciphertext::{CiphertextBlob, seal};
use crate::context::EncryptionContext;
use crate::error::ApiError;
use crate::key::{Key, Material, Secret};
use crate::parameters::{Parameters, one_of, required};
use crate::random;
use crate::recipient::{Recipient, authorize};

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>
pub(super) fn generate_data_key(
    request: &Request<'_>,
    recipient: Option<&Recipient>,
) -> Result<Delivery, ApiError> {
    let length = data_key_length(request.parameters)?;
    let key = request.key("GenerateDataKey")?;
    authorize(request.caller, &key, recipient, "GenerateDataKey")?;
    let (answer, plaintext) = data_key(request, &key, length, "GenerateDataKey")?;
    deliver(answer, &plaintext, recipient)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyWithoutPlaintext.html>
pub(super) fn generate_data_key_without_plaintext(request: &Request<'_>) -> Result<Answer, ApiError> {
    let length = data_key_length(request.parameters)?;
    let key = request.key("GenerateDataKeyWithoutPlaintext")?;
    let (answer, _plaintext) = data_key(request, &key, length, "GenerateDataKeyWithoutPlaintext")?;
    Ok(answer)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>
pub(super) fn encrypt(request: &Request<'_>) -> Result<Answer, ApiError> {
    let plaintext = required("plaintext", request.parameters.plaintext.as_ref())?;
    let algorithm = encryption_algorithm(request.parameters)?;
    let key = request.key("Encrypt")?;
    let (material, cipher) = usable_cipher(&key, "Encrypt", request.now())?;
    require_symmetric(algorithm, &key)?;
    request.conclude("Encrypt", [&*key])?;
    let blob = seal(cipher, &key.id, &material.id, &request.parameters.context(), &plaintext.0);
    Ok(answer([
        ("CiphertextBlob", base64(&blob)),
        ("KeyId", key.arn.clone().into()),
        ("EncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ReEncrypt.html>
pub(super) fn re_encrypt(request: &Request<'_>) -> Result<Answer, ApiError> {
    let parameters = request.parameters;
    let bytes = &required("ciphertextBlob", parameters.ciphertext_blob.as_ref())?.0;
    let destination = required("destinationKeyId", parameters.destination_key_id.as_ref())?;
    let destination = request.find(destination, "ReEncrypt")?;
    let named = parameters.source_key_id.as_ref().map(|id| request.find(id, "ReEncrypt")).transpose()?;
    let blob = CiphertextBlob::parse(bytes).ok_or_else(ApiError::invalid_ciphertext)?;
    let source = key_of(request, &blob, named.as_deref())?;
    let (from, to) = (parameters.source_context(), parameters.destination_context());
    request.permit(&source, "ReEncryptFrom", Some(&from))?;
    request.permit(&destination, "ReEncryptTo", Some(&to))?;
    usable_cipher(&source, "ReEncrypt", request.now())?;
    let (old, plaintext) = open(&blob, &source, &from).ok_or_else(ApiError::invalid_ciphertext)?;
    let (new, cipher) = usable_cipher(&destination, "ReEncrypt", request.now())?;
    request.conclude("ReEncrypt", [&*source, &*destination])?;
    let blob = seal(cipher, &destination.id, &new.id, &to, &plaintext);
    Ok(answer([
        ("CiphertextBlob", base64(&blob)),
        ("SourceKeyId", source.arn.clone().into()),
        ("KeyId", destination.arn.clone().into()),
        ("SourceEncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("DestinationEncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("SourceKeyMaterialId", old.id_hex().into()),
        ("DestinationKeyMaterialId", new.id_hex().into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>
pub(super) fn decrypt(request: &Request<'_>, recipient: Option<&Recipient>) -> Result<Delivery, ApiError> {
    let parameters = request.parameters;
    if parameters.ignores_ciphertext()? {
        return Err(judge_decrypt(request, recipient));
    }
    let bytes = &required("ciphertextBlob", parameters.ciphertext_blob.as_ref())?.0;
    let algorithm = encryption_algorithm(parameters)?;
    let named = parameters.key_id.as_ref().map(|id| request.find(id, "Decrypt")).transpose()?;
    let blob = CiphertextBlob::parse(bytes).ok_or_else(ApiError::invalid_ciphertext)?;
    let key = key_of(request, &blob, named.as_deref())?;
    let context = parameters.context();
    request.permit(&key, "Decrypt", Some(&context))?;
    authorize(request.caller, &key, recipient, "Decrypt")?;
    usable_cipher(&key, "Decrypt", request.now())?;
    require_symmetric(algorithm, &key)?;
    let (material, plaintext) = open(&blob, &key, &context).ok_or_else(ApiError::invalid_ciphertext)?;
    request.conclude("Decrypt", [&*key])?;
    let answer = answer([
        ("KeyId", key.arn.clone().into()),
        ("EncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("KeyMaterialId", material.id_hex().into()),
    ]);
    deliver(answer, &plaintext, recipient)
}

/// A Decrypt of which only permission is tested: whatever ciphertext comes with it, and if none does. The key has to be named;
/// its state is not looked at.
fn judge_decrypt(request: &Request<'_>, recipient: Option<&Recipient>) -> ApiError {
    let judged = || {
        encryption_algorithm(request.parameters)?;
        let key = request.key("Decrypt")?;
        authorize(request.caller, &key, recipient, "Decrypt")?;
        request.conclude("Decrypt", [&*key])
    };
    judged().err().unwrap_or_else(|| ApiError::internal("a dry run has to end with an error"))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateRandom.html>
pub(super) fn generate_random(
    request: &Request<'_>,
    recipient: Option<&Recipient>,
) -> Result<Delivery, ApiError> {
    if request.parameters.custom_key_store_id.is_some() {
        return Err(ApiError::bare("CustomKeyStoreNotFoundException"));
    }
    let length = request
        .parameters
        .number_of_bytes
        .ok_or_else(|| ApiError::validation("NumberOfBytes is required."))?;
    request.permit_keyless("GenerateRandom")?;
    deliver(Answer::new(), &random::secret(checked_length(length)), recipient)
}

/// The requested length of a new data key in bytes.
fn data_key_length(parameters: &Parameters) -> Result<usize, ApiError> {
    let spec = one_of("keySpec", parameters.key_spec.as_ref(), &["AES_256", "AES_128"])?;
    match (spec, parameters.number_of_bytes) {
        (Some("AES_256"), None) => Ok(32),
        (Some(_), None) => Ok(16),
        (None, Some(bytes)) => Ok(checked_length(bytes)),
        _ => Err(ApiError::validation("Please specify either number of bytes or key spec.")),
    }
}

/// A new data key: the answer without its plaintext, and the plaintext.
fn data_key(
    request: &Request<'_>,
    key: &Key,
    length: usize,
    operation: &'static str,
) -> Result<(Answer, Zeroizing<Vec<u8>>), ApiError> {
    let (material, cipher) = usable_cipher(key, operation, request.now())?;
    request.conclude(operation, [key])?;
    let plaintext = random::secret(length);
    let blob = seal(cipher, &key.id, &material.id, &request.parameters.context(), &plaintext);
    let answer = answer([
        ("CiphertextBlob", base64(&blob)),
        ("KeyId", key.arn.clone().into()),
        ("KeyMaterialId", material.id_hex().into()),
    ]);
    Ok((answer, plaintext))
}

/// Adds the plaintext to an answer: as it is, or for the recipient alone.
fn deliver(
    mut answer: Answer,
    plaintext: &[u8],
    recipient: Option<&Recipient>,
) -> Result<Delivery, ApiError> {
    let Some(recipient) = recipient else {
        answer.insert("Plaintext".to_owned(), base64(plaintext));
        return Ok(Delivery::open(answer));
    };
    answer.insert("CiphertextForRecipient".to_owned(), recipient.seal(plaintext)?);
    Ok(Delivery { answer, withheld: Some(base64(plaintext)) })
}

/// The key that a blob names, which is the one that the request names, if it does.
fn key_of(
    request: &Request<'_>,
    blob: &CiphertextBlob<'_>,
    named: Option<&Key>,
) -> Result<Arc<Key>, ApiError> {
    if named.is_some_and(|named| named.id != blob.key_id) {
        return Err(ApiError::named("IncorrectKeyException"));
    }
    request.state.keys.get(&blob.key_id).cloned().ok_or_else(unknown_key)
}

/// The plaintext, and the material that it was encrypted with: the current one, or one before a rotation.
fn open<'a>(
    blob: &CiphertextBlob<'_>,
    key: &'a Key,
    context: &EncryptionContext,
) -> Option<(&'a Material, Zeroizing<Vec<u8>>)> {
    let material = key.material_of(&blob.material_id)?;
    let Secret::Symmetric { cipher, .. } = &material.secret else { return None };
    Some((material, blob.open(cipher, context)?))
}

fn encryption_algorithm(parameters: &Parameters) -> Result<&str, ApiError> {
    let set = ["RSAES_OAEP_SHA_1", "SM2PKE", "RSAES_OAEP_SHA_256", "SYMMETRIC_DEFAULT"];
    let algorithm = one_of("encryptionAlgorithm", parameters.encryption_algorithm.as_ref(), &set)?;
    Ok(algorithm.unwrap_or("SYMMETRIC_DEFAULT"))
}

fn require_symmetric(algorithm: &str, key: &Key) -> Result<(), ApiError> {
    if algorithm == "SYMMETRIC_DEFAULT" {
        return Ok(());
    }
    let spec = key.spec.as_str();
    Err(ApiError::new(
        "InvalidKeyUsageException",
        format!("Algorithm {algorithm} is incompatible with key spec {spec}."),
    ))
}

/// The current material of a key that may be used and is made for encryption.
pub(super) fn usable_cipher<'a>(
    key: &'a Key,
    operation: &str,
    now: u64,
) -> Result<(&'a Material, &'a Aes256Gcm), ApiError> {
    let material = key.usable(now)?;
    match &material.secret {
        Secret::Symmetric { cipher, .. } => Ok((material, cipher)),
        Secret::Rsa { .. } | Secret::Hmac { .. } => Err(key.wrong_usage(operation)),
    }
}

/// A blob of a key that this account and region do not have.
fn unknown_key() -> ApiError {
    ApiError::new(
        "AccessDeniedException",
        "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you \
         are not allowed to access.",
    )
}

fn checked_length(bytes: i64) -> usize {
    usize::try_from(bytes).expect("`Parameters::check` has seen that it is from 1 to 1024")
}
