//! Keys: made, described, enabled, disabled, scheduled for deletion.

use std::sync::Arc;

use serde_json::{Value, json};

use super::imports::expiration_model;
use super::policies::new_policy;
use super::signing::RSA_ALGORITHMS;
use super::{Answer, Request, answer};
use crate::attestation::Conditions;
use crate::clock::epoch_seconds;
use crate::error::ApiError;
use crate::key::{Key, KeySpec, KeyState, Material, Origin};
use crate::parameters::{Parameters, one_of};
use crate::store::Store;

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html>
pub(super) fn create(request: &Request<'_>) -> Result<Answer, ApiError> {
    let (store, parameters) = (&request.kms.store, request.parameters);
    let spec = requested_spec(parameters)?;
    one_of(
        "origin",
        parameters.origin.as_ref(),
        &["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"],
    )?;
    request.permit_keyless("CreateKey")?;
    let material = match (parameters.origin.as_deref(), spec) {
        (None | Some("AWS_KMS"), _) => Some(Material::generate(spec).map_err(ApiError::internal)?),
        (Some("EXTERNAL"), KeySpec::SymmetricDefault) => None,
        _ => {
            return Err(ApiError::unsupported(
                "This emulator supports the origins AWS_KMS and, for symmetric keys, EXTERNAL.",
            ));
        }
    };
    let multi_region = parameters.multi_region.unwrap_or(false);
    if multi_region && material.is_none() {
        return Err(ApiError::unsupported("This emulator does not import into multi-Region keys."));
    }
    let policy = parameters.policy.as_deref().map(|text| new_policy(request, text)).transpose()?;
    let key = Arc::new(Key {
        description: parameters.description.clone().unwrap_or_default(),
        policy,
        ..Key::new(store.account(), spec, multi_region, store.now(), material)
    });
    store.change(|state| {
        state.keys.insert(key.id.clone(), Arc::clone(&key));
        Ok(())
    })?;
    Ok(answer([("KeyMetadata", metadata(store, &key))]))
}

/// A replica of a multi-Region key of another region, with its id and its material. Description, state, policy,
/// grants and conditions are its own.
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ReplicateKey.html>
pub(crate) fn replicate(store: &Store, key: &Key, region: &str) -> Result<Arc<Key>, ApiError> {
    if !key.multi_region() {
        return Err(ApiError::unsupported(format!("{} is not a multi-Region key.", key.arn)));
    }
    let primary_region = key.primary_region.clone().unwrap_or_else(|| region.to_owned());
    let replica = Arc::new(Key {
        arn: store.account().arn(&format!("key/{}", key.id)),
        created: store.now(),
        state: KeyState::Enabled,
        primary_region: Some(primary_region),
        attestation: Conditions::default(),
        policy: None,
        grants: Vec::new(),
        ..key.clone()
    });
    store.change(|state| {
        if state.keys.contains_key(&replica.id) {
            return Err(ApiError::new("AlreadyExistsException", format!("{} exists.", replica.arn)));
        }
        state.keys.insert(replica.id.clone(), Arc::clone(&replica));
        Ok(())
    })?;
    Ok(replica)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html>
pub(super) fn describe(request: &Request<'_>) -> Result<Answer, ApiError> {
    let key = request.key_without_context("DescribeKey")?;
    Ok(answer([("KeyMetadata", metadata(&request.kms.store, &key))]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListKeys.html>
pub(super) fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    request.permit_keyless("ListKeys")?;
    let state = request.kms.store.snapshot();
    let keys =
        state.keys.values().map(|key| (key.id.as_str(), json!({ "KeyId": key.id, "KeyArn": key.arn })));
    Ok(page("Keys", keys, request.parameters, LIST_KEYS_DEFAULT))
}

/// One page of a sorted list: what follows the marker, which is the last name of the page before.
pub(super) fn page<'a>(
    member: &str,
    items: impl Iterator<Item = (&'a str, Value)>,
    parameters: &Parameters,
    default_limit: usize,
) -> Answer {
    let limit = parameters.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default_limit);
    let after = parameters.marker.as_deref();
    let mut rest = items.skip_while(|(name, _)| after.is_some_and(|after| *name <= after));
    let (names, items): (Vec<&str>, Vec<Value>) = rest.by_ref().take(limit).unzip();
    let truncated = rest.next().is_some();
    let mut answer = answer([(member, items.into()), ("Truncated", truncated.into())]);
    if let (true, Some(last)) = (truncated, names.last()) {
        answer.insert("NextMarker".to_owned(), (*last).into());
    }
    answer
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_EnableKey.html> and `API_DisableKey`
pub(super) fn enable(request: &Request<'_>, enabled: bool) -> Result<Answer, ApiError> {
    let operation = if enabled { "EnableKey" } else { "DisableKey" };
    let key = request.key_by_id(operation)?;
    set_enabled(&request.kms.store, &key, enabled)?;
    Ok(Answer::new())
}

/// Enables or disables a key that is not pending deletion or import.
pub(crate) fn set_enabled(store: &Store, key: &Key, enabled: bool) -> Result<(), ApiError> {
    let now = store.now();
    change_state(store, key, |key| match key.state {
        KeyState::PendingDeletion { .. } => Err(key.pending_deletion()),
        KeyState::Enabled | KeyState::Disabled if key.current(now).is_none() => Err(key.pending_import()),
        KeyState::Enabled | KeyState::Disabled if enabled => Ok(KeyState::Enabled),
        KeyState::Enabled | KeyState::Disabled => Ok(KeyState::Disabled),
    })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html>
pub(super) fn schedule_deletion(request: &Request<'_>) -> Result<Answer, ApiError> {
    let store = &request.kms.store;
    let key = request.key_by_id("ScheduleKeyDeletion")?;
    let window = request.parameters.pending_window_in_days.unwrap_or(30);
    let window = u16::try_from(window).ok().filter(|days| (7..=30).contains(days)).ok_or_else(|| {
        ApiError::validation(format!("PendingWindowInDays must be between 7 and 30, but it is {window}."))
    })?;
    let deletion = store.now() + u64::from(window) * MILLIS_PER_DAY;
    change_state(store, &key, |key| match key.state {
        KeyState::PendingDeletion { .. } => Err(key.pending_deletion()),
        KeyState::Enabled | KeyState::Disabled => Ok(KeyState::PendingDeletion { deletion, window }),
    })?;
    Ok(answer([
        ("KeyId", key.arn.clone().into()),
        ("DeletionDate", epoch_seconds(deletion).into()),
        ("KeyState", "PendingDeletion".into()),
        ("PendingWindowInDays", window.into()),
    ]))
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CancelKeyDeletion.html>: the key is then disabled.
pub(super) fn cancel_deletion(request: &Request<'_>) -> Result<Answer, ApiError> {
    let key = request.key_by_id("CancelKeyDeletion")?;
    change_state(&request.kms.store, &key, |key| match key.state {
        KeyState::PendingDeletion { .. } => Ok(KeyState::Disabled),
        KeyState::Enabled | KeyState::Disabled => {
            Err(ApiError::invalid_state(format!("{} is not pending deletion.", key.arn)))
        }
    })?;
    Ok(answer([("KeyId", key.arn.clone().into())]))
}

/// Puts conditions on keys, by key id, in place of those that each had.
pub(crate) fn require_attestation(store: &Store, keys: Vec<(String, Conditions)>) -> Result<(), ApiError> {
    store.change(|state| {
        for (id, conditions) in keys {
            if let Some(key) = state.keys.get_mut(&id) {
                Arc::make_mut(key).attestation = conditions;
            }
        }
        Ok(())
    })
}

fn change_state(
    store: &Store,
    key: &Key,
    next: impl FnOnce(&Key) -> Result<KeyState, ApiError>,
) -> Result<(), ApiError> {
    store.change_key(key, |key| {
        key.state = next(key)?;
        Ok(())
    })
}

/// `KeySpec` (or its old name) and `KeyUsage`, which must fit each other.
fn requested_spec(parameters: &Parameters) -> Result<KeySpec, ApiError> {
    let named = parameters.key_spec.as_ref().or(parameters.customer_master_key_spec.as_ref());
    let name = one_of("keySpec", named, &KEY_SPECS)?.unwrap_or("SYMMETRIC_DEFAULT");
    let usage = one_of("keyUsage", parameters.key_usage.as_ref(), &KEY_USAGES)?;
    let spec = KeySpec::named(name).ok_or_else(|| {
        ApiError::unsupported(format!("This emulator does not support the key spec {name}."))
    })?;
    match usage {
        None if spec != KeySpec::SymmetricDefault => Err(ApiError::validation(
            "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
        )),
        Some("ENCRYPT_DECRYPT") if spec.usage() == "SIGN_VERIFY" => {
            Err(ApiError::unsupported("This emulator does not support RSA keys for encryption."))
        }
        Some(usage) if usage != spec.usage() => {
            Err(ApiError::validation(format!("KeyUsage {usage} is not compatible with KeySpec {name}")))
        }
        _ => Ok(spec),
    }
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_KeyMetadata.html>
fn metadata(store: &Store, key: &Key) -> Value {
    let status = key.status(store.now());
    let mut members = json!({
        "AWSAccountId": store.account().id,
        "KeyId": key.id,
        "Arn": key.arn,
        "CreationDate": epoch_seconds(key.created),
        "Enabled": status == "Enabled",
        "Description": key.description,
        "KeyUsage": key.spec.usage(),
        "KeyState": status,
        "Origin": if key.origin == Origin::AwsKms { "AWS_KMS" } else { "EXTERNAL" },
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": key.spec.as_str(),
        "KeySpec": key.spec.as_str(),
        "MultiRegion": key.multi_region(),
    });
    match key.spec {
        KeySpec::SymmetricDefault => {
            members["EncryptionAlgorithms"] = json!(["SYMMETRIC_DEFAULT"]);
            if let Some(material) = key.current(store.now()) {
                members["CurrentKeyMaterialId"] = material.id_hex().into();
            }
        }
        KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
            members["SigningAlgorithms"] = json!(RSA_ALGORITHMS);
        }
        KeySpec::Hmac256 => members["MacAlgorithms"] = json!(["HMAC_SHA_256"]),
    }
    if let (Origin::External { expires, .. }, Some(_)) = (key.origin, key.current(store.now())) {
        members["ExpirationModel"] = expiration_model(expires).into();
        if let Some(expires) = expires {
            members["ValidTo"] = epoch_seconds(expires).into();
        }
    }
    if let KeyState::PendingDeletion { deletion, .. } = key.state {
        members["DeletionDate"] = epoch_seconds(deletion).into();
    }
    if key.multi_region() {
        let own = &store.account().region;
        let primary = key.primary_region.as_ref().unwrap_or(own);
        let member = |region: &str| json!({ "Arn": store.account().arn_in(region, &format!("key/{}", key.id)), "Region": region });
        members["MultiRegionConfiguration"] = json!({
            "MultiRegionKeyType": if primary == own { "PRIMARY" } else { "REPLICA" },
            "PrimaryKey": member(primary),
            "ReplicaKeys": key.primary_region.iter().map(|_| member(own)).collect::<Vec<_>>(),
        });
    }
    members
}

const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// How many keys a page of `ListKeys` has unless the caller says.
const LIST_KEYS_DEFAULT: usize = 100;

/// Every `KeySpec` of AWS's model.
const KEY_SPECS: [&str; 17] = [
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT",
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "SM2",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "ECC_NIST_EDWARDS25519",
];

/// Every `KeyUsage` of AWS's model.
const KEY_USAGES: [&str; 4] = ["SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"];
