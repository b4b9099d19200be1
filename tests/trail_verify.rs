//! Proves: a trail of several hours, with restarts and kills in it, is sound, to `verify` and to the unmodified AWS CLI; each way
//! to tamper with it is found, by the AWS CLI as far as it looks, and by `verify` beyond that.

#[path = "peers/mod.rs"]
mod peers;
mod support;
#[path = "support/trail.rs"]
mod trail;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use key_broker::audit::digest::{Digest, sha256_hex};
use key_broker::audit::journal::files;
use key_broker::audit::log_file::compress;
use key_broker::audit::reader::{Decrypter, TrailReader, records};
use key_broker::audit::signature::Signer;
use key_broker::audit::store::directory::DirectoryStore;
use key_broker::audit::verify::{FindingKind, Report, Severity, Verdict, VerifyOptions, verify};
use key_broker::clock::Clock;
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use peers::{Peers, check_records, output, root};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use trail::{BUCKET, Site, TestClock, aws_kms, copy, names, objects};

#[test]
fn a_trail_of_hours_with_restarts_and_kills_is_sound() {
    for base in [plain(), encrypted()] {
        let report = base.copy().verify();
        assert_eq!((report.verdict, kinds(&report)), (Verdict::Sound, vec![]), "{report:#?}");
        // The line that was cut off by one of the kills.
        assert_eq!(report.counts.keys().collect::<Vec<_>>(), [&FindingKind::JournalNotice], "{report:#?}");
        assert!(report.digests >= 5 && report.log_files >= 6, "{report:#?}");
        assert!(report.journal_records > 0 && report.keys_used > 20, "{report:#?}");
        assert_eq!(report.kms_records + report.activity_records, report.records);
        assert_eq!(report.unrecorded_decrypts, 0);
    }
}

#[test]
fn every_record_is_delivered_once_and_is_one_to_others_too() {
    for base in [plain(), encrypted()] {
        let copy = base.copy();
        let mut all = Vec::new();
        for key in copy.log_files() {
            let text = copy.log_file(&key);
            let read: Vec<String> =
                records(&text).map(|record| record.expect("a record").to_owned()).collect();
            assert!(!read.is_empty(), "{key}");
            all.extend(read);
        }
        all.extend(support::journal_lines(&copy.journal()));
        let id = |record: &String| {
            let record: Value = serde_json::from_str(record).expect("JSON");
            record["requestID"].as_str().expect("an id").to_owned()
                + record["eventID"].as_str().expect("an id")
        };
        let ids: std::collections::HashSet<String> = all.iter().map(id).collect();
        assert!(ids.len() > 100, "{} records", ids.len());
        check_records(&all);
    }
}

#[test]
fn the_aws_cli_says_valid() {
    let copy = plain().copy();
    let Some((is_valid, said)) = copy.aws() else { return };
    assert!(is_valid && said.contains("digest files valid") && said.contains("log files valid"), "{said}");
    assert!(!said.contains("INVALID"), "{said}");
}

/// Whoever cannot sign.
#[test]
fn changed_objects_are_found() {
    let cases: [(&str, Tamper, FindingKind, Sees); 9] = [
        (
            "edited log file",
            |copy| copy.edit(1, 0, &|text| text.replace("GenerateRandom", "GenerateNothing")),
            FindingKind::LogFileHash,
            Sees::Aws,
        ),
        ("re-indented log file", |copy| copy.edit(1, 0, &reindent), FindingKind::LogFileHash, Sees::Aws),
        (
            "truncated log file",
            |copy| {
                let path = copy.path(&copy.digest(1).log_files[0].s3_object);
                let bytes = fs::read(&path).expect("reads");
                fs::write(path, &bytes[..bytes.len() / 2]).expect("writes");
            },
            FindingKind::LogFileMalformed,
            Sees::Aws,
        ),
        (
            "deleted log file",
            |copy| {
                fs::remove_file(copy.path(&copy.digest(1).log_files[0].s3_object)).expect("removes");
            },
            FindingKind::LogFileMissing,
            Sees::Aws,
        ),
        (
            "edited digest",
            |copy| {
                let mut digest = copy.digest(1);
                digest.log_files.clear();
                copy.write(&copy.digests()[1], &digest.to_json());
            },
            FindingKind::DigestSignature,
            Sees::Aws,
        ),
        (
            "moved digest",
            |copy| {
                let key = copy.digests()[1].clone();
                let elsewhere = names().digest(copy.clock.now());
                for ending in ["", ".meta.json"] {
                    let (from, to) = (format!("{key}{ending}"), format!("{elsewhere}{ending}"));
                    fs::create_dir_all(copy.path(&to).parent().expect("a folder")).expect("makes");
                    fs::rename(copy.path(&from), copy.path(&to)).expect("moves");
                }
            },
            FindingKind::DigestMoved,
            Sees::Aws,
        ),
        (
            "unsigned digest",
            |copy| {
                fs::remove_file(copy.path(&format!("{}.meta.json", copy.digests()[1]))).expect("removes");
            },
            FindingKind::DigestUnsigned,
            Sees::Aws,
        ),
        ("deleted digest", |copy| copy.remove_digest(2), FindingKind::DigestMissing, Sees::Aws),
        (
            "unreferenced log file",
            |copy| {
                let digest = copy.digest(1);
                let planted =
                    names().log_file(copy.end_of(&digest) - std::time::Duration::from_mins(10), &[7; 32]);
                copy.write(&planted, &copy.log_file(&digest.log_files[0].s3_object));
            },
            FindingKind::LogFileUnreferenced,
            Sees::OnlyUs,
        ),
    ];
    judge(&cases);
}

/// Whoever holds the signing key, and lies in the trail.
#[test]
fn what_is_signed_again_is_found() {
    let cases: [(&str, Tamper, FindingKind, Sees); 10] = [
        (
            "signed-again older digest",
            |copy| {
                let mut digest = copy.digest(1);
                digest.log_files.pop();
                digest.newest_event_time =
                    digest.log_files.iter().map(|file| file.newest_event_time.clone()).max();
                digest.oldest_event_time =
                    digest.log_files.iter().map(|file| file.oldest_event_time.clone()).min();
                copy.sign(&digest);
            },
            FindingKind::PreviousSignature,
            Sees::OnlyUs,
        ),
        (
            "wrong previousDigestHashValue",
            |copy| {
                let mut digest = copy.digest(2);
                digest.previous_digest_hash_value = Some("0".repeat(64));
                copy.sign(&digest);
                copy.sign_from(3);
            },
            FindingKind::PreviousHash,
            Sees::OnlyUs,
        ),
        (
            "gap in time",
            |copy| {
                let mut digest = copy.digest(2);
                digest.digest_start_time = digest.digest_start_time.replace(":00Z", ":07Z");
                copy.sign(&digest);
                copy.sign_from(3);
            },
            FindingKind::ChainGap,
            Sees::OnlyUs,
        ),
        (
            "malformed record",
            |copy| {
                copy.edit_and_sign(1, 0, &|text| text.replacen("\"readOnly\":true", "\"readOnly\":false", 1));
            },
            FindingKind::RecordMalformed,
            Sees::OnlyUs,
        ),
        (
            "re-indented and signed",
            |copy| copy.edit_and_sign(1, 0, &reindent),
            FindingKind::RecordMalformed,
            Sees::OnlyUs,
        ),
        (
            "use beyond max_age",
            |copy| {
                copy.edit_and_sign(1, 0, &|text| {
                    in_a_hit(text, "\"expiresAt\":\"2026-03-01T", "\"expiresAt\":\"2026-02-01T")
                });
            },
            FindingKind::UsedTooLate,
            Sees::OnlyUs,
        ),
        (
            "use beyond max_messages",
            |copy| {
                copy.edit_and_sign(1, 0, &|text| in_a_hit(text, "\"messagesUsed\":", "\"messagesUsed\":9"));
            },
            FindingKind::MessagesExceeded,
            Sees::OnlyUs,
        ),
        (
            "use beyond max_bytes",
            |copy| {
                copy.edit_and_sign(1, 0, &|text| in_a_hit(text, "\"bytesUsed\":", "\"bytesUsed\":9"));
            },
            FindingKind::BytesExceeded,
            Sees::OnlyUs,
        ),
        (
            "a draw charged as another",
            |copy| {
                copy.edit_and_sign(1, 0, &|text| in_a_hit(text, "\"messagesUsed\":2", "\"messagesUsed\":1"));
            },
            FindingKind::ChargedTwice,
            Sees::OnlyUs,
        ),
        (
            "a use of no KMS record",
            |copy| {
                copy.edit_and_sign(1, 0, &|text| {
                    text.replacen(
                        "\"kmsEventID\":\"",
                        "\"kmsEventID\":\"00000000-0000-4000-8000-000000000000\",\"was\":\"",
                        1,
                    )
                });
            },
            FindingKind::KmsRecordMissing,
            Sees::OnlyUs,
        ),
    ];
    judge(&cases);
}

#[test]
fn a_deleted_newest_digest_is_found_by_its_kept_signature_or_the_brokers_notes() {
    let kept = plain().copy().verify().newest_signature;
    let copy = plain().copy();
    copy.remove_digest(copy.digests().len() - 1);
    let options = VerifyOptions { newest_signature: kept, ..copy.options() };
    let without_journal = VerifyOptions { journal_dir: None, ..options };
    assert!(kinds(&copy.verify_with(without_journal)).contains(&FindingKind::NewestMissing));
    assert!(kinds(&copy.verify()).contains(&FindingKind::NewestMissing), "by trail.json");
    if let Some((is_valid, said)) = copy.aws() {
        assert!(is_valid, "the AWS CLI sees this now, too: say so in docs/audit.md: {said}");
    }
}

#[test]
fn the_journals_tail_is_held_against_its_chain_and_what_was_delivered() {
    let edit = |work: &dyn Fn(&Path, String) -> Option<String>| {
        let copy = plain().copy();
        let file = files(&copy.journal()).expect("a journal").pop().expect("a file").path;
        let text = fs::read_to_string(&file).expect("text");
        match work(&file, text) {
            Some(text) => fs::write(&file, text).expect("writes"),
            None => fs::remove_file(&file).expect("removes"),
        }
        kinds(&copy.verify())
    };
    assert_eq!(edit(&|_, text| Some(text.replacen("Allowed", "allowed", 1))), [FindingKind::JournalBroken]);
    let first = |text: &str| text.lines().nth(1).expect("a record").to_owned() + "\n";
    assert_eq!(edit(&|_, text| Some(text.replace(&first(&text), ""))), [FindingKind::JournalBroken]);
    assert_eq!(edit(&|_, text| Some(text.clone() + &first(&text))), [FindingKind::JournalBroken]);
    assert_eq!(edit(&|_, _| None), [FindingKind::JournalGap]);
    assert_eq!(edit(&|_, text| Some(text + "999 half a li")), [], "a line that is being written");
    let evidence = edit(&|file, text| {
        fs::write(file.with_file_name("journal-00000001.damaged"), "x").expect("writes");
        Some(text)
    });
    assert_eq!(evidence, [FindingKind::JournalEvidence]);
}

#[test]
fn an_encrypted_log_file_opens_only_in_its_place_and_with_kms() {
    let copy = encrypted().copy();
    let keys = copy.digest(0).log_files;
    let (key, other) = (&keys[0].s3_object, &copy.digest(1).log_files[0].s3_object);
    let message = fs::read(copy.path(key)).expect("reads");
    assert_eq!(message[..3], [2, 4, 0x78]);
    fs::write(copy.path(other), &message).expect("writes");
    assert!(kinds(&copy.verify()).contains(&FindingKind::LogFileMalformed));

    let copy = encrypted().copy();
    let mut message = fs::read(copy.path(key)).expect("reads");
    let middle = message.len() / 2;
    message[middle] ^= 1;
    fs::write(copy.path(key), &message).expect("writes");
    assert!(kinds(&copy.verify()).contains(&FindingKind::LogFileMalformed));

    let copy = encrypted().copy();
    let report = copy.run(|reader, options| Box::pin(verify_quietly(reader, options)), false, copy.options());
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::Locked]));
}

#[test]
fn each_decrypt_is_recorded_before_anything_is_shown() {
    let copy = encrypted().copy();
    let report = copy.verify();
    let left = fs::read_dir(copy.journal().join("inbox")).expect("an inbox");
    let records: Vec<String> =
        left.map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("text")).collect();
    assert_eq!(records.len() as u64, report.log_files);
    check_records(&records.iter().map(|record| record.trim_end().to_owned()).collect::<Vec<_>>());
    let record: Value = serde_json::from_str(&records[0]).expect("JSON");
    assert_eq!(
        (&record["eventName"], &record["userIdentity"]["invokedBy"]),
        (&"Decrypt".into(), &"key-broker".into())
    );
    let context = &record["requestParameters"]["encryptionContext"];
    assert_eq!(context["aws:cloudtrail:arn"], names().trail_arn());
    let object = context["aws:s3:arn"].as_str().expect("an ARN").trim_start_matches("arn:aws:s3:::trail/");
    assert!(copy.log_files().contains(&object.to_owned()), "{object}");

    let auditor = encrypted().copy();
    let options = VerifyOptions { journal_dir: None, ..auditor.options() };
    fs::remove_dir_all(auditor.journal()).expect("removes");
    let report = auditor.verify_with(options);
    assert_eq!((report.verdict, report.unrecorded_decrypts), (Verdict::Sound, report.log_files));
}

type Tamper = fn(&Copy);

#[derive(Clone, Copy, PartialEq)]
enum Sees {
    /// `aws cloudtrail validate-logs`, too.
    Aws,
    OnlyUs,
}

fn judge(cases: &[(&str, Tamper, FindingKind, Sees)]) {
    for (name, tamper, kind, sees) in cases {
        let copy = plain().copy();
        tamper(&copy);
        let report = copy.verify();
        assert_eq!(report.verdict, Verdict::Unsound, "{name}: {report:#?}");
        assert!(kinds(&report).contains(kind), "{name}: {report:#?}");
        if let Some((is_valid, said)) = copy.aws() {
            assert_eq!(
                (is_valid, said.contains("INVALID")),
                (*sees == Sees::OnlyUs, *sees == Sees::Aws),
                "{name}: {said}"
            );
        }
    }
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    let bad = report.findings.iter().filter(|finding| finding.severity != Severity::Note);
    let mut kinds: Vec<_> = bad.map(|finding| finding.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

fn reindent(text: &str) -> String {
    text.replacen(",\"userIdentity\"", ", \"userIdentity\"", 1)
}

/// Changes the first record of a reuse.
fn in_a_hit(text: &str, from: &str, to: &str) -> String {
    let hit = text.find("\"servedFrom\":\"CACHE\"").expect("a hit");
    let (before, after) = text.split_at(hit);
    before.to_owned() + &after.replacen(from, to, 1)
}

/// What a broker has left behind after some hours.
struct Base {
    site: Site,
    emulator: Emulator,
    /// Runs the emulator.
    _runtime: Runtime,
}

fn plain() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| Base::build(false))
}

fn encrypted() -> &'static Base {
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
        let site = Site::new(&emulator, is_encrypted);
        runtime.block_on(some_hours(&site));
        Self { site, emulator, _runtime: runtime }
    }

    fn copy(&self) -> Copy {
        let dir = tempfile::tempdir().expect("a directory");
        copy(self.site.dir.path(), dir.path());
        Copy { dir, clock: Arc::clone(&self.site.clock), base: self.emulator.endpoint_url() }
    }
}

/// 08:00 to about 14:00, with a drain, a kill, a kill between a delivery and its note, a torn line, and an empty hour.
async fn some_hours(site: &Site) {
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
struct Copy {
    dir: TempDir,
    clock: Arc<TestClock>,
    base: String,
}

impl Copy {
    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.path().join("store").join(BUCKET).join(key)
    }

    fn digests(&self) -> Vec<String> {
        objects(&self.dir.path().join("store"), "CloudTrail-Digest")
    }

    fn log_files(&self) -> Vec<String> {
        objects(&self.dir.path().join("store"), "CloudTrail")
    }

    fn digest(&self, place: usize) -> Digest {
        let key = self.digests()[place].clone();
        let read = self.run(
            move |reader, _| {
                Box::pin(async move { reader.digest(&key).await.expect("reads").expect("is there") })
            },
            false,
            VerifyOptions::default(),
        );
        read.digest
    }

    fn end_of(&self, digest: &Digest) -> time::OffsetDateTime {
        names().digest_end(&digest.digest_s3_object).expect("a digest")
    }

    fn log_file(&self, key: &str) -> Vec<u8> {
        let key = key.to_owned();
        let read = self.run(
            move |reader, _| {
                Box::pin(async move { reader.log_file(&key).await.expect("reads").expect("is there") })
            },
            true,
            VerifyOptions::default(),
        );
        read.json
    }

    fn write(&self, key: &str, json: &[u8]) {
        fs::create_dir_all(self.path(key).parent().expect("a folder")).expect("makes");
        fs::write(self.path(key), compress(json).expect("compresses")).expect("writes");
    }

    fn remove_digest(&self, place: usize) {
        let key = self.digests()[place].clone();
        fs::remove_file(self.path(&key)).expect("removes");
        fs::remove_file(self.path(&format!("{key}.meta.json"))).expect("removes");
    }

    /// Changes a log file of a digest.
    fn edit(&self, digest: usize, place: usize, edit: &dyn Fn(&str) -> String) {
        let key = self.digest(digest).log_files[place].s3_object.clone();
        let text = String::from_utf8(self.log_file(&key)).expect("text");
        let edited = edit(&text);
        assert_ne!(edited, text, "nothing was changed");
        self.write(&key, edited.as_bytes());
    }

    /// Changes a log file, and hashes and signs everything from its digest on.
    fn edit_and_sign(&self, digest: usize, place: usize, edit: &dyn Fn(&str) -> String) {
        self.edit(digest, place, edit);
        let mut changed = self.digest(digest);
        let key = changed.log_files[place].s3_object.clone();
        changed.log_files[place].hash_value = sha256_hex(&self.log_file(&key));
        self.sign(&changed);
        self.sign_from(digest + 1);
    }

    fn signer(&self) -> Signer {
        let pem = fs::read(self.dir.path().join("signing.pem")).expect("reads");
        Signer::from_pem(&pem).expect("a key")
    }

    fn sign(&self, digest: &Digest) {
        let json = digest.to_json();
        self.write(&digest.digest_s3_object, &json);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let signed = runtime.block_on(self.signer().sign(digest.string_to_sign(&json).as_bytes()));
        let signature = hex::encode(signed.expect("signs"));
        let metadata = serde_json::json!({ "signature": signature, "signature-algorithm": "SHA256withRSA" });
        let path = self.path(&format!("{}.meta.json", digest.digest_s3_object));
        fs::write(path, metadata.to_string()).expect("writes");
    }

    /// Makes the digests from `place` on follow the one before them.
    fn sign_from(&self, place: usize) {
        for place in place..self.digests().len() {
            let before = self.digest(place - 1);
            let metadata = fs::read(self.path(&format!("{}.meta.json", before.digest_s3_object)));
            let metadata: Value = serde_json::from_slice(&metadata.expect("reads")).expect("JSON");
            let mut digest = self.digest(place);
            digest.previous_digest_signature = metadata["signature"].as_str().map(str::to_owned);
            // One of the cases has a wrong hash; it is to stay the only one.
            digest.previous_digest_hash_value = Some(sha256_hex(&before.to_json()));
            self.sign(&digest);
        }
        // The broker's own notes are of a time before all this.
        fs::remove_file(self.journal().join("trail.json")).expect("removes");
        fs::remove_dir_all(self.journal()).expect("removes");
        fs::create_dir(self.journal()).expect("makes");
    }

    fn options(&self) -> VerifyOptions {
        VerifyOptions {
            keys: vec![self.signer().public_key().clone()],
            journal_dir: Some(self.journal()),
            ..VerifyOptions::default()
        }
    }

    fn verify(&self) -> Report {
        self.verify_with(self.options())
    }

    fn verify_with(&self, options: VerifyOptions) -> Report {
        self.run(|reader, options| Box::pin(verify_quietly(reader, options)), true, options)
    }

    /// Runs `work` with a reader that can decrypt, or not.
    fn run<T>(
        &self,
        work: impl FnOnce(Arc<TrailReader>, VerifyOptions) -> std::pin::Pin<Box<dyn Future<Output = T>>>,
        can_decrypt: bool,
        options: VerifyOptions,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Arc::new(DirectoryStore::new(&self.dir.path().join("store"), BUCKET));
            let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
            let decrypter = if can_decrypt {
                let kms = aws_kms(&self.base, &clock).await;
                let caller = Arc::new(kms.caller().await.expect("the emulator knows us"));
                Some(Decrypter::new(Arc::new(kms), caller, Some(self.journal())))
            } else {
                None
            };
            work(Arc::new(TrailReader::new(store, names(), decrypter)), options).await
        })
    }

    /// What the AWS CLI says, and whether that is valid; none where it is not there.
    fn aws(&self) -> Option<(bool, String)> {
        let oracle = root().join("../shared/oracles/aws-validate-logs");
        if !oracle.exists() {
            println!(
                "skipped: aws-validate-logs does not stand beside the repository, so the AWS CLI is not asked"
            );
            return None;
        }
        let peers = Peers::install(&["validate-logs"])?;
        let key = self.dir.path().join("public.pem");
        fs::write(&key, self.signer().public_key().to_pem()).expect("writes");
        let mut command = peers.command("validate-logs/bin/python");
        command.arg(oracle).arg("--tree").arg(self.dir.path().join("store")).args(["--bucket", BUCKET]);
        command.args(["--trail-arn", &names().trail_arn()]).arg("--public-key").arg(key);
        command.args(["--start", "2026-03-01T00:00:00Z", "--end", "2026-03-02T00:00:00Z"]);
        let said = output(&mut command);
        let text =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(matches!(said.status.code(), Some(0 | 1)), "{text}");
        Some((said.status.success(), text))
    }
}

async fn verify_quietly(reader: Arc<TrailReader>, options: VerifyOptions) -> Report {
    verify(&reader, &options, &mut |_| {}).await
}
