//! Key material that is imported, and taken away again.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys.html>

use aws_lc_rs::rsa::KeySize;
use zeroize::Zeroizing;

use super::{Answer, Request, answer, base64};
use crate::clock::epoch_seconds;
use crate::error::ApiError;
use crate::key::{Key, KeyState, Material, Origin, SYMMETRIC_KEY_LENGTH};
use crate::parameters::{one_of, required};
use crate::store::Store;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetParametersForImport.html>
pub(super) fn parameters(request: &Request<'_>) -> Result<Answer, ApiError> {
    let wanted = request.parameters;
    let algorithm = required("wrappingAlgorithm", wanted.wrapping_algorithm.as_ref())?;
    one_of("wrappingAlgorithm", Some(algorithm), &WRAPPING_ALGORITHMS)?;
    let size = match required("wrappingKeySpec", wanted.wrapping_key_spec.as_ref())?.as_str() {
        "RSA_2048" => KeySize::Rsa2048,
        "RSA_3072" => KeySize::Rsa3072,
        "RSA_4096" => KeySize::Rsa4096,
        spec => return Err(ApiError::unsupported(format!("This emulator wraps with RSA, not with {spec}."))),
    };
    let key = request.key_by_id("GetParametersForImport")?;
    require_external(&key)?;
    if algorithm != WRAPPING_ALGORITHMS[0] {
        return Err(ApiError::unsupported(format!(
            "This emulator wraps with {}, not with {algorithm}.",
            WRAPPING_ALGORITHMS[0]
        )));
    }
    let offered = request.kms.imports.offer(&key.id, size, request.now()).map_err(ApiError::internal)?;
    Ok(answer([
        ("KeyId", key.arn.clone().into()),
        ("ImportToken", base64(&offered.token)),
        ("PublicKey", base64(&offered.public_key)),
        ("ParametersValidTo", epoch_seconds(offered.valid_to).into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ImportKeyMaterial.html>
pub(super) fn import_wrapped(request: &Request<'_>) -> Result<Answer, ApiError> {
    let given = request.parameters;
    let token = &required("importToken", given.import_token.as_ref())?.0;
    let wrapped = &required("encryptedKeyMaterial", given.encrypted_key_material.as_ref())?.0;
    let expires = expiration(request)?;
    one_of("importType", given.import_type.as_ref(), &["NEW_KEY_MATERIAL", "EXISTING_KEY_MATERIAL"])?;
    let key = request.key_by_id("ImportKeyMaterial")?;
    require_external(&key)?;
    let material = request.kms.imports.unwrap(&key.id, token, wrapped, request.now())?;
    let id = import(&request.kms.store, &key, material, expires)?;
    Ok(answer([("KeyId", key.arn.clone().into()), ("KeyMaterialId", id.into())]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DeleteImportedKeyMaterial.html>
pub(super) fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let key = request.key_by_id("DeleteImportedKeyMaterial")?;
    delete_material(&request.kms.store, &key)?;
    let mut answer = answer([("KeyId", key.arn.clone().into())]);
    if let Some(material) = &key.material {
        answer.insert("KeyMaterialId".to_owned(), material.id_hex().into());
    }
    Ok(answer)
}

/// Puts material into a key: always the same, however often. `expires` is in unix milliseconds. Returns the material's id in hex.
pub(crate) fn import(
    store: &Store,
    key: &Key,
    material: Zeroizing<Vec<u8>>,
    expires: Option<u64>,
) -> Result<String, ApiError> {
    require_external(key)?;
    if material.len() != SYMMETRIC_KEY_LENGTH {
        return Err(ApiError::bare("IncorrectKeyMaterialException"));
    }
    let now = store.now();
    if expires.is_some_and(|expires| expires <= now) {
        return Err(ApiError::validation("ValidTo is not in the future."));
    }
    let material = Material::import(&key.id, material).map_err(ApiError::internal)?;
    let id = material.id_hex();
    store.change_key(key, |key| {
        if matches!(key.state, KeyState::PendingDeletion { .. }) {
            return Err(key.pending_deletion());
        }
        if matches!(key.origin, Origin::External { material_id: Some(id), .. } if id != material.id) {
            return Err(ApiError::bare("IncorrectKeyMaterialException"));
        }
        if key.current(now).is_none() {
            key.state = KeyState::Enabled;
        }
        key.origin = Origin::External { material_id: Some(material.id), expires };
        key.material = Some(material.into());
        Ok(())
    })?;
    Ok(id)
}

/// Takes the material out of a key, which can only be used again when the same is imported again.
pub(crate) fn delete_material(store: &Store, key: &Key) -> Result<(), ApiError> {
    require_external(key)?;
    store.change_key(key, |key| {
        if matches!(key.state, KeyState::PendingDeletion { .. }) {
            return Err(key.pending_deletion());
        }
        key.material = None;
        Ok(())
    })
}

/// AWS's `ExpirationModel` of material that is there.
pub(super) fn expiration_model(expires: Option<u64>) -> &'static str {
    if expires.is_some() { EXPIRATION_MODELS[0] } else { EXPIRATION_MODELS[1] }
}

/// When the request wants the material to expire, in unix milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
fn expiration(request: &Request<'_>) -> Result<Option<u64>, ApiError> {
    let model = request.parameters.expiration_model.as_ref();
    let model = one_of("expirationModel", model, &EXPIRATION_MODELS)?.unwrap_or(EXPIRATION_MODELS[0]);
    match (model == EXPIRATION_MODELS[0], request.parameters.valid_to) {
        (true, Some(seconds)) => Ok(Some((seconds * 1000.0) as u64)),
        (false, None) => Ok(None),
        (true, None) => Err(ApiError::validation(
            "A ValidTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES.",
        )),
        (false, Some(_)) => Err(ApiError::validation(
            "A ValidTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE.",
        )),
    }
}

fn require_external(key: &Key) -> Result<(), ApiError> {
    if matches!(key.origin, Origin::External { .. }) {
        return Ok(());
    }
    Err(ApiError::unsupported(format!(
        "{} origin is AWS_KMS which is not valid for this operation.",
        key.arn
    )))
}

/// AWS's model; the first is what there is here.
const WRAPPING_ALGORITHMS: [&str; 6] = [
    "RSAES_OAEP_SHA_256",
    "RSAES_OAEP_SHA_1",
    "RSAES_PKCS1_V1_5",
    "RSA_AES_KEY_WRAP_SHA_1",
    "RSA_AES_KEY_WRAP_SHA_256",
    "SM2PKE",
];

const EXPIRATION_MODELS: [&str; 2] = ["KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"];
