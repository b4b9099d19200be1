//! The formats of journal and trail, written a second time: what the broker writes is read by its documentation, not by the code
//! that wrote it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// A place in the chain of the journal's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub sequence: u64,
    pub hash: [u8; 32],
}

impl Place {
    /// Before the first record.
    pub const START: Self = Self { sequence: 0, hash: [0; 32] };

    /// That of the record that follows.
    pub fn next(self, record: &[u8]) -> Self {
        let sequence = self.sequence + 1;
        let hash = Sha256::new().chain_update(self.hash).chain_update(sequence.to_be_bytes());
        Self { sequence, hash: hash.chain_update(record).finalize().into() }
    }

    fn read(sequence: &str, hex: &str) -> Option<Self> {
        let hash = hex::decode(hex).ok()?.try_into().ok()?;
        Some(Self { sequence: sequence.parse().ok()?, hash })
    }
}

/// A file of the journal: `journal-NUMBER.open` or `journal-NUMBER-TIME.closed`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalFile {
    pub number: u64,
    /// `YYYYMMDDTHHMMSSZ`; none while it is written.
    pub closed_at: Option<String>,
    pub path: PathBuf,
}

/// The files of the journal in `dir`, in the order of their numbers.
pub fn files(dir: &Path) -> io::Result<Vec<JournalFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("journal-"));
        let Some(name) = name else { continue };
        let (number, closed_at) = match (name.strip_suffix(".open"), name.strip_suffix(".closed")) {
            (Some(number), _) => (number, None),
            (_, Some(closed)) => {
                let (number, time) = closed.split_once('-').expect("a number and a time");
                (number, Some(time.to_owned()))
            }
            // What did not fit the chain.
            (None, None) => continue,
        };
        files.push(JournalFile { number: number.parse().expect("a number"), closed_at, path });
    }
    files.sort();
    Ok(files)
}

/// A line of a journal's file that holds a record: `SEQUENCE HASH RECORD`.
pub fn journal_line(line: &str) -> Option<(Place, &str)> {
    let (sequence, rest) = line.split_once(' ')?;
    let (hash, record) = rest.split_once(' ')?;
    Some((Place::read(sequence, hash)?, record))
}

/// The first line of a journal's file: `key-broker-journal 1 SEGMENT SEQUENCE HASH`, the last record before it.
pub fn journal_header(line: &str) -> Option<Place> {
    let (_, place) = line.strip_prefix("key-broker-journal 1 ")?.split_once(' ')?;
    let (sequence, hash) = place.split_once(' ')?;
    Place::read(sequence, hash)
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// gzip.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("memory takes everything");
    gzip.finish().expect("memory takes everything")
}

/// A digest, in CloudTrail's order of fields
/// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-validation-digest-file-structure.html>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "CloudTrail's names")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Digest {
    pub aws_account_id: String,
    pub digest_start_time: String,
    pub digest_end_time: String,
    pub digest_s3_bucket: String,
    pub digest_s3_object: String,
    pub digest_public_key_fingerprint: String,
    pub digest_signature_algorithm: String,
    pub newest_event_time: Option<String>,
    pub oldest_event_time: Option<String>,
    pub previous_digest_s3_bucket: Option<String>,
    pub previous_digest_s3_object: Option<String>,
    pub previous_digest_hash_value: Option<String>,
    pub previous_digest_hash_algorithm: Option<String>,
    pub previous_digest_signature: Option<String>,
    pub log_files: Vec<LogFile>,
    /// What CloudTrail's have not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_broker: Option<Box<RawValue>>,
}

/// A log file in a digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogFile {
    pub s3_bucket: String,
    pub s3_object: String,
    pub hash_value: String,
    pub hash_algorithm: String,
    pub newest_event_time: String,
    pub oldest_event_time: String,
    /// What CloudTrail's have not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_chain: Option<Box<RawValue>>,
    /// Of an encrypted one.
    #[serde(rename = "dataKeyRequestID", skip_serializing_if = "Option::is_none")]
    pub data_key_request_id: Option<String>,
}

/// The bytes of a digest that are hashed.
pub fn digest_json(digest: &Digest) -> Vec<u8> {
    serde_json::to_vec(digest).expect("JSON")
}

/// What is signed for a digest
/// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-custom-validation.html>).
pub fn string_to_sign(digest: &Digest, json: &[u8]) -> String {
    format!(
        "{}\n{}/{}\n{}\n{}",
        digest.digest_end_time,
        digest.digest_s3_bucket,
        digest.digest_s3_object,
        sha256_hex(json),
        digest.previous_digest_signature.as_deref().unwrap_or("null")
    )
}
