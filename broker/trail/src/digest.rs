//! Digest files: what was delivered in a period, chained and signed like CloudTrail's
//! (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-validation-digest-file-structure.html>).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::format_version::{FORMAT_VERSION, Versioned};
use super::journal::hash_chain::Link;
use super::origin::Origin;

/// A digest, in CloudTrail's order of fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "CloudTrail's names")]
#[serde(rename_all = "camelCase")]
pub(crate) struct Digest {
    /// The account: 12 digits.
    pub aws_account_id: String,
    /// The end of the previous digest, `YYYY-MM-DDTHH:MM:SSZ`.
    pub digest_start_time: String,
    /// The end of this one.
    pub digest_end_time: String,
    /// The bucket that it is in.
    pub digest_s3_bucket: String,
    /// Its key.
    pub digest_s3_object: String,
    /// MD5, in hex, of the public signing key as PKCS#1 DER. It only names the key.
    pub digest_public_key_fingerprint: String,
    /// `SHA256withRSA`.
    pub digest_signature_algorithm: String,
    /// The newest record's time; `None` if nothing was delivered.
    pub newest_event_time: Option<String>,
    /// The oldest record's time.
    pub oldest_event_time: Option<String>,
    /// The bucket of the previous digest; `None` for the first one.
    pub previous_digest_s3_bucket: Option<String>,
    /// Its key.
    pub previous_digest_s3_object: Option<String>,
    /// SHA-256, in hex, of its uncompressed bytes.
    pub previous_digest_hash_value: Option<String>,
    /// `SHA-256`.
    pub previous_digest_hash_algorithm: Option<String>,
    /// Its signature, in hex.
    pub previous_digest_signature: Option<String>,
    /// What was delivered.
    pub log_files: Vec<LogFile>,
    /// Fields that CloudTrail's digests do not have.
    #[serde(default, deserialize_with = "own_fields", skip_serializing_if = "Option::is_none")]
    pub(crate) key_broker: Option<OwnFields>,
}

/// The fields of a broker's digests besides CloudTrail's, which are signed as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnFields {
    /// The format version of the digest, and of the log files and records behind it.
    pub(crate) version: u32,
    /// Whether a trail begins or ends with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<Position>,
    /// When the next one is due at the latest, as long as the broker runs.
    pub(crate) digest_interval_seconds: u64,
    /// Where the broker runs, in the first digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
}

/// Where in a trail a digest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Position {
    /// The first one, which was in the store before the first call was answered.
    Opening,
    /// The broker has ended and everything is delivered. If its journal is retained, another digest may follow.
    Closing,
}

/// A delivered log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogFile {
    /// The bucket.
    pub s3_bucket: String,
    /// The key.
    pub s3_object: String,
    /// SHA-256, in hex, of its uncompressed bytes.
    pub hash_value: String,
    /// `SHA-256`.
    pub hash_algorithm: String,
    /// The newest record's time.
    pub newest_event_time: String,
    /// The oldest record's time.
    pub oldest_event_time: String,
    /// The place of its records in the journal's chain. CloudTrail has no such field, nor have digests of older brokers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) journal_chain: Option<ChainSpan>,
    /// For a log file that the broker has encrypted: the requestID of its data key's GenerateDataKey, whose record is in a later log file,
    /// or in none if there is no later one.
    #[serde(rename = "dataKeyRequestID", default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_key_request_id: Option<String>,
}

/// The place of a log file's records in the journal's chain, which shows in the digests that log files follow one
/// another, or how many records are missing between two of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChainSpan {
    /// The first record's sequence number.
    pub first_sequence: u64,
    /// The last record's.
    pub last_sequence: u64,
    /// The chain's hash before the first record, in hex.
    pub hash_before: String,
    /// The chain's hash with the last record, in hex.
    pub hash_after: String,
}

impl ChainSpan {
    /// The records after `before`, up to and including `end`.
    #[must_use]
    pub(crate) fn new(before: &Link, end: &Link) -> Self {
        Self {
            first_sequence: before.sequence.saturating_add(1),
            last_sequence: end.sequence,
            hash_before: hex::encode(before.hash),
            hash_after: hex::encode(end.hash),
        }
    }

    /// The last record before these, and the last of these; `None` if no broker writes it like this.
    #[must_use]
    pub(crate) fn links(&self) -> Option<(Link, Link)> {
        let link = |sequence, hex: &str| {
            let mut hash = [0; 32];
            hex::decode_to_slice(hex, &mut hash).ok()?;
            (hex::encode(hash) == *hex).then_some(Link { sequence, hash })
        };
        let before = link(self.first_sequence.checked_sub(1)?, &self.hash_before)?;
        let end = link(self.last_sequence, &self.hash_after)?;
        (before.sequence < end.sequence).then_some((before, end))
    }
}

impl Digest {
    /// The bytes that are hashed, and stored compressed.
    #[must_use]
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a digest has string keys and goes to memory: nothing can fail")
    }

    /// What is signed for the digest whose uncompressed bytes are `json`
    /// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-custom-validation.html>).
    #[must_use]
    pub(crate) fn string_to_sign(&self, json: &[u8]) -> String {
        format!(
            "{}\n{}/{}\n{}\n{}",
            self.digest_end_time,
            self.digest_s3_bucket,
            self.digest_s3_object,
            sha256_hex(json),
            self.previous_digest_signature.as_deref().unwrap_or("null")
        )
    }
}

/// If the format is later, only its version is read.
fn own_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OwnFields>, D::Error> {
    let Some(fields) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    let Versioned { version } = Versioned::deserialize(&fields).map_err(D::Error::custom)?;
    if version > FORMAT_VERSION {
        let unread = OwnFields { version, position: None, digest_interval_seconds: 0, origin: None };
        return Ok(Some(unread));
    }
    OwnFields::deserialize(fields).map(Some).map_err(D::Error::custom)
}

#[must_use]
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// RSASSA-PKCS1-v1_5 with SHA-256, by CloudTrail's name.
pub(crate) const SIGNATURE_ALGORITHM: &str = "SHA256withRSA";
/// CloudTrail's name of SHA-256.
pub(crate) const HASH_ALGORITHM: &str = "SHA-256";
/// The metadata with the signature of a digest, in hex.
pub(crate) const SIGNATURE_METADATA: &str = "signature";
/// The metadata with the requestID of KMS's Sign.
pub(crate) const KMS_REQUEST_METADATA: &str = "kms-request-id";
/// The metadata with `SHA256withRSA`.
pub(crate) const SIGNATURE_ALGORITHM_METADATA: &str = "signature-algorithm";
