//! Data keys, encryption, decryption, random bytes.

use aes_gcm::Aes256Gcm;
use zeroize::Zeroizing;

use super::{Answer, Delivery, answer, base64, key, refuse_dry_run};
use crate::ciphertext::{CiphertextBlob, seal};
use crate::error::ApiError;
use crate::key::{Key, Secret};
use crate::parameters::{Parameters, one_of, required};
use crate::random;
use crate::recipient::{Recipient, authorize};
use crate::store::Store;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>
pub(super) fn generate_data_key(
    store: &Store,
    parameters: &Parameters,
    recipient: Option<&Recipient>,
) -> Result<Delivery, ApiError> {
    let length = data_key_length(parameters)?;
    let key = key(store, parameters, "GenerateDataKey")?;
    authorize(store, &key, recipient, "GenerateDataKey")?;
    let (answer, plaintext) = data_key(&key, parameters, length, "GenerateDataKey")?;
    deliver(answer, &plaintext, recipient)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyWithoutPlaintext.html>
pub(super) fn generate_data_key_without_plaintext(
    store: &Store,
    parameters: &Parameters,
) -> Result<Answer, ApiError> {
    let length = data_key_length(parameters)?;
    let key = key(store, parameters, "GenerateDataKeyWithoutPlaintext")?;
    let (answer, _plaintext) = data_key(&key, parameters, length, "GenerateDataKeyWithoutPlaintext")?;
    Ok(answer)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>
pub(super) fn encrypt(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let plaintext = required("plaintext", parameters.plaintext.as_ref())?;
    let algorithm = encryption_algorithm(parameters)?;
    let key = key(store, parameters, "Encrypt")?;
    let cipher = usable_cipher(&key, "Encrypt")?;
    require_symmetric(algorithm, &key)?;
    refuse_dry_run(parameters)?;
    let blob = seal(cipher, &key.id, &key.material.id, &parameters.context(), &plaintext.0);
    Ok(answer([
        ("CiphertextBlob", base64(&blob)),
        ("KeyId", key.arn.clone().into()),
        ("EncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ReEncrypt.html>
pub(super) fn re_encrypt(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let bytes = &required("ciphertextBlob", parameters.ciphertext_blob.as_ref())?.0;
    let state = store.snapshot();
    let destination = required("destinationKeyId", parameters.destination_key_id.as_ref())?;
    let destination = store.find(&state, destination, "ReEncrypt")?;
    let named =
        parameters.source_key_id.as_ref().map(|id| store.find(&state, id, "ReEncrypt")).transpose()?;
    let blob = CiphertextBlob::parse(bytes).ok_or_else(ApiError::invalid_ciphertext)?;
    let source = match (named, state.keys.get(&blob.key_id)) {
        (Some(named), _) if named.id != blob.key_id => return Err(ApiError::named("IncorrectKeyException")),
        (_, Some(key)) => key,
        (_, None) => return Err(unknown_key()),
    };
    let cipher = usable_cipher(source, "ReEncrypt")?;
    let is_its_material = blob.material_id == source.material.id;
    let plaintext = is_its_material.then(|| blob.open(cipher, &parameters.source_context())).flatten();
    let plaintext = plaintext.ok_or_else(ApiError::invalid_ciphertext)?;
    let cipher = usable_cipher(&destination, "ReEncrypt")?;
    refuse_dry_run(parameters)?;
    let context = parameters.destination_context();
    let blob = seal(cipher, &destination.id, &destination.material.id, &context, &plaintext);
    Ok(answer([
        ("CiphertextBlob", base64(&blob)),
        ("SourceKeyId", source.arn.clone().into()),
        ("KeyId", destination.arn.clone().into()),
        ("SourceEncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("DestinationEncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("SourceKeyMaterialId", source.material.id_hex().into()),
        ("DestinationKeyMaterialId", destination.material.id_hex().into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>
pub(super) fn decrypt(
    store: &Store,
    parameters: &Parameters,
    recipient: Option<&Recipient>,
) -> Result<Delivery, ApiError> {
    if parameters.ignores_ciphertext()? {
        return Err(judge_decrypt(store, parameters, recipient));
    }
    let bytes = &required("ciphertextBlob", parameters.ciphertext_blob.as_ref())?.0;
    let algorithm = encryption_algorithm(parameters)?;
    let state = store.snapshot();
    let named = parameters.key_id.as_ref().map(|id| store.find(&state, id, "Decrypt")).transpose()?;
    let blob = CiphertextBlob::parse(bytes).ok_or_else(ApiError::invalid_ciphertext)?;
    let key = match (named, state.keys.get(&blob.key_id)) {
        (Some(named), _) if named.id != blob.key_id => return Err(ApiError::named("IncorrectKeyException")),
        (_, Some(key)) => key,
        (_, None) => return Err(unknown_key()),
    };
    authorize(store, key, recipient, "Decrypt")?;
    let cipher = usable_cipher(key, "Decrypt")?;
    require_symmetric(algorithm, key)?;
    let plaintext = open(&blob, key, cipher, parameters).ok_or_else(ApiError::invalid_ciphertext)?;
    refuse_dry_run(parameters)?;
    let answer = answer([
        ("KeyId", key.arn.clone().into()),
        ("EncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("KeyMaterialId", key.material.id_hex().into()),
    ]);
    deliver(answer, &plaintext, recipient)
}

/// A Decrypt of which only permission is tested: whatever ciphertext comes with it, and if none does. The key has to be named.
fn judge_decrypt(store: &Store, parameters: &Parameters, recipient: Option<&Recipient>) -> ApiError {
    let judged = || {
        let algorithm = encryption_algorithm(parameters)?;
        let key = key(store, parameters, "Decrypt")?;
        authorize(store, &key, recipient, "Decrypt")?;
        usable_cipher(&key, "Decrypt")?;
        require_symmetric(algorithm, &key)?;
        refuse_dry_run(parameters)
    };
    judged().err().unwrap_or_else(|| ApiError::internal("a dry run has to end with an error"))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateRandom.html>
pub(super) fn generate_random(
    parameters: &Parameters,
    recipient: Option<&Recipient>,
) -> Result<Delivery, ApiError> {
    if parameters.custom_key_store_id.is_some() {
        return Err(ApiError::bare("CustomKeyStoreNotFoundException"));
    }
    let length =
        parameters.number_of_bytes.ok_or_else(|| ApiError::validation("NumberOfBytes is required."))?;
    deliver(Answer::new(), &random::secret(checked_length(length)), recipient)
}

/// What a new data key is to have, in bytes.
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
    key: &Key,
    parameters: &Parameters,
    length: usize,
    operation: &str,
) -> Result<(Answer, Zeroizing<Vec<u8>>), ApiError> {
    let cipher = usable_cipher(key, operation)?;
    refuse_dry_run(parameters)?;
    let plaintext = random::secret(length);
    let blob = seal(cipher, &key.id, &key.material.id, &parameters.context(), &plaintext);
    let answer = answer([
        ("CiphertextBlob", base64(&blob)),
        ("KeyId", key.arn.clone().into()),
        ("KeyMaterialId", key.material.id_hex().into()),
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

fn open(
    blob: &CiphertextBlob<'_>,
    key: &Key,
    cipher: &Aes256Gcm,
    parameters: &Parameters,
) -> Option<Zeroizing<Vec<u8>>> {
    (blob.material_id == key.material.id).then(|| blob.open(cipher, &parameters.context())).flatten()
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

/// The cipher of a key that is enabled and made for encryption.
pub(super) fn usable_cipher<'a>(key: &'a Key, operation: &str) -> Result<&'a Aes256Gcm, ApiError> {
    match &key.enabled()?.material.secret {
        Secret::Symmetric { cipher, .. } => Ok(cipher),
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
