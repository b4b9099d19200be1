//! `trail.json` in the journal's directory: how far the trail is.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::audit::digest::LogFile;
use crate::audit::journal::chain::Link;
use crate::audit::store::directory::write_durably;

/// How far the trail is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::audit) struct State {
    version: u32,
    /// The last record that was delivered.
    #[serde(with = "link")]
    pub(in crate::audit) delivered: Option<Link>,
    /// Where the next digest begins.
    #[serde(with = "time::serde::timestamp")]
    pub(in crate::audit) start: OffsetDateTime,
    /// Log files for the next digest.
    pub(in crate::audit) log_files: Vec<LogFile>,
    /// The digest that is being delivered.
    pub(in crate::audit) sealed: Option<Sealed>,
    /// The digest before.
    pub(in crate::audit) previous: Option<Previous>,
}

/// A digest whose end and contents are fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::audit) struct Sealed {
    #[serde(with = "time::serde::timestamp")]
    pub(in crate::audit) end: OffsetDateTime,
    pub(in crate::audit) log_files: Vec<LogFile>,
}

/// A digest that was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::audit) struct Previous {
    pub(in crate::audit) bucket: String,
    pub(in crate::audit) object: String,
    pub(in crate::audit) hash: String,
    pub(in crate::audit) signature: String,
}

impl State {
    /// A trail that begins at `start`.
    pub(in crate::audit) fn new(start: OffsetDateTime) -> Self {
        Self { version: VERSION, delivered: None, start, log_files: Vec::new(), sealed: None, previous: None }
    }

    /// Reads what an earlier process noted in `dir`; none if there is none.
    pub(in crate::audit) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(dir.join(FILE)) {
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
    pub(in crate::audit) fn save(&self, dir: &Path) -> io::Result<()> {
        write_durably(&dir.join(FILE), &serde_json::to_vec(self)?)?;
        fs::File::open(dir)?.sync_all()
    }
}

mod link {
    //! `SEQUENCE:HASH`.

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Link;

    #[expect(clippy::ref_option, reason = "serde passes the field as it is")]
    pub(super) fn serialize<S: Serializer>(link: &Option<Link>, serializer: S) -> Result<S::Ok, S::Error> {
        match link {
            Some(link) => serializer.serialize_some(&format!("{link:?}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Link>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let link = || {
            let (sequence, hex) = text.split_once(':')?;
            let mut hash = [0; 32];
            hex::decode_to_slice(hex, &mut hash).ok()?;
            Some(Link { sequence: sequence.parse().ok()?, hash })
        };
        link().map(Some).ok_or_else(|| serde::de::Error::custom("not a place in the journal's chain"))
    }
}

const FILE: &str = "trail.json";
const VERSION: u32 = 1;
