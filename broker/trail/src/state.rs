//! `trail.json` in the journal's directory: how far the trail is.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::digest::LogFile;
use crate::journal::hash_chain::{Link, optional_link};
use crate::regular_file::read_regular;
use crate::store::directory::write_durably;

/// How far the trail is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// The last record that was delivered or, where later ones are gone, that was accounted for.
    #[serde(with = "optional_link")]
    pub(crate) delivered: Option<Link>,
    /// Where the next digest begins.
    #[serde(with = "time::serde::timestamp")]
    pub(crate) start: OffsetDateTime,
    /// Log files for the next digest.
    pub(crate) log_files: Vec<LogFile>,
    /// The digest that is being delivered.
    pub(crate) sealed: Option<PendingDigest>,
    /// The digest before.
    pub(crate) previous: Option<Previous>,
}

/// A digest whose end and contents are fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PendingDigest {
    #[serde(with = "time::serde::timestamp")]
    pub(crate) end: OffsetDateTime,
    pub(crate) log_files: Vec<LogFile>,
}

/// A digest that was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Previous {
    pub(crate) bucket: String,
    pub(crate) object: String,
    pub(crate) hash: String,
    pub(crate) signature: String,
}

impl State {
    /// A trail that begins at `start`.
    pub(crate) fn new(start: OffsetDateTime) -> Self {
        Self { version: VERSION, delivered: None, start, log_files: Vec::new(), sealed: None, previous: None }
    }

    /// Reads what an earlier process noted in `dir`; none if there is none.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let text = match read_regular(&dir.join(FILE), MAX_STATE_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let state: Self = serde_json::from_slice(&text)?;
        if state.version != VERSION {
            return Err(io::Error::other(format!("version {} is not {VERSION}", state.version)));
        }
        Ok(Some(state))
    }

    /// Notes it, durably.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        write_durably(&dir.join(FILE), &serde_json::to_vec(self)?)?;
        fs::File::open(dir)?.sync_all()
    }
}

const FILE: &str = "trail.json";
const VERSION: u32 = 1;
/// Some hundred thousand log files that wait for a digest: far more than there ever are.
const MAX_STATE_BYTES: u64 = 256 << 20;
