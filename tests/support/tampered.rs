//! What a broker leaves behind after some hours, to be copied, tampered with and verified.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use key_broker::AuditorKms;
use key_broker_trail::verify::{Report, VerifyOptions, verify};
use key_broker_trail::{Decrypter, TrailReader};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;

use super::formats::{Digest, compress, digest_json, files, sha256_hex, string_to_sign};
use super::signing::sign;
use super::timed::{BUCKET, TimedSite, copy, directory, names, objects};
use super::trail::inflated;

/// What a broker has left behind after some hours.
pub struct Base {
    pub site: TimedSite,
    _emulator: Emulator,
    /// Runs the emulator.
    _runtime: Runtime,
}

/// A trail that is not encrypted.
pub fn plain() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::build(false))
}

/// One that is, under alias/dev.
pub fn encrypted() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::build(true))
}

impl Base {
    fn build(is_encrypted: bool) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let emulator = runtime.block_on(async {
            let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
            emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
            emulator
        });
        let site = TimedSite::new(&emulator, is_encrypted);
        runtime.block_on(some_hours(&site));
        Self { site, _emulator: emulator, _runtime: runtime }
    }

    pub fn copy(&'static self) -> Copy {
        let dir = tempfile::tempdir().expect("a directory");
        copy(self.site.dir.path(), dir.path());
        Copy { dir, base: self }
    }
}

/// 08:00 to about 14:00, with a drain, a kill, a kill between a delivery and its note, a torn line, and an empty hour.
async fn some_hours(site: &TimedSite) {
    let broker = site.start().await;
    broker.calls().await;
    broker.pass(20, "CloudTrail").await;
    broker.calls().await;
    broker.pass(40, "CloudTrail-Digest").await;
    broker.calls().await;
    broker.kill().await;
    tear(&site.journal());
    let broker = site.start().await;
    broker.calls().await;
    broker.pass(60, "CloudTrail-Digest").await;
    broker.calls().await;
    broker.kill_while_it_delivers().await;
    let broker = site.start().await;
    broker.calls().await;
    broker.pass(20, "CloudTrail").await;
    broker.drain().await;
    let broker = site.start().await;
    broker.pass(60, "CloudTrail-Digest").await;
    broker.pass(60, "CloudTrail-Digest").await;
    broker.calls().await;
    broker.pass(20, "CloudTrail").await;
    broker.calls().await;
    broker.kill().await;
}

/// A commit that was cut off.
fn tear(journal: &Path) {
    let file = files(journal).expect("a journal").pop().expect("a file");
    let mut text = fs::read(&file.path).expect("reads");
    text.extend_from_slice(b"4711 00ff half a li");
    fs::write(&file.path, text).expect("writes");
}

/// A copy, to be tampered with.
pub struct Copy {
    pub dir: TempDir,
    pub base: &'static Base,
}

impl Copy {
    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.dir.path().join("store").join(BUCKET).join(key)
    }

    pub fn digests(&self) -> Vec<String> {
        objects(&self.dir.path().join("store"), "CloudTrail-Digest")
    }

    pub fn log_files(&self) -> Vec<String> {
        objects(&self.dir.path().join("store"), "CloudTrail")
    }

    pub fn digest(&self, place: usize) -> Digest {
        let json = inflated(&self.path(&self.digests()[place]));
        serde_json::from_slice(&json).expect("a digest")
    }

    /// Where a digest ends.
    pub fn end(&self, place: usize) -> OffsetDateTime {
        OffsetDateTime::parse(&self.digest(place).digest_end_time, &Rfc3339).expect("a time")
    }

    pub fn log_file(&self, key: &str) -> Vec<u8> {
        let key = key.to_owned();
        self.run(
            move |reader, _| {
                Box::pin(async move { reader.log_file(&key).await.expect("reads").expect("is there") })
            },
            true,
            VerifyOptions::default(),
        )
    }

    pub fn write(&self, key: &str, json: &[u8]) {
        fs::create_dir_all(self.path(key).parent().expect("a folder")).expect("makes");
        fs::write(self.path(key), compress(json)).expect("writes");
    }

    pub fn remove_digest(&self, place: usize) {
        let key = self.digests()[place].clone();
        fs::remove_file(self.path(&key)).expect("removes");
        fs::remove_file(self.path(&format!("{key}.meta.json"))).expect("removes");
    }

    /// Changes a log file of a digest.
    pub fn edit(&self, digest: usize, place: usize, edit: fn(&str) -> String) {
        let key = self.digest(digest).log_files[place].s3_object.clone();
        let text = String::from_utf8(self.log_file(&key)).expect("text");
        let edited = edit(&text);
        assert_ne!(edited, text, "nothing was changed");
        self.write(&key, edited.as_bytes());
    }

    /// Changes a log file, and hashes and signs everything from its digest on.
    pub fn edit_and_sign(&self, digest: usize, place: usize, edit: fn(&str) -> String) {
        self.edit(digest, place, edit);
        let mut changed = self.digest(digest);
        let key = changed.log_files[place].s3_object.clone();
        changed.log_files[place].hash_value = sha256_hex(&self.log_file(&key));
        self.sign(&changed);
        self.sign_from(digest + 1);
    }

    pub fn sign(&self, digest: &Digest) {
        let json = digest_json(digest);
        self.write(&digest.digest_s3_object, &json);
        let signature =
            hex::encode(sign(&self.base.site.key_file(), string_to_sign(digest, &json).as_bytes()));
        let metadata = serde_json::json!({ "signature": signature, "signature-algorithm": "SHA256withRSA" });
        let path = self.path(&format!("{}.meta.json", digest.digest_s3_object));
        fs::write(path, metadata.to_string()).expect("writes");
    }

    /// Makes the digests from `place` on follow the one before them.
    pub fn sign_from(&self, place: usize) {
        for place in place..self.digests().len() {
            let before = self.digest(place - 1);
            let metadata = fs::read(self.path(&format!("{}.meta.json", before.digest_s3_object)));
            let metadata: Value = serde_json::from_slice(&metadata.expect("reads")).expect("JSON");
            let mut digest = self.digest(place);
            digest.previous_digest_signature = metadata["signature"].as_str().map(str::to_owned);
            // One of the cases has a wrong hash; it is to stay the only one.
            digest.previous_digest_hash_value = Some(sha256_hex(&digest_json(&before)));
            self.sign(&digest);
        }
        // The broker's own notes are of a time before all this.
        fs::remove_file(self.journal().join("trail.json")).expect("removes");
        fs::remove_dir_all(self.journal()).expect("removes");
        fs::create_dir(self.journal()).expect("makes");
    }

    pub fn options(&self) -> VerifyOptions {
        VerifyOptions {
            keys: vec![self.base.site.public_key()],
            journal_dir: Some(self.journal()),
            ..VerifyOptions::default()
        }
    }

    pub fn verify(&self) -> Report {
        self.verify_with(self.options())
    }

    pub fn verify_with(&self, options: VerifyOptions) -> Report {
        self.run(|reader, options| Box::pin(verify_quietly(reader, options)), true, options)
    }

    /// Where its readers record what they ask of KMS.
    pub fn reader_records(&self) -> PathBuf {
        self.dir.path().join("reader-records.jsonl")
    }

    /// Runs `work` with a reader that can decrypt, or not.
    pub fn run<T>(
        &self,
        work: impl FnOnce(Arc<TrailReader>, VerifyOptions) -> Pin<Box<dyn Future<Output = T>>>,
        can_decrypt: bool,
        options: VerifyOptions,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = directory(self.dir.path().join("store")).open().await;
            let decrypter = if can_decrypt {
                let kms = self.base.site.kms().await;
                let caller = Arc::new(kms.caller().await.expect("the emulator knows us"));
                let decrypter = AuditorKms::new(Arc::new(kms), caller, self.reader_records());
                Some(Arc::new(decrypter) as Arc<dyn Decrypter>)
            } else {
                None
            };
            work(Arc::new(TrailReader::new(store, names(), decrypter)), options).await
        })
    }
}

pub async fn verify_quietly(reader: Arc<TrailReader>, options: VerifyOptions) -> Report {
    verify(&reader, &options, &mut |_| {}).await
}
