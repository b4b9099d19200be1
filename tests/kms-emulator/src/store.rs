//! Keys and aliases. Readers see a snapshot; a change is on disk before anybody sees it.

mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use uuid::Uuid;

use self::file::StateFile;
use crate::account::Account;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::key::{Key, KeyState, MULTI_REGION_PREFIX};
use crate::policy::Policy;

/// All keys, aliases and policies of roles at one moment.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// By key id.
    pub(crate) keys: BTreeMap<String, Arc<Key>>,
    /// By name, `alias/…`.
    pub(crate) aliases: BTreeMap<String, Alias>,
    /// By the role's ARN. A role without one may do what keys leave to its account.
    pub(crate) role_policies: BTreeMap<String, Arc<Policy>>,
}

/// A name for a key.
#[derive(Debug, Clone)]
pub(crate) struct Alias {
    /// The key it points to.
    pub(crate) key_id: String,
    /// Unix milliseconds.
    pub(crate) created: u64,
    /// Unix milliseconds of the last change of `key_id`.
    pub(crate) updated: u64,
}

/// The keys and aliases, in memory and, if there is a path, in a file.
pub(crate) struct Store {
    account: Account,
    clock: Clock,
    current: RwLock<Arc<State>>,
    /// Held while a change is made, so that changes come one after the other.
    file: Mutex<Option<StateFile>>,
}

impl Store {
    /// Reads the state file, or starts empty. Until [`Store::close`] the file is this store's alone.
    pub(crate) fn open(account: Account, path: Option<PathBuf>) -> Result<Store, String> {
        let (file, state) = match path {
            Some(path) => {
                let (file, state) = StateFile::open(path, &account)?;
                (Some(file), state)
            }
            None => (None, State::default()),
        };
        let (clock, current) = (Clock::default(), RwLock::new(Arc::new(state)));
        let store = Store { account, clock, current, file: Mutex::new(file) };
        store.delete_keys().map_err(|error| error.message.unwrap_or_default())?;
        Ok(store)
    }

    /// The time that the emulator goes by, in unix milliseconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Lets time pass. Keys whose deletion date comes are gone then.
    pub(crate) fn advance(&self, by: Duration) -> Result<(), ApiError> {
        self.clock.advance(by);
        self.delete_keys()
    }

    fn delete_keys(&self) -> Result<(), ApiError> {
        let now = self.now();
        let is_due = |key: &Arc<Key>| matches!(key.state, KeyState::PendingDeletion { deletion, .. } if deletion <= now);
        if !self.snapshot().keys.values().any(is_due) {
            return Ok(());
        }
        self.change(|state| {
            state.keys.retain(|_, key| !is_due(key));
            let State { keys, aliases, .. } = state;
            aliases.retain(|_, alias| keys.contains_key(&alias.key_id));
            Ok(())
        })
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// All keys and aliases as they are now.
    pub(crate) fn snapshot(&self) -> Arc<State> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a change: on disk first, then in memory; neither, if `change` refuses or the disk does.
    /// Blocks until the disk has it, so it must not run on an async runtime's thread.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut file = self.lock_file();
        let mut next = State::clone(&self.snapshot());
        let value = change(&mut next)?;
        if let Some(file) = file.as_mut() {
            file.write(&self.account, &next)
                .map_err(|error| ApiError::internal(format!("The state file cannot be written: {error}")))?;
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(value)
    }

    /// Changes a key that was found before.
    pub(crate) fn change_key<T>(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Key) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.change(|state| match state.keys.get_mut(&key.id) {
            Some(key) => change(Arc::make_mut(key)),
            None => Err(self.no_key(&key.id)),
        })
    }

    /// Lets go of the state file, so that another emulator can open it. Later changes fail.
    pub(crate) fn close(&self) {
        if let Some(file) = self.lock_file().as_mut() {
            file.release();
        }
    }

    /// Finds a key by any of the forms of `KeyId`: key id, key ARN, alias name, alias ARN.
    pub(crate) fn find(&self, state: &State, key_id: &str, operation: &str) -> Result<Arc<Key>, ApiError> {
        let resource = self.resource(key_id, operation)?;
        let id = if resource.starts_with(ALIAS_PREFIX) {
            let alias = state.aliases.get(resource).ok_or_else(|| self.no_alias(resource))?;
            alias.key_id.as_str()
        } else {
            plain_id(resource)?
        };
        state.keys.get(id).cloned().ok_or_else(|| self.no_key(id))
    }

    /// Finds a key where AWS takes no alias.
    pub(crate) fn find_by_id(
        &self,
        state: &State,
        key_id: &str,
        operation: &str,
    ) -> Result<Arc<Key>, ApiError> {
        let id = plain_id(self.resource(key_id, operation)?)?;
        state.keys.get(id).cloned().ok_or_else(|| self.no_key(id))
    }

    /// The part of an ARN after the account, or what is no ARN as it is.
    fn resource<'a>(&self, key_id: &'a str, operation: &str) -> Result<&'a str, ApiError> {
        if !key_id.starts_with("arn:") {
            return Ok(key_id);
        }
        let invalid = || ApiError::new("InvalidArnException", format!("Invalid arn {key_id}"));
        let parts: Vec<&str> = key_id.splitn(6, ':').collect();
        let &[_, partition, "kms", region, account, resource] = parts.as_slice() else {
            return Err(invalid());
        };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        if !partition.starts_with("aws") || !is_account {
            return Err(invalid());
        }
        if partition != "aws" || region != self.account.region {
            return Err(ApiError::not_found(format!("Invalid arn {region}")));
        }
        if account != self.account.id {
            return Err(self.not_ours(operation));
        }
        match resource.strip_prefix("key/") {
            Some(id) => Ok(id),
            None if resource.starts_with(ALIAS_PREFIX) => Ok(resource),
            None => Err(invalid()),
        }
    }

    fn no_key(&self, id: &str) -> ApiError {
        let arn = self.account.arn(&format!("key/{id}"));
        ApiError::not_found(format!("Key '{arn}' does not exist"))
    }

    /// The refusal of an alias that does not exist.
    pub(crate) fn no_alias(&self, name: &str) -> ApiError {
        ApiError::not_found(format!("Alias {} is not found.", self.account.arn(name)))
    }

    /// Another account's key: AWS does not say whether it exists.
    fn not_ours(&self, operation: &str) -> ApiError {
        ApiError::new(
            "AccessDeniedException",
            format!(
                "User: {} is not authorized to perform: kms:{operation} on this resource because the resource does \
                 not exist in this Region, no resource-based policies allow access, or a resource-based policy \
                 explicitly denies access",
                self.account.caller_arn
            ),
        )
    }

    fn lock_file(&self) -> MutexGuard<'_, Option<StateFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key id of either form.
fn plain_id(id: &str) -> Result<&str, ApiError> {
    let well_formed = match id.strip_prefix(MULTI_REGION_PREFIX) {
        Some(hex) => hex.len() == 32 && Uuid::try_parse(hex).is_ok(),
        None => id.len() == 36 && Uuid::try_parse(id).is_ok(),
    };
    if well_formed { Ok(id) } else { Err(ApiError::not_found(format!("Invalid keyId '{id}'"))) }
}

/// How every alias begins.
pub(crate) const ALIAS_PREFIX: &str = "alias/";
