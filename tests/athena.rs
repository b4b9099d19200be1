//! Proves: the views for Athena, run on DuckDB, say of a trail what `audit verify` says of it: as many records and data keys in one that is
//! sound, and the same kind of broken promise in one that was forged by whoever holds the signing key.

mod peers;
mod support;

use std::collections::BTreeSet;
use std::fs;

use key_broker_trail::verify::{Report, Verdict, VerifyOptions};
use peers::{Peers, printed, root};
use serde_json::{Value, json};
use support::tampered::{Copy, plain};
use support::timed::BUCKET;

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_sound_trail_has_the_same_numbers_in_sql_and_breaks_no_promise() {
    let copy = plain().copy();
    // What waits for its digest, nobody vouches for yet: SQL has it all the same.
    let digests = (0..copy.digests().len()).flat_map(|place| copy.digest(place).log_files);
    let named: BTreeSet<String> = digests.map(|file| file.s3_object).collect();
    for key in copy.log_files().into_iter().filter(|key| !named.contains(key)) {
        fs::remove_file(copy.path(&key)).expect("removes");
    }
    let report = verify(&copy);
    assert_eq!(report.verdict, Verdict::Sound, "{report:#?}");
    let rows = ask(
        &copy,
        &[
            "SELECT count(*) FROM key_broker_trail",
            "SELECT count(*) FROM key_broker_kms_calls",
            "SELECT count(*) FROM key_broker_calls",
            "SELECT count(*) FROM key_broker_data_keys",
            "SELECT * FROM key_broker_broken_promises",
            "SELECT DISTINCT served_from FROM key_broker_uses ORDER BY served_from",
            "SELECT count(*) FROM key_broker_uses WHERE operation = 'GenerateDataKey' AND is_allowed AND ciphertext_sha256 IS NULL",
            "SELECT event, count(*) > 0 FROM key_broker_brokers GROUP BY event ORDER BY event",
        ],
    );
    let counted: Vec<&Value> = rows[..4].iter().map(|rows| &rows[0][0]).collect();
    let Report { records, kms_records, activity_records, keys_used, .. } = report;
    assert_eq!(json!(counted), json!([records, kms_records, activity_records, keys_used]));
    assert_eq!(rows[4], json!([]), "no promise is broken");
    assert_eq!(rows[5], json!([["CACHE"], ["KMS"]]));
    assert_eq!(rows[6], json!([[0]]), "each data key that was handed out has the hash of its ciphertext");
    assert!(
        rows[7].as_array().is_some_and(|rows| rows.contains(&json!(["StartBroker", true]))),
        "{}",
        rows[7]
    );
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn what_verify_finds_of_the_promise_the_view_finds_too() {
    type Edit = fn(&str) -> String;
    let forgeries: [(&str, Edit); 6] = [
        ("UsedTooLate", |text| in_a_hit(text, "\"expiresAt\":\"2026-03-01T", "\"expiresAt\":\"2026-02-01T")),
        ("MessagesExceeded", |text| in_a_hit(text, "\"messagesUsed\":", "\"messagesUsed\":9")),
        ("BytesExceeded", |text| in_a_hit(text, "\"bytesUsed\":", "\"bytesUsed\":9")),
        ("ChargedTwice", |text| in_a_hit(text, "\"messagesUsed\":2", "\"messagesUsed\":1")),
        ("KmsRecordMismatch", |text| in_a_hit(text, "\"kmsRequestID\":\"", "\"kmsRequestID\":\"0")),
        ("KmsRecordMissing", |text| {
            let (name, other) = ("\"kmsEventID\":\"", "00000000-0000-4000-8000-000000000000\",\"was\":\"");
            text.replacen(name, &format!("{name}{other}"), 1)
        }),
    ];
    for (kind, edit) in forgeries {
        let copy = plain().copy();
        copy.edit_and_sign(1, 0, edit);
        let found: BTreeSet<String> = verify(&copy)
            .findings
            .iter()
            .map(|finding| finding.kind.to_string())
            .filter(|kind| PROMISES.contains(&kind.as_str()))
            .collect();
        assert!(found.contains(kind), "{kind}: {found:?}");
        let rows = ask(&copy, &["SELECT DISTINCT kind FROM key_broker_broken_promises"]);
        let in_sql: BTreeSet<String> = rows[0]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row[0].as_str().expect("a kind").to_owned())
            .collect();
        assert_eq!(in_sql, found, "{kind}");
    }
}

/// What was delivered, alone: that is what SQL has.
fn verify(copy: &Copy) -> Report {
    copy.verify_with(VerifyOptions { journal_dir: None, ..copy.options() })
}

/// The rows of each query.
fn ask(copy: &Copy, queries: &[&str]) -> Vec<Value> {
    let peers = Peers::install(&["duckdb"]);
    let folder = copy.dir.path().join("store").join(BUCKET).join("AWSLogs/111122223333/CloudTrail");
    let mut command = peers.command("duckdb/bin/python");
    command.arg(root().join("tests/judges/views-on-duckdb")).arg(folder);
    command.arg(root().join("deploy/athena/views.sql")).args(queries);
    printed(&mut command).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Changes the first record of a reuse.
fn in_a_hit(text: &str, from: &str, to: &str) -> String {
    let hit = text.find("\"servedFrom\":\"CACHE\"").expect("a hit");
    let (before, after) = text.split_at(hit);
    before.to_owned() + &after.replacen(from, to, 1)
}

/// The kinds of the view.
const PROMISES: [&str; 7] = [
    "UsedTooLate",
    "MessagesExceeded",
    "BytesExceeded",
    "ChargedTwice",
    "UsedAgain",
    "KmsRecordMissing",
    "KmsRecordMismatch",
];
