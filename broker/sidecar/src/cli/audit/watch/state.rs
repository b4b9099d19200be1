//! The state of earlier runs, in a file of the reader's own, which is replaced atomically.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use key_broker_trail::open_regular;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What earlier runs have found out about all keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WatchState {
    version: u32,
    /// Which trails it is about.
    trails: String,
    /// The time up to which records were searched for keys.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) read_until: Option<OffsetDateTime>,
    /// By ARN.
    pub(super) keys: BTreeMap<String, KeyState>,
}

/// What earlier runs have found out about one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KeyState {
    /// When watching began: earlier uses are not judged.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) since: OffsetDateTime,
    /// Its last use, by KMS's latest answer.
    pub(super) last: Option<Sighting>,
    /// Whether that was a dry run of a broker's.
    #[serde(default)]
    pub(super) is_blind: bool,
    /// Uses that are not judged yet.
    #[serde(default)]
    pub(super) pending: Vec<Sighting>,
    /// Uses of somebody else's, until they are acknowledged.
    #[serde(default)]
    pub(super) alarms: Vec<Sighting>,
}

/// A use of a key, from KMS's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Sighting {
    /// When, by KMS's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) at: OffsetDateTime,
    pub(super) operation: String,
    /// KMS's requestID.
    #[serde(rename = "kmsRequestID")]
    pub(super) request_id: String,
    /// The eventID of AWS CloudTrail's record.
    #[serde(rename = "cloudTrailEventID")]
    pub(super) cloudtrail_event_id: Option<String>,
}

impl WatchState {
    /// For trails that were not watched before.
    pub(super) fn new(trails: &str) -> Self {
        Self { version: VERSION, trails: trails.to_owned(), read_until: None, keys: BTreeMap::new() }
    }

    /// Reads `file`, or starts empty without one. Errors are text for the user.
    pub(super) fn load(file: &Path, trails: &str) -> Result<Self, String> {
        let explain = |why: &dyn std::fmt::Display| format!("--state {}: {why}", file.display());
        let opened = match open_regular(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::new(trails)),
            opened => opened.map_err(|error| explain(&error))?,
        };
        let metadata = opened.metadata().map_err(|error| explain(&error))?;
        if metadata.uid() != geteuid().as_raw() || metadata.nlink() != 1 || metadata.mode() & 0o022 != 0 {
            return Err(explain(&"it is not a file of your own that only you may write"));
        }
        let mut json = Vec::new();
        let read = opened.take(MOST_BYTES + 1).read_to_end(&mut json).map_err(|error| explain(&error))?;
        if read as u64 > MOST_BYTES {
            return Err(explain(&"it is longer than any state of this command"));
        }
        let state: Self = serde_json::from_slice(&json)
            .map_err(|error| explain(&format_args!("it is not a state file of this command: {error}")))?;
        if state.version != VERSION {
            return Err(explain(&format_args!(
                "it is of version {}, and this program knows {VERSION}",
                state.version
            )));
        }
        if state.trails != trails {
            return Err(explain(&format_args!(
                "it is of {}, and not of {trails}: give another file",
                state.trails
            )));
        }
        Ok(state)
    }

    /// Replaces `file` atomically.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut unfinished = file.as_os_str().to_owned();
        unfinished.push(".unfinished");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        writer.write_all(&serde_json::to_vec(self)?)?;
        writer.sync_all()?;
        fs::rename(&unfinished, file)?;
        File::open(folder)?.sync_all()
    }
}

const VERSION: u32 = 1;
/// Some ten thousand keys with all that is kept of each.
const MOST_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    //! What is kept comes back as it was, and only from a file of one's own, of these trails, that this command has written.

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use time::macros::datetime;

    use super::*;

    fn state() -> WatchState {
        let sighting = Sighting {
            at: datetime!(2026-11-21 10:00 UTC),
            operation: "Decrypt".into(),
            request_id: "r".into(),
            cloudtrail_event_id: Some("e".into()),
        };
        let key = KeyState {
            since: datetime!(2026-11-20 10:00 UTC),
            last: Some(sighting.clone()),
            is_blind: false,
            pending: vec![sighting],
            alarms: Vec::new(),
        };
        let mut state = WatchState::new("bucket");
        state.keys.insert("arn".into(), key);
        state
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("state");
        assert_eq!(WatchState::load(&file, "bucket"), Ok(WatchState::new("bucket")));
        for _ in 0..2 {
            fs::write(dir.path().join("state.unfinished"), "half").expect("writes");
            state().save(&file).expect("saves");
            assert_eq!(WatchState::load(&file, "bucket"), Ok(state()));
        }
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
        assert!(WatchState::load(&file, "other").expect_err("another's").contains("give another file"));
    }

    #[test]
    fn what_is_not_a_state_of_ones_own_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        state().save(&at("state")).expect("saves");
        symlink(at("state"), at("link")).expect("links");
        fs::write(at("other"), r#"{"trailArn":"arn"}"#).expect("writes");
        fs::write(at("cut"), &fs::read(at("state")).expect("reads")[..40]).expect("writes");
        fs::copy(at("state"), at("open")).expect("copies");
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o622)).expect("changes");
        fs::copy(at("state"), at("first")).expect("copies");
        fs::hard_link(at("first"), at("second")).expect("links");
        File::create(at("long")).and_then(|file| file.set_len(1 << 40)).expect("a file with a hole");
        fs::create_dir(at("folder")).expect("makes");
        for name in ["link", "other", "cut", "open", "second", "long", "folder"] {
            assert!(WatchState::load(&at(name), "bucket").is_err(), "{name}");
        }
        let newer = fs::read_to_string(at("state")).expect("reads").replace("\"version\":1", "\"version\":2");
        fs::write(at("newer"), newer).expect("writes");
        assert!(WatchState::load(&at("newer"), "bucket").expect_err("newer").contains("version 2"));
    }
}
