//! Proves: a trail of several hours, with restarts and kills in it, is sound, to `verify` and to the unmodified AWS CLI; each way
//! to tamper with it is found, by the AWS CLI as far as it looks, and by `verify` beyond that.

mod peers;
mod support;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use key_broker_client::GenerateDataKey;
use key_broker_trail::record::record_time;
use key_broker_trail::verify::{FindingKind, Report, Severity, Verdict, VerifyOptions, verify};
use key_broker_trail::{TrailReader, records};
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use peers::{Peers, check_records, output, root};
use serde_json::Value;
use support::formats::{digest_json, files};
use support::tampered::{Copy, encrypted, plain, verify_quietly};
use support::timed::{BUCKET, TimedSite, directory, names};

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
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn every_record_is_there_once_and_is_one_to_others_too() {
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
        let id =
            |record: &String| serde_json::from_str::<Value>(record).expect("JSON")["eventID"].to_string();
        let ids: HashSet<String> = all.iter().map(id).collect();
        assert!(ids.len() > 100, "{} records", ids.len());
        assert_eq!(ids.len() as u64, copy.verify().records);
        check_records(&all);
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_aws_cli_says_valid() {
    let (is_valid, said) = aws(&plain().copy());
    assert!(is_valid && said.contains("digest files valid") && said.contains("log files valid"), "{said}");
    assert!(!said.contains("INVALID"), "{said}");
}

/// Whoever cannot sign.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn changed_log_files_are_found() {
    found("edited", FindingKind::LogFileHash, Sees::Aws, |copy| {
        copy.edit(1, 0, |text| text.replace("GenerateRandom", "GenerateNothing"));
    });
    found("re-indented", FindingKind::LogFileHash, Sees::Aws, |copy| copy.edit(1, 0, reindent));
    found("truncated", FindingKind::LogFileMalformed, Sees::Aws, |copy| {
        let path = copy.path(&copy.digest(1).log_files[0].s3_object);
        let bytes = fs::read(&path).expect("reads");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("writes");
    });
    found("deleted", FindingKind::LogFileMissing, Sees::Aws, |copy| {
        fs::remove_file(copy.path(&copy.digest(1).log_files[0].s3_object)).expect("removes");
    });
    found("in no digest", FindingKind::LogFileUnreferenced, Sees::OnlyUs, |copy| {
        let second = record_time(copy.end(1) - Duration::from_mins(10)).replace(['-', ':'], "");
        let genuine = copy.digest(1).log_files[0].s3_object.clone();
        let (place, _) = genuine.rsplit_once("_2026").expect("a time");
        let planted = format!("{place}_{}Z_PLANTEDPLANTED00.json.gz", &second[..13]);
        copy.write(&planted, &copy.log_file(&copy.digest(1).log_files[0].s3_object));
    });
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn changed_digests_are_found() {
    found("edited", FindingKind::DigestSignature, Sees::Aws, |copy| {
        let mut digest = copy.digest(1);
        digest.log_files.clear();
        copy.write(&copy.digests()[1], &digest_json(&digest));
    });
    found("moved", FindingKind::DigestMoved, Sees::Aws, |copy| {
        let key = copy.digests()[1].clone();
        let (start, _) = key.rsplit_once('_').expect("a time");
        let now = record_time(copy.base.site.now()).replace(['-', ':'], "");
        let elsewhere = format!("{start}_{now}.json.gz");
        for ending in ["", ".meta.json"] {
            let (from, to) = (format!("{key}{ending}"), format!("{elsewhere}{ending}"));
            fs::rename(copy.path(&from), copy.path(&to)).expect("moves");
        }
    });
    found("unsigned", FindingKind::DigestUnsigned, Sees::Aws, |copy| {
        fs::remove_file(copy.path(&format!("{}.meta.json", copy.digests()[1]))).expect("removes");
    });
    found("deleted", FindingKind::DigestMissing, Sees::Aws, |copy| copy.remove_digest(2));
}

/// Whoever holds the signing key.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn digests_that_are_signed_again_are_found() {
    found("an older one", FindingKind::PreviousSignature, Sees::OnlyUs, |copy| {
        let mut digest = copy.digest(1);
        digest.log_files.clear();
        (digest.newest_event_time, digest.oldest_event_time) = (None, None);
        copy.sign(&digest);
    });
    found("previousDigestHashValue", FindingKind::PreviousHash, Sees::OnlyUs, |copy| {
        let mut digest = copy.digest(2);
        digest.previous_digest_hash_value = Some("0".repeat(64));
        copy.sign(&digest);
        copy.sign_from(3);
    });
    found("gap in time", FindingKind::ChainGap, Sees::OnlyUs, |copy| {
        let mut digest = copy.digest(2);
        digest.digest_start_time = record_time(copy.end(1) + Duration::from_secs(7));
        copy.sign(&digest);
        copy.sign_from(3);
    });
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn records_that_are_hashed_and_signed_again_are_found() {
    let forged = |name, kind, edit: fn(&str) -> String| {
        found(name, kind, Sees::OnlyUs, |copy| copy.edit_and_sign(1, 0, edit));
    };
    forged("malformed", FindingKind::RecordMalformed, |text| {
        text.replacen("\"readOnly\":true", "\"readOnly\":false", 1)
    });
    forged("re-indented", FindingKind::RecordMalformed, reindent);
    forged("beyond max_age", FindingKind::UsedTooLate, |text| {
        in_a_hit(text, "\"expiresAt\":\"2026-03-01T", "\"expiresAt\":\"2026-02-01T")
    });
    forged("beyond max_messages", FindingKind::MessagesExceeded, |text| {
        in_a_hit(text, "\"messagesUsed\":", "\"messagesUsed\":9")
    });
    forged("beyond max_bytes", FindingKind::BytesExceeded, |text| {
        in_a_hit(text, "\"bytesUsed\":", "\"bytesUsed\":9")
    });
    forged("charged as another", FindingKind::ChargedTwice, |text| {
        in_a_hit(text, "\"messagesUsed\":2", "\"messagesUsed\":1")
    });
    forged("of no KMS record", FindingKind::KmsRecordMissing, |text| {
        let (name, other) = ("\"kmsEventID\":\"", "00000000-0000-4000-8000-000000000000\",\"was\":\"");
        text.replacen(name, &format!("{name}{other}"), 1)
    });
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_deleted_newest_digest_is_found_by_its_kept_signature_or_the_brokers_notes() {
    let kept = plain().copy().verify().newest_signature;
    let copy = plain().copy();
    copy.remove_digest(copy.digests().len() - 1);
    let without_journal =
        || VerifyOptions { newest_signature: kept.clone(), journal_dir: None, ..copy.options() };
    assert!(kinds(&copy.verify_with(without_journal())).contains(&FindingKind::NewestMissing));
    assert!(kinds(&copy.verify()).contains(&FindingKind::NewestMissing), "by trail.json");
    let (is_valid, said) = aws(&copy);
    assert!(is_valid, "the AWS CLI sees this now, too: say so in docs/audit.md: {said}");
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
    let key = copy.digest(1).log_files[0].s3_object.clone();
    let other = copy.digest(2).log_files[0].s3_object.clone();
    let message = fs::read(copy.path(&key)).expect("reads");
    assert_eq!(message[..3], [2, 4, 0x78]);
    fs::write(copy.path(&other), &message).expect("writes");
    assert!(kinds(&copy.verify()).contains(&FindingKind::LogFileMalformed));

    let copy = encrypted().copy();
    let mut flipped = message;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(copy.path(&key), &flipped).expect("writes");
    assert!(kinds(&copy.verify()).contains(&FindingKind::LogFileMalformed));

    let copy = encrypted().copy();
    let report = copy.run(|reader, options| Box::pin(verify_quietly(reader, options)), false, copy.options());
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::Locked]));
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn each_decrypt_is_recorded_before_anything_is_shown() {
    let copy = encrypted().copy();
    let report = copy.verify();
    let records = fs::read_to_string(copy.reader_records()).expect("text");
    let records: Vec<String> = records.lines().map(str::to_owned).collect();
    assert_eq!(records.len() as u64, report.log_files);
    check_records(&records);
    let record: Value = serde_json::from_str(&records[0]).expect("JSON");
    let asked = (&record["eventName"], &record["userIdentity"]["invokedBy"]);
    assert_eq!(asked, (&"Decrypt".into(), &"key-broker".into()));
    let context = &record["requestParameters"]["encryptionContext"];
    assert_eq!(context["aws:cloudtrail:arn"], names().trail_arn());
    let object = context["aws:s3:arn"].as_str().expect("an ARN").trim_start_matches("arn:aws:s3:::trail/");
    assert!(copy.log_files().contains(&object.to_owned()), "{object}");

    let auditor = encrypted().copy();
    let options = VerifyOptions { journal_dir: None, ..auditor.options() };
    fs::remove_dir_all(auditor.journal()).expect("removes");
    assert_eq!(auditor.verify_with(options).verdict, Verdict::Sound);

    let unwritable = encrypted().copy();
    fs::create_dir(unwritable.reader_records()).expect("in the way");
    let report = unwritable.verify();
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::Locked]));
}

/// Every moment of a broker that is called and delivers all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trail_that_grows_meanwhile_is_never_called_unsound() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let site = TimedSite::new(&emulator, false);
    let broker = site.start().await;
    let client = broker.client().await;
    let (stop, stopped) = tokio::sync::watch::channel(());
    let calls = tokio::spawn(async move {
        while stopped.has_changed().is_ok() {
            // One of them may lose its time to the jumping clock.
            let _ = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let options = || VerifyOptions {
        keys: vec![site.public_key()],
        journal_dir: Some(site.journal()),
        ..VerifyOptions::default()
    };
    let mut verdicts = Vec::new();
    for _ in 0..15 {
        site.clock.pass(Duration::from_mins(20));
        for wait in [0, 90, 20] {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let reader = TrailReader::new(directory(site.store()).open().await, names(), None);
            let report = verify(&reader, &options(), &mut |_| {}).await;
            assert_ne!(report.verdict, Verdict::Unsound, "{report:#?}");
            verdicts.push(report.verdict);
        }
    }
    drop(stop);
    calls.await.expect("no panic");
    broker.drain().await;
    // The first ones came before any digest.
    assert!(verdicts.iter().filter(|verdict| **verdict == Verdict::Sound).count() > 30, "{verdicts:?}");
}

#[derive(Clone, Copy, PartialEq)]
enum Sees {
    /// `aws cloudtrail validate-logs`, too.
    Aws,
    OnlyUs,
}

/// Tampers with a trail that is not encrypted; `verify` has to find this kind of thing.
fn found(name: &str, kind: FindingKind, sees: Sees, tamper: impl FnOnce(&Copy)) {
    let copy = plain().copy();
    tamper(&copy);
    let report = copy.verify();
    assert_eq!(report.verdict, Verdict::Unsound, "{name}: {report:#?}");
    assert!(kinds(&report).contains(&kind), "{name}: {report:#?}");
    let (is_valid, said) = aws(&copy);
    let expected = (sees == Sees::OnlyUs, sees == Sees::Aws);
    assert_eq!((is_valid, said.contains("INVALID")), expected, "{name}: {said}");
}

/// The kinds that speak against the trail.
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

/// Whether the AWS CLI finds a trail valid, and what it says.
fn aws(copy: &Copy) -> (bool, String) {
    let peers = Peers::install(&["validate-logs"]);
    let judge = root().join("tests/judges/aws-validate-logs");
    let key = copy.dir.path().join("public.pem");
    fs::write(&key, copy.base.site.public_key().to_pem()).expect("writes");
    let mut command = peers.command("validate-logs/bin/python");
    command.arg(judge).arg("--tree").arg(copy.dir.path().join("store")).args(["--bucket", BUCKET]);
    command.args(["--trail-arn", &names().trail_arn()]).arg("--public-key").arg(key);
    command.args(["--start", "2026-03-01T00:00:00Z", "--end", "2026-03-02T00:00:00Z"]);
    let said = output(&mut command);
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(matches!(said.status.code(), Some(0 | 1)), "{text}");
    (said.status.success(), text)
}
