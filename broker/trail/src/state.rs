//! `trail.json` in the journal's directory: the trail's name and progress.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::digest::{LogFile, OwnFields};
use crate::format_version::{FORMAT_VERSION, Versioned, newer};
use crate::journal::hash_chain::{Link, optional_link};
use crate::record::AwsCaller;
use crate::regular_file::read_regular;
use crate::store::directory::write_durably;

/// The progress of a trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    version: u32,
    /// The trail's name.
    pub(crate) trail: String,
    /// The trail's account, once that is known.
    pub(crate) account: Option<Account>,
    /// The last record that was delivered or, if later ones are missing, accounted for.
    #[serde(default, with = "optional_link")]
    pub(crate) delivered: Option<Link>,
    /// The start of the next digest.
    #[serde(with = "time::serde::timestamp")]
    pub(crate) start: OffsetDateTime,
    /// Log files for the next digest.
    pub(crate) log_files: Vec<LogFile>,
    /// The encrypted log file that is being stored: the same bytes cannot be made again.
    pub(crate) storing: Option<EncryptedFile>,
    /// The digest that is being delivered.
    pub(crate) sealed: Option<PendingDigest>,
    /// The previous digest.
    pub(crate) previous: Option<Previous>,
}

/// The owner of a trail, which never changes while its journal exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) partition: String,
    pub(crate) region: String,
}

/// An encrypted log file, with a data key that is not requested again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EncryptedFile {
    pub(crate) object: String,
    /// SHA-256, in hex, of the stored bytes.
    pub(crate) sha256: String,
    /// The requestID of the GenerateDataKey behind it.
    pub(crate) data_key_request_id: Option<String>,
}

/// A digest whose end and contents are fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingDigest {
    #[serde(with = "time::serde::timestamp")]
    pub(crate) end: OffsetDateTime,
    pub(crate) log_files: Vec<LogFile>,
    /// Its fields besides CloudTrail's.
    pub(crate) own: OwnFields,
    /// Its signature, once it is made: repeated attempts reuse it.
    pub(crate) signed: Option<DigestSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DigestSignature {
    /// The fingerprint of the signing key.
    pub(crate) fingerprint: String,
    /// Hex.
    pub(crate) signature: String,
    /// The requestID of KMS's Sign, if KMS made it.
    pub(crate) kms_request_id: Option<String>,
}

/// A digest that was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Previous {
    pub(crate) bucket: String,
    pub(crate) object: String,
    pub(crate) hash: String,
    pub(crate) signature: String,
    /// Whether it closes the trail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_closing: bool,
}

impl Account {
    pub(crate) fn of(caller: &AwsCaller) -> Self {
        let AwsCaller { account_id, partition, region, .. } = caller;
        Self { id: account_id.clone(), partition: partition.clone(), region: region.clone() }
    }
}

impl State {
    /// Its name in the journal's directory.
    pub(crate) const FILE: &str = "trail.json";

    /// A new trail of this name, which begins at `start`.
    pub(crate) fn new(trail: String, start: OffsetDateTime) -> Self {
        Self {
            version: FORMAT_VERSION,
            trail,
            account: None,
            delivered: None,
            start,
            log_files: Vec::new(),
            storing: None,
            sealed: None,
            previous: None,
        }
    }

    /// Loads what an earlier process saved in `dir`, if anything.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let text = match read_regular(&dir.join(Self::FILE), MAX_STATE_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Versioned { version } = serde_json::from_slice(&text)?;
        if version > FORMAT_VERSION {
            return Err(io::Error::new(io::ErrorKind::Unsupported, newer(version)));
        }
        let state: Self = serde_json::from_slice(&text)?;
        // What is saved next has this program's form.
        Ok(Some(Self { version: FORMAT_VERSION, ..state }))
    }

    /// Saves it durably.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        write_durably(&dir.join(Self::FILE), &serde_json::to_vec(self)?)?;
        fs::File::open(dir)?.sync_all()
    }
}

/// A hundred thousand log files that wait for a digest: far more than there ever are.
const MAX_STATE_BYTES: u64 = 256 << 20;
