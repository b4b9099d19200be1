//! Aliases: names for keys.

use std::sync::Arc;

use serde_json::json;

use super::keys::{new_key, page};
use super::{Answer, key};
use crate::clock::{epoch_seconds, unix_millis};
use crate::error::ApiError;
use crate::key::{Key, KeySpec, KeyState};
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
    let key = new_key(store, spec, String::new(), multi_region)?;
    store.change(|state| {
        if state.aliases.contains_key(name) {
            return store.find(state, name, "DescribeKey");
        }
        state.keys.insert(key.id.clone(), Arc::clone(&key));
        insert(state, name, &key);
        Ok(key)
    })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html>
pub(super) fn create(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let name = alias_name(parameters)?;
    let key = target(store, parameters, "CreateAlias")?;
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
        insert(state, name, &key);
        Ok(())
    })?;
    Ok(Answer::new())
}

fn insert(state: &mut State, name: &str, key: &Key) {
    let now = unix_millis();
    state.aliases.insert(name.to_owned(), Alias { key_id: key.id.clone(), created: now, updated: now });
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_UpdateAlias.html>
pub(super) fn update(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let name = alias_name(parameters)?;
    move_alias(store, name, &*target(store, parameters, "UpdateAlias")?)?;
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
        let alias = Alias { key_id: key.id.clone(), created: old.created, updated: unix_millis() };
        state.aliases.insert(name.to_owned(), alias);
        Ok(())
    })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DeleteAlias.html>
pub(super) fn delete(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let name = alias_name(parameters)?;
    store.change(|state| state.aliases.remove(name).ok_or_else(|| store.no_alias(name)))?;
    Ok(Answer::new())
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListAliases.html>
pub(super) fn list(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let state = store.snapshot();
    let only = match &parameters.key_id {
        Some(_) => Some(key(store, parameters, "ListAliases")?),
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
    Ok(page("Aliases", aliases, parameters, LIST_ALIASES_DEFAULT))
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
fn target(store: &Store, parameters: &Parameters, operation: &str) -> Result<Arc<Key>, ApiError> {
    let id = required("targetKeyId", parameters.target_key_id.as_ref())?;
    if id.starts_with(ALIAS_PREFIX) {
        return Err(ApiError::validation("Aliases must refer to keys. Not aliases"));
    }
    let key = store.find_by_id(&store.snapshot(), id, operation)?;
    match key.state {
        KeyState::PendingDeletion { .. } => Err(key.pending_deletion()),
        KeyState::Enabled | KeyState::Disabled => Ok(key),
    }
}

/// <https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html>
const ALIASES_PER_KEY: usize = 50;

/// How many aliases a page of `ListAliases` has unless the caller says.
const LIST_ALIASES_DEFAULT: usize = 50;
