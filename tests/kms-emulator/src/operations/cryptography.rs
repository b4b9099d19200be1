//! Data keys, encryption, decryption, random bytes.

use aes_gcm::Aes256Gcm;
use zeroize::Zeroizing;

use super::{Answer, answer, base64, key, refuse_dry_run};
use crate::ciphertext::{CiphertextBlob, seal};
use crate::error::ApiError;
use crate::key::{Key, Secret};
use crate::parameters::{Parameters, one_of, required};
use crate::random;
use crate::store::Store;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>
pub(super) fn generate_data_key(
    store: &Store,
    parameters: &Parameters,
    operation: &str,
) -> Result<Answer, ApiError> {
    let spec = one_of("keySpec", parameters.key_spec.as_ref(), &["AES_256", "AES_128"])?;
    let length = match (spec, parameters.number_of_bytes) {
        (Some("AES_256"), None) => 32,
        (Some(_), None) => 16,
        (None, Some(bytes)) => checked_length(bytes),
        _ => return Err(ApiError::validation("Please specify either number of bytes or key spec.")),
    };
    let key = key(store, parameters, operation)?;
    let cipher = usable_cipher(&key, operation)?;
    refuse_dry_run(parameters)?;
    let plaintext = random::secret(length);
    let blob = seal(cipher, &key.id, &key.material.id, &parameters.context(), &plaintext);
    Ok(answer([
        ("CiphertextBlob", base64(&blob)),
        ("Plaintext", base64(&plaintext)),
        ("KeyId", key.arn.clone().into()),
        ("KeyMaterialId", key.material.id_hex().into()),
    ]))
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

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>
pub(super) fn decrypt(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
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
    let cipher = usable_cipher(key, "Decrypt")?;
    require_symmetric(algorithm, key)?;
    let plaintext = open(&blob, key, cipher, parameters).ok_or_else(ApiError::invalid_ciphertext)?;
    refuse_dry_run(parameters)?;
    Ok(answer([
        ("Plaintext", base64(&plaintext)),
        ("KeyId", key.arn.clone().into()),
        ("EncryptionAlgorithm", "SYMMETRIC_DEFAULT".into()),
        ("KeyMaterialId", key.material.id_hex().into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateRandom.html>
pub(super) fn generate_random(parameters: &Parameters) -> Result<Answer, ApiError> {
    if parameters.custom_key_store_id.is_some() {
        return Err(ApiError::bare("CustomKeyStoreNotFoundException"));
    }
    let length =
        parameters.number_of_bytes.ok_or_else(|| ApiError::validation("NumberOfBytes is required."))?;
    Ok(answer([("Plaintext", base64(&random::secret(checked_length(length))))]))
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
fn usable_cipher<'a>(key: &'a Key, operation: &str) -> Result<&'a Aes256Gcm, ApiError> {
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
