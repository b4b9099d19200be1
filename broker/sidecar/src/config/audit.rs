//! `[audit]`: the journal, and the trail that it is delivered to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::KeyId;
use key_broker_trail::S3Settings;
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig, public_key_of};
use key_broker_trail::journal::{Durability, JournalConfig};
use serde::Deserialize;

use super::kms::checked_url;
use super::redact::RedactSection;
use super::{Host, milliseconds, within};
use crate::redaction::Redaction;

/// `[audit]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct AuditSection {
    journal_dir: PathBuf,
    #[serde(default)]
    commit: Durability,
    #[serde(default = "default_commit_wait_ms")]
    commit_wait_ms: u64,
    max_undelivered_bytes: Option<u64>,
    max_log_file_bytes: Option<u64>,
    #[serde(default)]
    stdout: bool,
    redact: Option<RedactSection>,
    store: Option<StoreSection>,
    signing: Option<SigningSection>,
    trail: Option<String>,
    #[serde(default)]
    prefix: String,
    #[serde(default = "default_delivery_interval_seconds")]
    delivery_interval_seconds: u64,
    #[serde(default = "default_digest_interval_seconds")]
    digest_interval_seconds: u64,
    kms_key_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct StoreSection {
    directory: Option<PathBuf>,
    bucket: Option<String>,
    s3_bucket: Option<String>,
    s3_region: Option<String>,
    s3_endpoint_url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct SigningSection {
    kms_key_id: Option<String>,
    pem_file: Option<PathBuf>,
}

/// Where records go, checked.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Where they become durable.
    pub journal: JournalConfig,
    /// Where they are delivered.
    pub trail: Option<TrailConfig>,
    /// Whether they are written to stdout, too.
    pub stdout: bool,
    /// What records do not show of encryption contexts.
    pub redaction: Option<Arc<Redaction>>,
}

const fn default_commit_wait_ms() -> u64 {
    2_000
}

const fn default_delivery_interval_seconds() -> u64 {
    // CloudTrail's.
    300
}

const fn default_digest_interval_seconds() -> u64 {
    // CloudTrail's.
    3_600
}

impl AuditSection {
    pub(super) fn check(mut self, base: &Path, region: &str, host: Host) -> Result<Audit, String> {
        let wait = milliseconds("audit.commit_wait_ms", self.commit_wait_ms)?;
        let mut journal = JournalConfig::new(base.join(&self.journal_dir), self.commit, wait);
        if let Some(bytes) = self.max_undelivered_bytes {
            let (least, most) = (LEAST_UNDELIVERED_BYTES, MOST_UNDELIVERED_BYTES);
            journal.max_undelivered_bytes = within("audit.max_undelivered_bytes", bytes, least, most)?;
        }
        if let Some(bytes) = self.max_log_file_bytes {
            // A file of the journal becomes one log file, which is a little shorter.
            let (least, most) = (LEAST_LOG_FILE_BYTES, MOST_LOG_FILE_BYTES);
            journal.max_segment_bytes = within("audit.max_log_file_bytes", bytes, least, most)?;
        }
        let stdout = self.stdout;
        let redaction = self.redact.take().filter(|_| host == Host::Here);
        let redaction = redaction.map(|section| section.check(base)).transpose()?;
        Ok(Audit { journal, trail: self.check_trail(base, region, host)?, stdout, redaction })
    }

    fn check_trail(self, base: &Path, region: &str, host: Host) -> Result<Option<TrailConfig>, String> {
        let Some(store) = self.store else {
            if self.signing.is_some() || self.kms_key_id.is_some() || self.trail.is_some() {
                return Err(
                    "audit.store: missing: a trail is delivered somewhere: set audit.store.directory or \
                            audit.store.s3_bucket"
                        .into(),
                );
            }
            return Ok(None);
        };
        let store = store.check(base, region)?;
        let Some(signing) = self.signing else {
            return Err("audit.signing: missing: digests are signed: set audit.signing.kms_key_id (an RSA key of KMS) or \
                        audit.signing.pem_file (as `openssl genrsa 2048` makes)"
                .into());
        };
        let name = match self.trail {
            Some(name) => checked_name(name)?,
            None => "key-broker".into(),
        };
        Ok(Some(TrailConfig {
            name,
            store,
            prefix: checked_prefix(self.prefix)?,
            delivery_interval: seconds(
                "audit.delivery_interval_seconds",
                self.delivery_interval_seconds,
                LONGEST_DELIVERY_SECONDS,
            )?,
            digest_interval: seconds(
                "audit.digest_interval_seconds",
                self.digest_interval_seconds,
                LONGEST_DIGEST_SECONDS,
            )?,
            kms_key: key("audit.kms_key_id", self.kms_key_id)?,
            signing: signing.check(base, host)?,
        }))
    }
}

impl StoreSection {
    fn check(self, base: &Path, region: &str) -> Result<StoreConfig, String> {
        match (self.directory, self.s3_bucket) {
            (Some(directory), None) => {
                if self.s3_region.is_some() || self.s3_endpoint_url.is_some() {
                    return Err("audit.store: s3_region and s3_endpoint_url go with s3_bucket".into());
                }
                let bucket = self.bucket.unwrap_or_else(|| "trail".into());
                Ok(StoreConfig::Directory {
                    root: base.join(directory),
                    bucket: checked_bucket("audit.store.bucket", bucket)?,
                })
            }
            (None, Some(bucket)) => {
                if self.bucket.is_some() {
                    return Err(
                        "audit.store.bucket: goes with directory: name the bucket in s3_bucket".into()
                    );
                }
                Ok(StoreConfig::S3(S3Settings {
                    bucket: checked_bucket("audit.store.s3_bucket", bucket)?,
                    region: self.s3_region.unwrap_or_else(|| region.to_owned()),
                    endpoint_url: checked_url("audit.store.s3_endpoint_url", self.s3_endpoint_url)?,
                    credentials: None,
                }))
            }
            (Some(_), Some(_)) => {
                Err("audit.store: directory and s3_bucket are both set: a trail has one store: leave one out"
                    .into())
            }
            (None, None) => Err("audit.store: set one of directory and s3_bucket".into()),
        }
    }
}

impl SigningSection {
    fn check(self, base: &Path, host: Host) -> Result<SigningConfig, String> {
        match (self.kms_key_id, self.pem_file) {
            (Some(id), None) => Ok(SigningConfig::Kms(parse_key("audit.signing.kms_key_id", &id)?)),
            (None, Some(file)) => {
                let path = base.join(file);
                if host == Host::Here {
                    public_key_of(&path).map_err(|error| error.to_string())?;
                }
                Ok(SigningConfig::File(path))
            }
            (Some(_), Some(_)) => Err(
                "audit.signing: kms_key_id and pem_file are both set: one key signs digests: leave one out"
                    .into(),
            ),
            (None, None) => Err("audit.signing: set one of kms_key_id and pem_file".into()),
        }
    }
}

fn key(setting: &str, id: Option<String>) -> Result<Option<KeyId>, String> {
    id.map(|id| parse_key(setting, &id)).transpose()
}

fn parse_key(setting: &str, id: &str) -> Result<KeyId, String> {
    KeyId::parse(id).map_err(|malformed| format!("{setting}: {}", malformed.0))
}

fn seconds(setting: &str, value: u64, most: u64) -> Result<Duration, String> {
    within(setting, value, 1, most).map(Duration::from_secs)
}

/// CloudTrail's rule for names
/// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-trail-naming-requirements.html>).
fn checked_name(name: String) -> Result<String, String> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (3..=MOST_NAME_BYTES).contains(&name.len())
        && name.bytes().all(plain)
        && ends(name.chars().next())
        && ends(name.chars().next_back())
    {
        Ok(name)
    } else {
        Err(format!(
            "audit.trail: {name:?} is not 3 to {MOST_NAME_BYTES} letters, digits, dots, underscores and dashes, with a letter or digit at \
             both ends"
        ))
    }
}

/// S3's rule for names, as far as keys and ARNs need it
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
fn checked_bucket(setting: &str, bucket: String) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if (3..=63).contains(&bucket.len())
        && bucket.bytes().all(plain)
        && ends(bucket.chars().next())
        && ends(bucket.chars().next_back())
        && !bucket.contains("..")
    {
        Ok(bucket)
    } else {
        Err(format!("{setting}: {bucket:?} is not 3 to 63 lower-case letters, digits, dots and dashes"))
    }
}

/// CloudTrail takes at most 200 characters; no part may lead elsewhere in a directory.
fn checked_prefix(prefix: String) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    if prefix.is_empty() || (prefix.len() <= 200 && prefix.bytes().all(plain) && prefix.split('/').all(part))
    {
        Ok(prefix)
    } else {
        Err(format!(
            "audit.prefix: {prefix:?} is not a path such as \"team/app\", of letters, digits, dots, underscores and dashes"
        ))
    }
}

/// CloudTrail's 128, without what each journal adds.
const MOST_NAME_BYTES: usize = 115;
/// The records of some calls, the longest that there are.
const LEAST_LOG_FILE_BYTES: u64 = 1_000_000;
/// CloudTrail's own bound.
const MOST_LOG_FILE_BYTES: u64 = 50_000_000;
/// Two log files: one is filled while the other is delivered.
const LEAST_UNDELIVERED_BYTES: u64 = 100_000_000;
/// 1 TiB.
const MOST_UNDELIVERED_BYTES: u64 = 1 << 40;
const LONGEST_DELIVERY_SECONDS: u64 = 3_600;
const LONGEST_DIGEST_SECONDS: u64 = 86_400;
