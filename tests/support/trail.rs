//! A delivered trail in a directory, read without the broker's own reader.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use key_broker_core::KeyId;
use key_broker_trail::PublicKey;
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig};
use serde_json::Value;

use super::Records;
use super::formats::{Digest, digest_json, sha256_hex, string_to_sign};
use super::signing::verifies;

pub const BUCKET: &str = "logs";

/// A trail as CloudTrail's, in `root`, not encrypted, signed by the emulator's `alias/dev-signing`.
pub fn config(root: &Path) -> TrailConfig {
    TrailConfig {
        name: "test".into(),
        store: StoreConfig::Directory { root: root.to_owned(), bucket: BUCKET.into() },
        prefix: String::new(),
        delivery_interval: Duration::from_mins(5),
        digest_interval: Duration::from_hours(1),
        kms_key: None,
        signing: SigningConfig::Kms(KeyId::parse("alias/dev-signing").expect("a key")),
    }
}

/// The same, encrypted under the emulator's `alias/dev`.
pub fn encrypted(root: &Path) -> TrailConfig {
    TrailConfig { kms_key: Some(KeyId::parse("alias/dev").expect("a key")), ..config(root) }
}

/// Every object below `root`, by its key.
pub fn objects(root: &Path) -> BTreeMap<String, PathBuf> {
    let bucket = root.join(BUCKET);
    let (mut objects, mut folders) = (BTreeMap::new(), vec![bucket.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some("gz".as_ref()) {
                let key = path.strip_prefix(&bucket).expect("below").to_str().expect("text").to_owned();
                objects.insert(key, path);
            }
        }
    }
    objects
}

/// The log files, not the digests.
pub fn log_files(root: &Path) -> BTreeMap<String, PathBuf> {
    objects(root).into_iter().filter(|(key, _)| !key.contains("CloudTrail-Digest")).collect()
}

/// What gzip holds.
pub fn inflated(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).expect("opens")).read_to_end(&mut bytes).expect("gzip");
    bytes
}

/// The records of all log files of a trail that is not encrypted, in the order in which they were written: the names of log files
/// of one minute have none, so it is that of the digests.
pub fn records(root: &Path) -> Records {
    let mut places = BTreeMap::new();
    for (_, path) in objects(root).into_iter().filter(|(key, _)| key.contains("CloudTrail-Digest")) {
        let digest: Digest = serde_json::from_slice(&inflated(&path)).expect("a digest");
        for file in digest.log_files {
            places.insert(file.s3_object, places.len());
        }
    }
    let mut files: Vec<_> = log_files(root).into_iter().collect();
    files.sort_by_key(|(key, _)| places.get(key).copied().unwrap_or(usize::MAX));
    let mut all = Vec::new();
    for (_, path) in &files {
        let mut file: Value = serde_json::from_slice(&inflated(path)).expect("JSON");
        let Some(Value::Array(records)) = file.get_mut("Records").map(Value::take) else {
            panic!("no Records in {}", path.display())
        };
        assert!(!records.is_empty(), "no file for nothing");
        all.extend(records);
    }
    Records::of(all.into_iter())
}

/// The digests in order, each checked: signed by `key`, chained to the one before, in time without a gap, and every log file
/// in exactly one of them, with its hash.
pub fn checked_digests(root: &Path, key: &PublicKey) -> Vec<Digest> {
    let mut digests: Vec<Digest> = Vec::new();
    let (mut previous, mut referenced) = (None::<(String, String)>, Vec::new());
    for (name, path) in objects(root).into_iter().filter(|(name, _)| name.contains("CloudTrail-Digest")) {
        let json = inflated(&path);
        let digest: Digest = serde_json::from_slice(&json).expect("a digest");
        let metadata = fs::read(format!("{}.meta.json", path.display())).expect("metadata");
        let metadata: BTreeMap<String, String> = serde_json::from_slice(&metadata).expect("JSON");
        let signature = hex::decode(&metadata["signature"]).expect("hex");
        assert!(verifies(key, string_to_sign(&digest, &json).as_bytes(), &signature), "{name}");
        assert_eq!((digest.digest_s3_object.as_str(), &digest_json(&digest)), (name.as_str(), &json));
        let (hash, signed) = previous.unzip();
        assert_eq!(digest.previous_digest_hash_value, hash, "{name}");
        assert_eq!(digest.previous_digest_signature, signed, "{name}");
        if let Some(before) = digests.last() {
            assert_eq!(digest.digest_start_time, before.digest_end_time, "{name}");
        }
        for file in &digest.log_files {
            let json = inflated(&root.join(BUCKET).join(&file.s3_object));
            assert_eq!(file.hash_value, sha256_hex(&json));
            referenced.push(file.s3_object.clone());
        }
        previous = Some((sha256_hex(&json), metadata["signature"].clone()));
        digests.push(digest);
    }
    referenced.sort();
    assert_eq!(referenced, log_files(root).into_keys().collect::<Vec<_>>(), "each in exactly one digest");
    digests
}
