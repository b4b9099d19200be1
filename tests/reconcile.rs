//! Proves: `key-broker audit reconcile` joins the trail of a real broker with AWS's records in any form, names what one side lacks, tells how
//! long a key that was taken away was served, and accuses nobody of what it could not read.

#[path = "support/audit_snapshot.rs"]
mod audit_snapshot;
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::dev_folder::{Folder, stdout_json, text};
use support::formats::compress;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[test]
fn reconcile_joins_with_awss_records_and_names_what_is_missing_on_either_side() {
    let folder = Folder::copy();
    let ours = folder.kms_records();
    let aws = |records: &[Value]| {
        let place = folder.path().join("aws/2026");
        fs::create_dir_all(&place).expect("a folder");
        fs::write(place.join("log.json"), json!({ "Records": awss(records) }).to_string()).expect("writes");
        folder.path().join("aws")
    };
    let reconcile = |records: &[Value], more: &[&str]| {
        let place = aws(records);
        let place = place.to_str().expect("a path");
        folder.audit("reconcile", &[&["--lag-minutes", "0", "--cloudtrail", place], more].concat())
    };
    let same = reconcile(&ours, &[]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
    snapshot("reconcile_matched", &text(&same.stdout));

    let mut changed = ours.clone();
    let at = changed.iter().position(|record| record["eventName"] == "GenerateRandom").expect("one");
    changed.remove(at);
    changed[1]["requestParameters"]["encryptionContext"] = json!({ "tenant": "evil" });
    let mut stolen = changed[0].clone();
    stolen["requestID"] = "5f1b8b0e-3b0a-4c57-9a51-111111111111".into();
    stolen["eventID"] = "5f1b8b0e-3b0a-4c57-9a51-222222222222".into();
    stolen["sourceIPAddress"] = "203.0.113.7".into();
    stolen["userAgent"] = "stolen\u{1b}[2J".into();
    changed.push(stolen);
    let different = reconcile(&changed, &[]);
    assert_eq!(different.status.code(), Some(1));
    snapshot("reconcile_unmatched", &text(&different.stdout));
    let json: Value = serde_json::from_slice(&reconcile(&changed, &["--json"]).stdout).expect("JSON");
    let count = |list: &str| json[list].as_array().expect("a list").len();
    assert_eq!(
        (&json["verdict"], count("missingFromAws"), count("missingFromTrail"), count("differences")),
        (&json!("unmatched"), 1, 1, 1)
    );

    let place = aws(&ours);
    fs::write(place.join("broken.json.gz"), "broken").expect("writes");
    let unread =
        folder.audit("reconcile", &["--lag-minutes", "0", "--cloudtrail", place.to_str().expect("a path")]);
    assert_eq!(unread.status.code(), Some(2));
    assert!(text(&unread.stderr).contains("broken.json.gz"), "{}", text(&unread.stderr));
    let new = folder.audit("reconcile", &["--cloudtrail", place.join("2026").to_str().expect("a path")]);
    assert_eq!(new.status.code(), Some(0), "what both have is matched however new");
    let nothing = folder.audit("reconcile", &["--cloudtrail", "/nonexistent"]);
    assert_eq!(nothing.status.code(), Some(64));
    let itself = folder.path().join("itself");
    fs::create_dir(&itself).expect("a folder");
    fs::write(itself.join("log.json"), json!({ "Records": ours }).to_string()).expect("writes");
    let itself =
        folder.audit("reconcile", &["--lag-minutes", "0", "--cloudtrail", itself.to_str().expect("a path")]);
    assert_eq!(itself.status.code(), Some(2), "{}", text(&itself.stdout));
    assert!(text(&itself.stdout).contains("the trail's own records"), "{}", text(&itself.stdout));
}

/// A key that AWS's records say was disabled is held against what the broker promised when it started.
#[test]
fn reconcile_tells_how_long_a_key_that_was_taken_away_was_served() {
    let folder = Folder::copy();
    let ours = folder.kms_records();
    let draw = |record: &&Value| {
        record["eventName"] == "GenerateDataKey" && record["userIdentity"]["invokedBy"].is_null()
    };
    let last = ours.iter().rfind(draw).expect("a data key");
    let used = last["eventTime"].as_str().expect("a time");
    let used = OffsetDateTime::parse(used, &Rfc3339).expect("a time");
    let reconciled = |seconds: i64, more: &[&str]| {
        let disabled = json!({
            "eventVersion": "1.08", "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/Alice" },
            "eventTime": (used - time::Duration::seconds(seconds)).format(&Rfc3339).expect("a time"),
            "eventSource": "kms.amazonaws.com", "eventName": "DisableKey", "awsRegion": "us-west-2", "userAgent": "AWS Internal",
            "requestParameters": { "keyId": "1234abcd-12ab-34cd-56ef-1234567890ab" }, "responseElements": null,
            "requestID": "12f48554-bb04-4991-9cfc-e7e85f68eda0", "eventID": "1ba5d1d4-1fbc-4a5e-a1e1-1f1b4bd5d5d5", "readOnly": false,
            "resources": last["resources"], "eventType": "AwsApiCall", "recipientAccountId": "111122223333",
        });
        let file = folder.path().join("aws.json");
        let records = [awss(&ours), vec![disabled]].concat();
        fs::write(&file, json!({ "Records": records }).to_string()).expect("writes");
        let file = file.to_str().expect("a path");
        folder.audit("reconcile", &[&["--lag-minutes", "0", "--cloudtrail", file], more].concat())
    };
    // 60 s is the broker's promise, five minutes are KMS's own.
    let held = reconciled(300, &[]);
    assert_eq!(held.status.code(), Some(0), "{}", text(&held.stdout));
    let late = reconciled(400, &[]);
    assert_eq!(late.status.code(), Some(1), "{}", text(&late.stdout));
    // The uses of one data key may be of two seconds.
    snapshot("reconcile_taken_away", &text(&late.stdout).replace("401 s", "400 s"));
    let sooner = reconciled(70, &["--propagation", "0", "--json"]);
    let told: Value = serde_json::from_slice(&sooner.stdout).expect("JSON");
    assert_eq!((sooner.status.code(), &told["takings"][0]["verdict"]), (Some(1), &json!("late")), "{told:#}");
}

/// AWS's records of the same calls: each has an id of its own.
fn awss(records: &[Value]) -> Vec<Value> {
    let mut records = records.to_vec();
    for record in &mut records {
        let id = record["eventID"].as_str().unwrap_or_default();
        record["eventID"] =
            format!("{}{}", &id[..id.len() - 1], if id.ends_with('a') { 'b' } else { 'a' }).into();
    }
    records
}

/// The store keeps back a log file, or a digest: the calls of that time may be in it, and nobody is accused of them.
#[test]
fn what_the_store_keeps_back_accuses_nobody() {
    let newest = |files: Vec<PathBuf>| {
        let mut objects = files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "gz"));
        objects.next_back().expect("an object")
    };
    let digest = |folder: &Folder| newest(folder.files("CloudTrail-Digest"));
    let log_file = |folder: &Folder| newest(folder.log_files());
    let kept_back: [&dyn Fn(&Folder) -> PathBuf; 2] = [&digest, &log_file];
    for kept_back in kept_back {
        let folder = Folder::copy();
        let ours = folder.kms_records();
        let file = kept_back(&folder);
        // A link to itself: it is listed, and cannot be opened.
        fs::remove_file(&file).expect("removes");
        symlink(&file, &file).expect("a link");
        let reconcile = |records: &[Value], more: &[&str]| {
            let aws = folder.path().join("aws.json");
            fs::write(&aws, json!({ "Records": records }).to_string()).expect("writes");
            let place = aws.to_str().expect("a path");
            folder.audit("reconcile", &[&["--lag-minutes", "0", "--cloudtrail", place], more].concat())
        };
        let aws = awss(&ours);
        let said = reconcile(&aws, &["--json"]);
        let told: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        assert_eq!((said.status.code(), &told["verdict"]), (Some(2), &json!("cannotTell")), "{told:#}");
        assert_eq!(told["missingFromTrail"], json!([]), "{told:#}");
        assert!(told["trailObjectsLeftOut"].as_u64().is_some_and(|objects| objects > 0), "{told:#}");
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(text(&said.stderr).contains(name), "{}", text(&said.stderr));
    }
}

/// The forms in which people have CloudTrail's records: each is read, and says the same.
#[test]
fn reconcile_reads_every_form_that_people_have() {
    let folder = Folder::copy();
    let aws = awss(&folder.kms_records());
    let lines = |records: Vec<Value>| {
        records.iter().fold(String::new(), |lines, record| lines + &record.to_string() + "\n")
    };
    let looked_up = aws.iter().map(|record| {
        json!({ "EventId": record["eventID"], "EventName": record["eventName"], "CloudTrailEvent": record.to_string() })
    });
    let events = aws.iter().map(|record| json!({ "version": "0", "source": "aws.kms", "detail": record }));
    let log_file = json!({ "Records": aws }).to_string();
    for (name, contents) in [
        ("log-file.json", log_file.clone().into_bytes()),
        ("log-file.json.gz", compress(log_file.as_bytes())),
        ("marked.json", format!("\u{feff}{log_file}").into_bytes()),
        ("list.json", json!(aws).to_string().into_bytes()),
        ("lines.jsonl", lines(aws.clone()).into_bytes()),
        (
            "looked-up.json",
            json!({ "Events": looked_up.clone().collect::<Vec<_>>() }).to_string().into_bytes(),
        ),
        ("pages.json", lines(looked_up.map(|event| json!({ "Events": [event] })).collect()).into_bytes()),
        ("event-bridge.json", lines(events.collect()).into_bytes()),
        ("twice.json", json!([{ "Records": aws }, { "Records": aws }]).to_string().into_bytes()),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, contents).expect("writes");
        let arguments = ["--json", "--lag-minutes", "0", "--cloudtrail", file.to_str().expect("a path")];
        let output = folder.audit("reconcile", &arguments);
        assert_eq!(output.status.code(), Some(0), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(stdout_json(&output)["matched"], aws.len(), "{name}");
    }
}

fn snapshot(name: &str, said: &str) {
    audit_snapshot::settings().bind(|| insta::assert_snapshot!(name, said));
}
