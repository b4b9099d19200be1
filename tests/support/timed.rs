//! A real broker that delivers a trail into a directory, by a clock of the test's own: it runs for hours in seconds, and may be
//! stopped, or killed at any moment.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use key_broker::{
    AuditConfig, AwsKms, AwsSettings, Broker, Listen, Parts, Policy, Rule, Telemetry, UnixAddress,
};
use key_broker_client::{
    Client, Decrypt, DecryptMessage, Encrypt, EncryptMessage, GenerateDataKey, GenerateDataKeyPair,
    KeyPairSpec, ReEncrypt,
};
use key_broker_core::clock::Clock as _;
use key_broker_core::{Bounds, KeyId};
use key_broker_trail::delivery::{SigningConfig, StoreConfig, TrailConfig, public_key_of};
use key_broker_trail::journal::{Durability, JournalConfig};
use key_broker_trail::{PublicKey, Remainder, TrailNames};
use kms_emulator::Emulator;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::TestClock;
use super::formats::{files, sha256_hex};
use super::signing::write_key;
use super::{Setup, aws_kms, aws_settings, eventually, reuse, rule};

pub const BUCKET: &str = "trail";
/// Data keys serve five messages, a thousand bytes, for five minutes.
pub const MESSAGES: u64 = 5;

/// A place where one broker after the other runs.
pub struct TimedSite {
    pub dir: TempDir,
    pub clock: Arc<TestClock>,
    settings: AwsSettings,
    is_encrypted: bool,
}

/// A broker at work.
pub struct Running<'a> {
    site: &'a TimedSite,
    drain: CancellationToken,
    serving: JoinHandle<Remainder>,
}

impl TimedSite {
    /// Before this KMS; log files are encrypted under alias/dev, or not.
    pub fn new(emulator: &Emulator, is_encrypted: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        write_key(dir.path());
        let clock = TestClock::at(datetime!(2026-03-01 08:00 UTC));
        name_trail(&dir.path().join("journal"), &names().trail, clock.now());
        Self { dir, clock, settings: aws_settings(emulator), is_encrypted }
    }

    pub async fn start(&self) -> Running<'_> {
        let kms = self.kms().await;
        let caller = kms.caller().await.expect("the emulator knows us");
        let setup = Setup::default();
        let bounds = Bounds { max_age: Duration::from_mins(5), max_messages: MESSAGES, max_bytes: 1_000 };
        let parts = Parts {
            listen: Listen {
                unix: Some(UnixAddress { path: self.socket(), mode: 0o600, gid: None }),
                tls: None,
                vsock: None,
                insecure_tcp: None,
                admin: None,
            },
            identities: setup.identities,
            policies: Policy::parse(POLICY).expect("a policy").into(),
            bindings: setup.bindings,
            trust: setup.trust,
            audit: AuditConfig {
                journal: JournalConfig::new(self.journal(), Durability::Write, Duration::from_secs(10)),
                trail: Some(self.trail()),
                stdout: false,
                redaction: None,
            },
            reuse: reuse(Rule { bounds, ..rule() }),
            suites_without_commitment: false,
            limits: setup.limits,
            kms: Arc::new(kms),
            guard: setup.guard,
            caller,
            telemetry: Telemetry::default(),
            configuration_sha256: None,
            clock: self.clock.clone(),
        };
        let drain = CancellationToken::new();
        let broker = Broker::start(parts, drain.clone()).await.expect("the broker starts");
        let running = Running { site: self, drain, serving: tokio::spawn(broker.serve()) };
        // Its trail counts time from when it runs, which was before it serves. A new trail's first digest comes before that, too.
        let client = running.client().await;
        let serves = async {
            while !client.is_serving().await.expect("it answers") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), serves).await.expect("it serves");
        running
    }

    /// The KMS, asked by somebody else.
    pub async fn kms(&self) -> AwsKms {
        aws_kms(self.settings.clone(), self.clock.clone()).await
    }

    fn trail(&self) -> TrailConfig {
        TrailConfig {
            name: "key-broker".into(),
            store: directory(self.store()),
            prefix: String::new(),
            delivery_interval: Duration::from_mins(20),
            digest_interval: Duration::from_hours(1),
            kms_key: self.is_encrypted.then(|| KeyId::parse("alias/dev").expect("a key id")),
            signing: SigningConfig::File(self.key_file()),
        }
    }

    /// What digests are signed with.
    pub fn key_file(&self) -> PathBuf {
        self.dir.path().join("signing.pem")
    }

    /// What their signatures are checked with.
    pub fn public_key(&self) -> PublicKey {
        public_key_of(&self.key_file()).expect("a key")
    }

    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// The store's root.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

impl Running<'_> {
    pub async fn client(&self) -> Client {
        Client::unix(self.site.socket()).await.expect("the broker listens")
    }

    /// Calls of every kind, with every outcome that needs no waiting.
    pub async fn calls(&self) {
        let client = self.client().await;
        let request = || GenerateDataKey::aes_256("alias/dev").context("tenant", "acme");
        let mut blob = Vec::new();
        for _ in 0..MESSAGES + 2 {
            let key = client.generate_data_key(request().declare_use(1, 100)).await.expect("a key");
            blob = key.ciphertext_blob.to_vec();
        }
        client.generate_data_key(request().declare_use(1, 900)).await.expect("more bytes than are left");
        client.generate_data_key(request().declare_use(MESSAGES + 1, 0)).await.expect("a key of its own");
        client.generate_data_key(request().fresh()).await.expect("a key of its own");
        client.generate_data_key(request().max_messages(2)).await.expect("a tighter bound");
        client.generate_data_key_without_plaintext(request().into()).await.expect("a key");
        for _ in 0..2 {
            client.decrypt(Decrypt::new(blob.clone()).context("tenant", "acme")).await.expect("decrypts");
        }
        client.decrypt(Decrypt::new(blob).context("tenant", "other")).await.expect_err("another context");
        client.generate_random(32).await.expect("random");
        client.describe_key("alias/dev").await.expect("known");
        client.generate_data_key(GenerateDataKey::aes_256("alias/secret")).await.expect_err("denied");
        client.generate_data_key(GenerateDataKey::aes_256("")).await.expect_err("malformed");
        client.generate_data_key(GenerateDataKey::aes_256("alias/none")).await.expect_err("unknown");
        messages(&client).await;
        encryptions(&client).await;
    }

    /// Lets time pass, until what is due then (`what` is `CloudTrail` or `CloudTrail-Digest`) is delivered.
    pub async fn pass(&self, minutes: u64, what: &str) {
        let count = || objects(&self.site.store(), what).len();
        let before = count();
        self.site.clock.pass(Duration::from_mins(minutes));
        eventually(&format!("another {what}"), || count() > before).await;
        // What is delivered is noted a moment later.
        let newest = objects(&self.site.store(), what).pop().expect("one");
        eventually("a note of it", || {
            let noted = fs::read_to_string(self.site.journal().join("trail.json")).unwrap_or_default();
            noted.contains(&newest) && noted.contains("\"sealed\":null")
        })
        .await;
    }

    /// Stops it as an operator does.
    pub async fn drain(self) {
        self.drain.cancel();
        self.serving.await.expect("the broker does not panic");
    }

    /// As if it had been killed now: whatever it does from here on never was.
    pub async fn kill(self) {
        let (site, kept) = (self.site, tempfile::tempdir().expect("a directory"));
        copy(&site.journal(), &kept.path().join("journal"));
        copy(&site.store(), &kept.path().join("store"));
        self.drain().await;
        for (name, place) in [("journal", site.journal()), ("store", site.store())] {
            fs::remove_dir_all(&place).expect("removes");
            copy(&kept.path().join(name), &place);
        }
    }

    /// As if it had been killed after a log file was stored and before that was noted.
    pub async fn kill_while_it_delivers(self) {
        let (site, kept) = (self.site, tempfile::tempdir().expect("a directory"));
        copy(&site.journal(), kept.path());
        self.pass(20, "CloudTrail").await;
        let newest = objects(&site.store(), "CloudTrail").pop().expect("a log file");
        let (_, minute) = newest.split_once("_CloudTrail_us-west-2_").expect("a log file");
        let minute = minute[..14].to_owned();
        let notes = |dir: &Path| -> Value {
            serde_json::from_slice(&fs::read(dir.join("trail.json")).expect("reads")).expect("JSON")
        };
        let names = |notes: &Value| {
            let files = notes["logFiles"].as_array().expect("a list");
            files.iter().find(|file| file["s3Object"] == newest.as_str()).cloned()
        };
        let mut found = None;
        eventually("the log file is noted", || {
            found = names(&notes(&site.journal()));
            found.is_some()
        })
        .await;
        self.kill().await;
        fs::remove_dir_all(site.journal()).expect("removes");
        copy(kept.path(), &site.journal());
        if site.is_encrypted {
            // What an encrypted log file is to be is noted before it is stored.
            let stored = sha256_hex(&fs::read(site.store().join(BUCKET).join(&newest)).expect("reads"));
            let file = found.expect("noted");
            let mut before = notes(&site.journal());
            before["storing"] = serde_json::json!({
                "object": newest, "sha256": stored, "dataKeyRequestId": file["dataKeyRequestID"],
            });
            fs::write(site.journal().join("trail.json"), before.to_string()).expect("writes");
        }
        let open = files(&site.journal()).expect("a journal").pop().expect("a file");
        let closed = open.path.with_file_name(format!(
            "journal-{:08}-{}.closed",
            open.number,
            minute.replace('Z', "00Z")
        ));
        fs::rename(&open.path, closed).expect("renames");
    }
}

/// The store below `root`.
/// Messages, whole and in parts, that end well and that do not.
async fn messages(client: &Client) {
    let request = || EncryptMessage::new("alias/dev", vec![7; 500]).context("tenant", "acme");
    let mut message = Bytes::new();
    for _ in 0..3 {
        message = client.encrypt_message(request()).await.expect("encrypted").message;
    }
    for _ in 0..2 {
        client.decrypt_message(DecryptMessage::new(message.clone())).await.expect("decrypted");
    }
    let cut = message.slice(..message.len() - 1);
    client.decrypt_message(DecryptMessage::new(cut)).await.expect_err("cut off");
    let other = DecryptMessage::new(message).context("tenant", "other");
    client.decrypt_message(other).await.expect_err("another context");
    for declared in [None, Some(500), Some(400)] {
        let parts = futures_util::stream::iter(vec![Bytes::from(vec![7; 250]); 2]);
        let mut stream = client.encrypt_message_stream(&request(), declared, parts).await.expect("begun");
        let ended = loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert_eq!(ended.is_ok(), declared != Some(400));
    }
}

/// What KMS encrypts itself.
async fn encryptions(client: &Client) {
    let encrypted = client.encrypt(Encrypt::new("alias/dev", "secret").context("tenant", "acme")).await;
    let blob = encrypted.expect("encrypted").ciphertext_blob;
    let again = ReEncrypt::new(blob, "alias/dev").source_context("tenant", "acme");
    client.re_encrypt(again.clone().destination_context("tenant", "new")).await.expect("encrypted anew");
    client.re_encrypt(again.source_context("tenant", "other")).await.expect_err("another context");
    let pair = || GenerateDataKeyPair::new("alias/dev", KeyPairSpec::EccNistP256).context("tenant", "acme");
    client.generate_data_key_pair(pair()).await.expect("a pair");
    client.generate_data_key_pair_without_plaintext(pair()).await.expect("a pair");
}

pub fn directory(root: PathBuf) -> StoreConfig {
    StoreConfig::Directory { root, bucket: BUCKET.into() }
}

/// Notes of a journal whose trail has this name, as if it had made it itself.
pub fn name_trail(journal: &Path, trail: &str, now: OffsetDateTime) {
    fs::DirBuilder::new().mode(0o700).create(journal).expect("makes");
    let start = now.unix_timestamp() - 1;
    let notes = serde_json::json!({ "version": 1, "trail": trail, "start": start, "logFiles": [] });
    fs::write(journal.join("trail.json"), notes.to_string()).expect("writes");
}

pub fn names() -> TrailNames {
    TrailNames {
        account_id: "111122223333".into(),
        region: "us-west-2".into(),
        trail: "key-broker-000000000000".into(),
        bucket: BUCKET.into(),
        prefix: String::new(),
    }
}

/// The keys of the objects of the trail, log files (`CloudTrail`) or digests (`CloudTrail-Digest`), in order.
pub fn objects(store: &Path, what: &str) -> Vec<String> {
    let bucket = store.join(BUCKET);
    let mut keys = Vec::new();
    let mut folders = vec![bucket.join(format!("AWSLogs/111122223333/{what}"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".json.gz") {
                keys.push(path.strip_prefix(&bucket).expect("below").to_str().expect("text").to_owned());
            }
        }
    }
    keys.sort();
    keys
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                // A running broker writes a file under another name and renames it.
                Err(gone) if gone.kind() == ErrorKind::NotFound => {}
                copied => assert!(copied.is_ok(), "{}: {copied:?}", entry.path().display()),
            }
        }
    }
}

const POLICY: &str = r#"
permit(principal is Workload, action, resource);
forbid(principal, action, resource in Alias::"alias/secret");
"#;
