//! Aliases: names for keys.

use std::sync::Arc;

use serde_json::json;

use super::keys::page;
use super::{Answer, Request};
use crate::clock::epoch_seconds;
use crate::error::ApiError;
use crate::key::{Key, KeySpec, KeyState, Material};
use crate::parameters::{Parameters, required};
use crate::store::{ALIAS_PREFIX, Alias, State, Store};

/// The key behind an alias; if there is none, both are made, in one change.
pub(crate) fn ensure_key(
    store: &Store,
    name: &str,
    spec: KeySpec,
    multi_region: bool,
) -> Result<Arc<Key>, ApiError> {
    check_name(name)?;
    if store.snapshot().aliases.contains_key(name) {
        return store.find(&store.snapshot(), name, "DescribeKey");
    }
    let material = Material::generate(spec).map_err(ApiError::internal)?;
    ensure(store, name, Key::new(store.account(), spec, multi_region, store.now(), Some(material)))
}

/// The key behind an alias, or else this one.
fn ensure(store: &Store, name: &str, key: Key) -> Result<Arc<Key>, ApiError> {
    let key = Arc::new(key);
    store.change(|state| {
        if state.aliases.contains_key(name) {
            return store.find(state, name, "DescribeKey");
        }
        state.keys.insert(key.id.clone(), Arc::clone(&key));
        insert(state, name, &key, store.now());
        Ok(key)
    })
}

/// A key under a new alias, whose material is still to be imported.
pub(crate) fn create_external_key(store: &Store, name: &str) -> Result<Arc<Key>, ApiError> {
    check_name(name)?;
    let key = Key::new(store.account(), KeySpec::SymmetricDefault, false, store.now(), None);
    ensure(store, name, key)
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html>
pub(super) fn create(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = alias_name(request.parameters)?;
    let key = target(request, "CreateAlias")?;
    let store = &request.kms.store;
    store.change(|state| {
        if state.aliases.contains_key(name) {
            let arn = store.account().arn(name);
            let message = format!("An alias with the name {arn} already exists");
            return Err(ApiError::new("AlreadyExistsException", message));
        }
        let of_key = state.aliases.values().filter(|alias| alias.key_id == key.id).count();
        if of_key >= ALIASES_PER_KEY {
            return Err(ApiError::bare("LimitExceededException"));
        }
        insert(state, name, &key, store.now());
        Ok(())
    })?;
    Ok(Answer::new())
}

fn insert(state: &mut State, name: &str, key: &Key, now: u64) {
    state.aliases.insert(name.to_owned(), Alias { key_id: key.id.clone(), created: now, updated: now });
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_UpdateAlias.html>
pub(super) fn update(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = alias_name(request.parameters)?;
    move_alias(&request.kms.store, name, &*target(request, "UpdateAlias")?)?;
    Ok(Answer::new())
}

/// Lets an alias mean another key.
pub(crate) fn move_alias(store: &Store, name: &str, key: &Key) -> Result<(), ApiError> {
    store.change(|state| {
        let old = state.aliases.get(name).ok_or_else(|| store.no_alias(name))?;
        let old_spec = state.keys.get(&old.key_id).map(|key| key.spec);
        if old_spec.map(KeySpec::usage) != Some(key.spec.usage()) {
            return Err(ApiError::validation(
                "An alias may only move to a key of the same type and key usage.",
            ));
        }
        let alias = Alias { key_id: key.id.clone(), created: old.created, updated: store.now() };
        state.aliases.insert(name.to_owned(), alias);
        Ok(())
    })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DeleteAlias.html>
pub(super) fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = alias_name(request.parameters)?;
    let store = &request.kms.store;
    let state = store.snapshot();
    let aliased = state.aliases.get(name).and_then(|alias| state.keys.get(&alias.key_id));
    if let Some(key) = aliased {
        request.permit(key, "DeleteAlias", None)?;
    }
    store.change(|state| state.aliases.remove(name).ok_or_else(|| store.no_alias(name)))?;
    Ok(Answer::new())
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListAliases.html>
pub(super) fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    request.permit_keyless("ListAliases")?;
    let store = &request.kms.store;
    let state = store.snapshot();
    let only = match &request.parameters.key_id {
        Some(key_id) => Some(store.find(&state, key_id, "ListAliases")?),
        None => None,
    };
    let aliases =
        state.aliases.iter().filter(|(_, alias)| only.as_ref().is_none_or(|key| key.id == alias.key_id)).map(
            |(name, alias)| {
                let item = json!({
                    "AliasName": name,
                    "AliasArn": store.account().arn(name),
                    "TargetKeyId": alias.key_id,
                    "CreationDate": epoch_seconds(alias.created),
                    "LastUpdatedDate": epoch_seconds(alias.updated),
                });
                (name.as_str(), item)
            },
        );
    Ok(page("Aliases", aliases, request.parameters, LIST_ALIASES_DEFAULT))
}

fn alias_name(parameters: &Parameters) -> Result<&str, ApiError> {
    let name = required("aliasName", parameters.alias_name.as_ref())?;
    check_name(name)?;
    Ok(name)
}

/// Refuses a name that is not well formed, or that AWS keeps for itself.
fn check_name(name: &str) -> Result<(), ApiError> {
    let Some(rest) = name.strip_prefix(ALIAS_PREFIX) else {
        return Err(ApiError::validation(
            "Alias must start with the prefix \"alias/\". Please see \
             https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
        ));
    };
    if name.starts_with("alias/aws/") {
        return Err(ApiError::bare("NotAuthorizedException"));
    }
    if rest.contains(':') {
        return Err(ApiError::validation(format!("{name} contains invalid characters for an alias")));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    if rest.is_empty() || !rest.bytes().all(allowed) {
        return Err(ApiError::constraint(&format!(
            "Value '{name}' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression \
             pattern: ^[a-zA-Z0-9:/_-]+$"
        )));
    }
    Ok(())
}

/// The key an alias is to point to: never through another alias, never one pending deletion.
fn target(request: &Request<'_>, operation: &str) -> Result<Arc<Key>, ApiError> {
    let id = required("targetKeyId", request.parameters.target_key_id.as_ref())?;
    if id.starts_with(ALIAS_PREFIX) {
        return Err(ApiError::validation("Aliases must refer to keys. Not aliases"));
    }
    let store = &request.kms.store;
    let key = store.find_by_id(&store.snapshot(), id, operation)?;
    request.permit(&key, operation, None)?;
    match key.state {
        KeyState::PendingDeletion { .. } => Err(key.pending_deletion()),
        KeyState::Enabled | KeyState::Disabled => Ok(key),
    }
}

/// <https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html>
const ALIASES_PER_KEY: usize = 50;

/// How many aliases a page of `ListAliases` has unless the caller says.
const LIST_ALIASES_DEFAULT: usize = 50;
