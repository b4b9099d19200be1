//! Aliases: names for keys.

use serde_json::json;

use super::keys::page;
use super::{Answer, key};
use crate::clock::{epoch_seconds, unix_millis};
use crate::error::ApiError;
use crate::key::{Key, KeyState};
use crate::parameters::{Parameters, required};
use crate::store::{ALIAS_PREFIX, Alias, Store};

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html>
pub(super) fn create(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let name = alias_name(parameters)?;
    let key = target(store, parameters, "CreateAlias")?;
    create_alias(store, name, &key)?;
    Ok(Answer::new())
}

/// Makes an alias that does not exist yet.
pub(crate) fn create_alias(store: &Store, name: &str, key: &Key) -> Result<(), ApiError> {
    let now = unix_millis();
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
        state.aliases.insert(name.to_owned(), Alias { key_id: key.id.clone(), created: now, updated: now });
        Ok(())
    })
}

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_UpdateAlias.html>
pub(super) fn update(store: &Store, parameters: &Parameters) -> Result<Answer, ApiError> {
    let name = alias_name(parameters)?;
    let key = target(store, parameters, "UpdateAlias")?;
    store.change(|state| {
        let old = state.aliases.get(name).ok_or_else(|| store.no_alias(name))?;
        let old_spec = state.keys.get(&old.key_id).map(|key| key.spec);
        if old_spec.map(crate::KeySpec::usage) != Some(key.spec.usage()) {
            return Err(ApiError::validation(
                "An alias may only move to a key of the same type and key usage.",
            ));
        }
        let alias = Alias { key_id: key.id.clone(), created: old.created, updated: unix_millis() };
        state.aliases.insert(name.to_owned(), alias);
        Ok(())
    })?;
    Ok(Answer::new())
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

/// Whether the name is one that AWS keeps for itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("alias/aws/")
}

/// An alias name that is well formed and may be changed.
fn alias_name(parameters: &Parameters) -> Result<&str, ApiError> {
    let name = required("aliasName", parameters.alias_name.as_ref())?;
    let Some(rest) = name.strip_prefix(ALIAS_PREFIX) else {
        return Err(ApiError::validation(
            "Alias must start with the prefix \"alias/\". Please see \
             https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
        ));
    };
    if is_reserved(name) {
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
    Ok(name)
}

/// The key an alias is to point to: never through another alias, never one pending deletion.
fn target(store: &Store, parameters: &Parameters, operation: &str) -> Result<std::sync::Arc<Key>, ApiError> {
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
