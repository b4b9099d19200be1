//! New material for a key: it encrypts with the new one, and decrypts with any that it ever had.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/rotate-keys.html>

use std::sync::Arc;

use super::{Answer, Request, answer};
use crate::error::ApiError;
use crate::key::{Key, KeySpec, Material, Origin};
use crate::store::Store;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_RotateKeyOnDemand.html>
pub(super) fn rotate_on_demand(request: &Request<'_>) -> Result<Answer, ApiError> {
    let key = request.key_by_id("RotateKeyOnDemand")?;
    rotate(&request.kms.store, &key)?;
    Ok(answer([("KeyId", key.arn.clone().into())]))
}

/// Rotates a key that may be used. Returns the id of the new material in hex.
pub(crate) fn rotate(store: &Store, key: &Key) -> Result<String, ApiError> {
    if key.spec != KeySpec::SymmetricDefault {
        return Err(ApiError::unsupported(format!("{} is not a symmetric encryption key.", key.arn)));
    }
    if key.origin != Origin::AwsKms || key.multi_region() {
        return Err(ApiError::unsupported(
            "This emulator rotates neither imported material nor multi-Region keys.",
        ));
    }
    let material = Material::generate(key.spec).map_err(ApiError::internal)?;
    let (id, now) = (material.id_hex(), store.now());
    store.change_key(key, |key| {
        key.usable(now)?;
        if key.former.len() >= ROTATIONS_MAX {
            return Err(ApiError::bare("LimitExceededException"));
        }
        key.former.extend(key.material.replace(Arc::new(material)));
        Ok(())
    })?;
    Ok(id)
}

/// How often a key is rotated on demand, by AWS's quota.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html>
const ROTATIONS_MAX: usize = 25;
