//! Proves: the views for Athena, run on DuckDB as deploy/duckdb has them, say of a trail what `audit verify` says of it: as many records and data
//! keys in one that is sound, and the same kind of broken promise in one that was forged by whoever holds the signing key; beside AWS's own
//! records they say what `audit reconcile` says; Trino's own parser takes all of them, and Hive's takes the table, which has a column for whatever
//! a record has and finds its log files.

mod peers;
#[path = "support/sql.rs"]
mod sql;
mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Output;

use key_broker_trail::verify::{Report, Verdict, VerifyOptions};
use peers::{Peers, root};
use serde_json::{Value, json};
use sql::{ask, ask_beside, vouched_for};
use support::dev_folder::{command, text};
use support::tampered::{Copy, plain};
use support::timed::{BUCKET, names};

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_sound_trail_has_the_same_numbers_in_sql_and_breaks_no_promise() {
    let copy = vouched_for();
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

/// What was denied is in the view, as often as `audit verify` counts it, with the key as it was asked for.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn denials_are_those_that_verify_counts() {
    let copy = vouched_for();
    let options = VerifyOptions { journal_dir: None, counts_uses: true, ..copy.options() };
    let counted: u64 = copy.verify_with(options).uses.values().map(|uses| uses.denials).sum();
    let rows = ask(
        &copy,
        &[
            "SELECT CAST(sum(calls) AS BIGINT) FROM key_broker_denials",
            "SELECT DISTINCT operation, asked_for, error_code FROM key_broker_denials",
        ],
    );
    assert!(counted > 3);
    assert_eq!(rows[0], json!([[counted]]));
    let rows = rows[1].as_array().expect("rows");
    assert!(rows.contains(&json!(["GenerateDataKey", "alias/secret", "AccessDenied"])), "{rows:?}");
}

/// Joined with AWS's records, the view has the calls of the trail alone, of AWS alone and of both that `audit reconcile` tells of.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_join_with_cloudtrail_says_what_reconcile_says() {
    let copy = vouched_for();
    let mut aws = Vec::new();
    for key in copy.log_files() {
        let log_file: Value = serde_json::from_slice(&copy.log_file(&key)).expect("JSON");
        let records = log_file["Records"].as_array().expect("records").clone();
        aws.extend(records.into_iter().filter(|record| record["eventSource"] == "kms.amazonaws.com"));
    }
    for (number, record) in aws.iter_mut().enumerate() {
        record["eventID"] = format!("a0000000-0000-4000-8000-{number:012}").into();
    }
    // One is on its way; one was somebody else's, with the broker's credentials; one is of another role.
    let on_its_way = aws.remove(3);
    let mut thief = aws[5].clone();
    thief["requestID"] = "b0000000-0000-4000-8000-000000000001".into();
    thief["eventID"] = "b0000000-0000-4000-8000-000000000002".into();
    let mut other = thief.clone();
    other["requestID"] = "b0000000-0000-4000-8000-000000000003".into();
    other["userIdentity"]["arn"] = "arn:aws:iam::111122223333:user/Bob".into();
    other["userIdentity"]["principalId"] = "AIDABOB".into();
    other["userIdentity"]["userName"] = "Bob".into();
    let both = aws.len() as u64;
    aws.extend([thief.clone(), other]);
    let file = copy.dir.path().join("aws.json");
    fs::write(&file, json!({ "Records": aws }).to_string()).expect("writes");

    let rows = ask_beside(
        &copy,
        &file,
        &[
            "SELECT found_in, count(*) FROM key_broker_beside_cloudtrail GROUP BY found_in ORDER BY found_in",
            "SELECT kms_request_id FROM key_broker_beside_cloudtrail WHERE found_in <> 'both' ORDER BY found_in",
            "SELECT count(*) FROM key_broker_beside_cloudtrail WHERE errors_differ",
        ],
    );
    assert_eq!(rows[0], json!([["AWS only", 1], ["both", both], ["trail only", 1]]));
    assert_eq!(rows[1], json!([[thief["requestID"]], [on_its_way["requestID"]]]));
    assert_eq!(rows[2], json!([[0]]));
    let reconciled = reconcile(&copy, &file);
    let ids = |list: &str| {
        let calls = reconciled[list].as_array().unwrap_or_else(|| panic!("{reconciled:#}"));
        calls.iter().map(|call| call["requestID"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(reconciled["matched"], both, "{reconciled:#}");
    assert_eq!(ids("missingFromTrail"), [thief["requestID"].clone()]);
    assert_eq!(ids("missingFromAws"), [on_its_way["requestID"].clone()]);
}

/// Every statement of the views is one to Trino's own parser, and makes the view that it says.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn trinos_parser_takes_the_views() {
    let made = parse("trino", &VIEWS.map(|file| root().join(file)));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made = text(&made.stdout);
    let mut views: Vec<&str> = made
        .lines()
        .map(|line| line.strip_prefix("CreateView ").unwrap_or_else(|| panic!("{line}")))
        .collect();
    views.sort_unstable();
    let wanted = [
        "key_broker_beside_cloudtrail",
        "key_broker_broken_promises",
        "key_broker_brokers",
        "key_broker_calls",
        "key_broker_data_keys",
        "key_broker_denials",
        "key_broker_kms_calls",
        "key_broker_uses",
    ];
    assert_eq!(views, wanted);
}

/// The table is one to Hive's own parser, in whose dialect Athena's tables are defined. It has a column for each field that a record has, and for
/// each part of those that are columns with parts, and each log file is where it looks on that day.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn hives_parser_takes_the_table_and_it_has_all_that_records_have() {
    let made = parse("hive", &[root().join(TABLE)]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made = text(&made.stdout);
    let told =
        |what: &str| -> Vec<&str> { made.lines().filter_map(|line| line.strip_prefix(what)).collect() };
    assert_eq!(
        (told("table "), told("partition ")),
        (vec!["key_broker_trail"], vec!["day STRING"]),
        "{made}"
    );

    let columns: BTreeSet<&str> =
        told("column ").iter().map(|line| line.split_once(' ').expect("a type").0).collect();
    let place = "property 'storage.location.template' 's3://BUCKET/";
    let place = told(place)[0].trim_end_matches('\'').to_owned();
    let copy = vouched_for();
    let mut fields = BTreeSet::new();
    for key in copy.log_files() {
        let log_file: Value = serde_json::from_slice(&copy.log_file(&key)).expect("JSON");
        for record in log_file["Records"].as_array().expect("records") {
            add_columns(record, "", &columns, &mut fields);
        }
        let (folder, name) = key.rsplit_once('/').expect("a folder");
        let day = name.split('_').nth(3).expect("a time");
        let day = format!("{}/{}/{}", &day[..4], &day[4..6], &day[6..8]);
        assert_eq!(place.replace("${day}", &day), folder);
    }
    let missing: Vec<&String> = fields.iter().filter(|field| !columns.contains(field.as_str())).collect();
    assert!(fields.len() > 30 && missing.is_empty(), "of {fields:?}, no columns: {missing:?}");
}

/// The names that a record's fields have in a table with these columns: a column without parts is a text that has all of them.
fn add_columns(value: &Value, name: &str, columns: &BTreeSet<&str>, into: &mut BTreeSet<String>) {
    match value {
        _ if columns.contains(name) => {
            into.insert(name.to_owned());
        }
        Value::Object(members) => {
            let start = if name.is_empty() { String::new() } else { format!("{name}.") };
            for (member, value) in members {
                add_columns(value, &format!("{start}{}", member.to_lowercase()), columns, into);
            }
        }
        Value::Array(items) => {
            for item in items {
                add_columns(item, &format!("{name}[]"), columns, into);
            }
        }
        _ => {
            into.insert(name.to_owned());
        }
    }
}

/// Statements with a fault: neither parser is one that takes anything.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn neither_parser_takes_a_statement_with_a_fault() {
    let faults = [
        ("hive", TABLE, "STORED AS INPUTFORMAT", "STORED INPUTFORMAT"),
        ("hive", TABLE, "ARRAY<STRUCT<", "ARRAY<STRUCT("),
        ("hive", TABLE, "errorcode STRING", "errorcode"),
        ("trino", VIEWS[0], "GROUP BY kms_event_id;", "GROUP kms_event_id;"),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    for (parser, file, right, wrong) in faults {
        let statement = fs::read_to_string(root().join(file)).expect("reads");
        assert!(statement.contains(right), "{file}: {right}");
        let broken = dir.path().join("broken.sql");
        fs::write(&broken, statement.replacen(right, wrong, 1)).expect("writes");
        let said = parse(parser, &[broken]);
        assert_eq!(said.status.code(), Some(1), "{parser}, {wrong}: {}", text(&said.stderr));
        assert!(text(&said.stderr).contains("broken.sql: line "), "{parser}: {}", text(&said.stderr));
    }
}

/// What the parser of this peer says of files.
fn parse(peer: &str, files: &[impl AsRef<OsStr>]) -> Output {
    let peers = Peers::install(&[peer]);
    let mut java = peers::plain("java");
    let (classes, libraries) = (peers.path(&format!("{peer}/classes")), peers.path(&format!("{peer}/lib/*")));
    java.arg("-cp").arg(format!("{}:{}", classes.display(), libraries.display()));
    peers::output(java.arg("Parse").args(files))
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

/// What `audit reconcile` says of a trail and a file of AWS's.
fn reconcile(copy: &Copy, aws: &Path) -> Value {
    let key = copy.dir.path().join("public.pem");
    fs::write(&key, copy.base.site.public_key().to_pem()).expect("writes");
    let mut program = command();
    program.args(["audit", "reconcile", "--json", "--lag-minutes", "0"]).arg("--cloudtrail").arg(aws);
    program.arg("--store").arg(copy.dir.path().join("store")).args(["--bucket", BUCKET]);
    program.args(["--trail", &names().trail, "--account", "111122223333", "--region", "us-west-2"]);
    let said = program.arg("--public-key").arg(key).output().expect("runs");
    serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{}", text(&said.stderr)))
}

/// Changes the first record of a reuse.
fn in_a_hit(text: &str, from: &str, to: &str) -> String {
    let hit = text.find("\"servedFrom\":\"CACHE\"").expect("a hit");
    let (before, after) = text.split_at(hit);
    before.to_owned() + &after.replacen(from, to, 1)
}

const TABLE: &str = "deploy/athena/table.sql";
const VIEWS: [&str; 2] = ["deploy/athena/views.sql", "deploy/athena/cloudtrail.sql"];
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
