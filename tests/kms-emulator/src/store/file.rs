//! The state file: JSON, mode 0600, replaced as a whole, locked against a second emulator.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Account, Alias, State};
use crate::attestation::Conditions;
use crate::key::{Key, KeySpec, KeyState, MULTI_REGION_PREFIX, Material};

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

/// Whoever may put another file there, or a link, aims what is written and what becomes private.
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
        1024 + 6 * key.description.len() + attestation + 2 * key.material.bytes().len()
    };
    let alias = |name: &String| 512 + name.len();
    1024 + state.keys.values().map(key).sum::<usize>() + state.aliases.keys().map(alias).sum::<usize>()
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
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: String,
    spec: String,
    description: String,
    created: u64,
    state: StoredState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    primary_region: Option<String>,
    /// Condition keys by AWS's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attestation: BTreeMap<String, String>,
    material_id: Base64,
    material: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredState {
    Enabled,
    Disabled,
    PendingDeletion { deletion: u64, window: u16 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAlias {
    key: String,
    created: u64,
    updated: u64,
}

/// Bytes that may be secret.
struct Base64(Zeroizing<Vec<u8>>);

impl Stored {
    fn of(account: &Account, state: &State) -> Stored {
        let alias = |(name, alias): (&String, &Alias)| {
            let stored =
                StoredAlias { key: alias.key_id.clone(), created: alias.created, updated: alias.updated };
            (name.clone(), stored)
        };
        Stored {
            version: VERSION,
            region: account.region.clone(),
            account: account.id.clone(),
            keys: state.keys.values().map(|key| StoredKey::of(key)).collect(),
            aliases: state.aliases.iter().map(alias).collect(),
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
        Ok(state)
    }
}

impl StoredKey {
    fn of(key: &Key) -> StoredKey {
        StoredKey {
            id: key.id.clone(),
            spec: key.spec.as_str().to_owned(),
            description: key.description.clone(),
            created: key.created,
            state: match key.state {
                KeyState::Enabled => StoredState::Enabled,
                KeyState::Disabled => StoredState::Disabled,
                KeyState::PendingDeletion { deletion, window } => {
                    StoredState::PendingDeletion { deletion, window }
                }
            },
            primary_region: key.primary_region.clone(),
            attestation: key.attestation.texts(),
            material_id: Base64(Zeroizing::new(key.material.id.to_vec())),
            material: Base64(Zeroizing::new(key.material.bytes().to_vec())),
        }
    }

    fn key(self, account: &Account) -> Result<Key, String> {
        let id = self.id;
        let uuid = id.strip_prefix(MULTI_REGION_PREFIX).unwrap_or(&id);
        Uuid::try_parse(uuid).map_err(|_| format!("{id} is no key id"))?;
        let spec =
            KeySpec::named(&self.spec).ok_or_else(|| format!("key {id}: unknown spec {}", self.spec))?;
        let conditions = self.attestation.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let attestation = Conditions::parse(conditions).map_err(|error| format!("key {id}: {error}"))?;
        let material_id =
            self.material_id.0.as_slice().try_into().map_err(|_| format!("key {id}: material id"))?;
        let material = Material::restore(spec, material_id, self.material.0)
            .map_err(|error| format!("key {id}: {error}"))?;
        Ok(Key {
            arn: account.arn(&format!("key/{id}")),
            id,
            spec,
            description: self.description,
            created: self.created,
            state: match self.state {
                StoredState::Enabled => KeyState::Enabled,
                StoredState::Disabled => KeyState::Disabled,
                StoredState::PendingDeletion { deletion, window } => {
                    KeyState::PendingDeletion { deletion, window }
                }
            },
            primary_region: self.primary_region,
            attestation,
            material: Arc::new(material),
        })
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The message must not quote the text: it is a secret.
        let bytes = BASE64.decode(&*text).map_err(|_| serde::de::Error::custom("not base64"))?;
        Ok(Base64(Zeroizing::new(bytes)))
    }
}

const VERSION: u8 = 1;

/// More than a condition can need: its name, 96 hex digits, JSON around them, in bytes.
const CONDITION_CAPACITY: usize = 256;

/// Only its owner reads key material.
const PRIVATE: u32 = 0o600;
