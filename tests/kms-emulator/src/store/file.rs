//! The state file: JSON, mode 0600, replaced as a whole, locked against a second emulator.

mod key;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::key::StoredKey;
use super::{Alias, State};
use crate::account::Account;
use crate::grant::{Constraint, Grant};
use crate::key::Key;
use crate::policy::{Policy, PolicyOf};

/// The file, held open for its lock.
pub(super) struct StateFile {
    path: PathBuf,
    /// Nothing after [`StateFile::release`].
    held: Option<File>,
}

impl StateFile {
    /// Opens and locks the file, and reads it; makes an empty one where there is none.
    pub(super) fn open(path: PathBuf, account: &Account) -> Result<(StateFile, State), String> {
        let shown = path.display().to_string();
        let held = lock(&path).map_err(|error| format!("{shown}: {error}"))?;
        let text = read(&held).map_err(|error| format!("{shown}: {error}"))?;
        let mut file = StateFile { path, held: Some(held) };
        if text.is_empty() {
            let state = State::default();
            file.write(account, &state).map_err(|error| format!("{shown}: {error}"))?;
            return Ok((file, state));
        }
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| format!("{shown}: {error}"))?;
        let state = stored.state(account).map_err(|error| format!("{shown}: {error}"))?;
        Ok((file, state))
    }

    /// Replaces the file: whoever reads it, even after a crash, finds the old state or the new one.
    pub(super) fn write(&mut self, account: &Account, state: &State) -> io::Result<()> {
        if self.held.is_none() {
            return Err(io::Error::other("the emulator has stopped"));
        }
        // Sized so that the buffer never moves: a move would leave key material behind.
        let mut text = Zeroizing::new(Vec::with_capacity(capacity(state)));
        serde_json::to_writer_pretty(&mut *text, &Stored::of(account, state))?;
        let temporary = self.path.with_added_extension("new");
        let _absent = std::fs::remove_file(&temporary);
        let mut file = options().create_new(true).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        file.try_lock()?;
        std::fs::rename(&temporary, &self.path)?;
        self.held = Some(file);
        File::open(directory(&self.path))?.sync_all()
    }

    /// Lets go of the lock.
    pub(super) fn release(&mut self) {
        self.held = None;
    }
}

/// Opens and locks. A writer replaces the file, so the file locked must still be the one at the path.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = options().create(true).truncate(false).open(path)?;
        is_own(&file)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another emulator has this state file"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (held, named) = (file.metadata()?, std::fs::symlink_metadata(path)?);
        if (held.dev(), held.ino()) == (named.dev(), named.ino()) {
            file.set_permissions(Permissions::from_mode(PRIVATE))?;
            return Ok(file);
        }
    }
}

/// Fails unless this is a regular file of this user's with a single name: else others could choose, by a link, what is overwritten here.
fn is_own(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.nlink() > 1 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a file of this user's own"));
    }
    Ok(())
}

fn read(mut file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(Vec::with_capacity(length + 1));
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).write(true).mode(PRIVATE).custom_flags(flags.bits().cast_signed());
    options
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// More than the JSON of `state` can need, in bytes.
fn capacity(state: &State) -> usize {
    let key = |key: &Arc<Key>| {
        let attestation = CONDITION_CAPACITY * key.attestation.texts().len();
        let policy = key.policy.as_ref().map_or(0, |policy| 6 * policy.text().len());
        let materials = key.material.iter().chain(&key.former);
        let materials: usize = materials.map(|material| 512 + 2 * material.bytes().len()).sum();
        let grants: usize = key.grants.iter().map(grant_capacity).sum();
        1024 + 6 * key.description.len() + attestation + policy + materials + grants
    };
    let alias = |name: &String| 512 + name.len();
    let role = |(arn, policy): (&String, &Arc<Policy>)| 512 + 6 * (arn.len() + policy.text().len());
    1024 + state.keys.values().map(key).sum::<usize>()
        + state.aliases.keys().map(alias).sum::<usize>()
        + state.role_policies.iter().map(role).sum::<usize>()
}

fn grant_capacity(grant: &Grant) -> usize {
    let context = match &grant.constraint {
        Some(Constraint::Equals(context) | Constraint::Subset(context)) => {
            context.iter().map(|(name, value)| 64 + 6 * (name.len() + value.len())).sum()
        }
        None => 0,
    };
    let names = [Some(&grant.grantee), grant.retiring.as_ref(), grant.name.as_ref()];
    let names: usize = names.into_iter().flatten().map(|name| 6 * name.len()).sum();
    1024 + context + names + grant.token.len() + 64 * grant.operations.len()
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    region: String,
    account: String,
    keys: Vec<StoredKey>,
    aliases: BTreeMap<String, StoredAlias>,
    /// Documents by role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    role_policies: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAlias {
    key: String,
    created: u64,
    updated: u64,
}

impl Stored {
    fn of(account: &Account, state: &State) -> Stored {
        let alias = |(name, alias): (&String, &Alias)| {
            let stored =
                StoredAlias { key: alias.key_id.clone(), created: alias.created, updated: alias.updated };
            (name.clone(), stored)
        };
        let role = |(arn, policy): (&String, &Arc<Policy>)| (arn.clone(), policy.text().to_owned());
        Stored {
            version: VERSION,
            region: account.region.clone(),
            account: account.id.clone(),
            keys: state.keys.values().map(|key| StoredKey::of(key)).collect(),
            aliases: state.aliases.iter().map(alias).collect(),
            role_policies: state.role_policies.iter().map(role).collect(),
        }
    }

    fn state(self, account: &Account) -> Result<State, String> {
        if self.version != VERSION {
            return Err(format!("version {} is not {VERSION}", self.version));
        }
        if (&self.region, &self.account) != (&account.region, &account.id) {
            return Err(format!("it belongs to region {} and account {}", self.region, self.account));
        }
        let mut state = State::default();
        for stored in self.keys {
            let key = stored.key(account)?;
            state.keys.insert(key.id.clone(), Arc::new(key));
        }
        for (name, StoredAlias { key: key_id, created, updated }) in self.aliases {
            if !state.keys.contains_key(&key_id) {
                return Err(format!("{name} points to no key"));
            }
            state.aliases.insert(name, Alias { key_id, created, updated });
        }
        for (arn, text) in self.role_policies {
            let policy = Policy::parse(&text, PolicyOf::Role).map_err(|error| format!("{arn}: {error}"))?;
            state.role_policies.insert(arn, Arc::new(policy));
        }
        Ok(state)
    }
}

const VERSION: u8 = 1;

/// More than a condition can need: its name, 96 hex digits, JSON around them, in bytes.
const CONDITION_CAPACITY: usize = 256;

/// Only its owner reads key material.
const PRIVATE: u32 = 0o600;
