//! Every call is on the right side of the join, and what cannot be told is not told.

mod classes;
mod named;
mod readers;
mod unread;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use time::macros::datetime;

use super::super::call::ListedCall;
use super::super::cloudtrail::for_each_record;
use super::*;

const BROKER: &str = "arn:aws:sts::111122223333:assumed-role/broker/pod-1";
const TRAIL: &str = "arn:aws:cloudtrail:us-west-2:111122223333:trail/t";

/// A record of second `second` past ten, on both sides the same.
fn record(name: &str, request: &str, second: u8) -> Value {
    json!({
        "userIdentity": { "type": "AssumedRole", "arn": BROKER, "accessKeyId": "ASIAEXAMPLE" },
        "eventTime": format!("2026-11-21T10:00:{second:02}Z"),
        "eventSource": "kms.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-west-2",
        "sourceIPAddress": "10.0.0.1",
        "userAgent": "aws-sdk-rust/1",
        "requestParameters": { "keyId": "alias/a", "encryptionContext": { "tenant": "acme" } },
        "requestID": request,
        "eventID": format!("{name}-{request}"),
        "resources": [{ "accountId": "111122223333", "ARN": "arn:aws:kms:us-west-2:111122223333:key/k" }],
        "recipientAccountId": "111122223333",
    })
}

/// The record with its field at `pointer` set.
fn with(mut record: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    record.pointer_mut(parent).expect("there")[name] = value;
    record
}

fn question() -> Question {
    let (settled, trail_arns) = (datetime!(2026-11-21 11:00 UTC), [TRAIL.into()].into());
    Question { since: None, until: None, settled, trail_arns }
}

fn reconcile(ours: &[Value], aws: &[Value], question: &Question) -> Reconciliation {
    let mut reconciler = Reconciler::default();
    for record in ours {
        reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
    }
    for record in aws {
        reconciler.add_aws(&of_aws(record).to_string(), question).expect("a record");
    }
    reconciler.finish(question)
}

/// As AWS has it: with an id of its own.
fn of_aws(record: &Value) -> Value {
    let id = record["eventID"].as_str().map(|id| format!("aws {id}"));
    if id.is_some() { with(record.clone(), "/eventID", id.into()) } else { record.clone() }
}

/// AWS's record of a call that ours is of.
fn awss(record: &Value) -> Value {
    with(record.clone(), "/userIdentity/invokedBy", Value::Null)
}

fn requests(calls: &[ListedCall]) -> Vec<&str> {
    calls.iter().map(|call| call.request_id.as_str()).collect()
}

/// The ends of the trail, which both sides have.
fn ends() -> [Value; 2] {
    [record("GenerateDataKey", "first", 0), record("Decrypt", "last", 59)]
}

#[test]
fn both_sides_alike_are_matched_in_any_order() {
    let ours = ends();
    let aws = [ours[1].clone(), ours[0].clone()];
    let outcome = reconcile(&ours, &aws, &question());
    assert_eq!((outcome.verdict, outcome.matched), (Match::Matched, 2));
    let range = outcome.range.expect("a range");
    assert_eq!((range.from, range.to), (datetime!(2026-11-21 10:00 UTC), datetime!(2026-11-21 10:00:59 UTC)));
}

#[test]
fn what_only_one_side_has_is_named() {
    let ours = [&ends()[..], &[record("Sign", "ours", 30)]].concat();
    let aws = [&ends()[..], &[record("Decrypt", "theirs", 31)]].concat();
    let outcome = reconcile(&ours, &aws, &question());
    assert_eq!((outcome.verdict, outcome.matched), (Match::Unmatched, 2));
    assert_eq!(requests(&outcome.missing_from_aws), ["ours"]);
    assert_eq!(requests(&outcome.missing_from_trail), ["theirs"]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&outcome).expect("JSON"));
}

#[test]
fn a_missing_newest_or_oldest_call_of_ours_is_missed_too() {
    let aws = [record("GenerateDataKey", "middle", 30)];
    let ours = [&ends()[..], &aws].concat();
    let outcome = reconcile(&ours, &aws, &question());
    assert_eq!(requests(&outcome.missing_from_aws), ["first", "last"]);
}

/// What deploy/chart gives the nightly job: two folders of AWS's, of a trail that is older. The first one's oldest file also has records of the
/// evening before.
#[test]
fn two_days_of_awss_are_compared_with_two_days_of_the_trail() {
    let at = |day: u8, request: &str| {
        let time = format!("2026-11-{day}T23:57:00Z");
        with(record("Decrypt", request, 0), "/eventTime", time.into())
    };
    let ours = [at(17, "old"), at(18, "noon"), at(18, "evening"), at(19, "yesterday"), at(20, "today")];
    let aws = [at(18, "evening"), at(19, "yesterday"), at(20, "today")];
    let all = reconcile(&ours, &aws, &question());
    assert_eq!(
        (all.verdict, requests(&all.missing_from_aws), all.outside),
        (Match::Unmatched, vec!["noon"], 1)
    );
    let untold = reconcile(&ours, &aws[1..], &question());
    assert_eq!((untold.verdict, untold.outside), (Match::CannotTell, 3));
    let since = Question { since: Some(datetime!(2026-11-19 0:00 UTC)), ..question() };
    let outcome = reconcile(&ours, &aws, &since);
    assert_eq!((outcome.verdict, outcome.matched), (Match::Matched, 2));
}

#[test]
fn what_may_be_on_its_way_is_too_new_on_either_side() {
    let ours = [&ends()[..], &[record("Sign", "ours", 40)]].concat();
    let aws = [&ends()[..], &[record("Decrypt", "theirs", 41)]].concat();
    let question = Question { settled: datetime!(2026-11-21 10:00:35 UTC), ..question() };
    let outcome = reconcile(&ours, &aws, &question);
    assert_eq!((outcome.verdict, outcome.matched, outcome.too_new), (Match::Matched, 2, 2));
}

#[test]
fn calls_of_others_are_not_missed() {
    let stranger = "arn:aws:iam::111122223333:user/Alice";
    let others = [
        of(record("Decrypt", "stranger", 20), stranger, "ASIASTRANGER"),
        of(record("Decrypt", "role", 20), &BROKER.replace("/broker/", "/broker-2/"), "ASIAOTHER"),
        with(record("PutObject", "s3", 20), "/eventSource", "s3.amazonaws.com".into()),
    ];
    let outcome = reconcile(&ends(), &[&ends()[..], &others].concat(), &question());
    assert_eq!((outcome.verdict, outcome.missing_from_trail), (Match::Matched, Vec::new()));
}

/// The record, as made by another principal.
fn of(record: Value, arn: &str, access_key_id: &str) -> Value {
    with(with(record, "/userIdentity/arn", arn.into()), "/userIdentity/accessKeyId", access_key_id.into())
}

#[test]
fn every_session_of_the_brokers_role_is_the_brokers_in_every_region() {
    let second = BROKER.replace("pod-1", "pod-2");
    let stolen = [
        of(record("Decrypt", "renewed", 20), &second, "ASIASECOND"),
        with(record("Decrypt", "elsewhere", 21), "/awsRegion", "eu-west-1".into()),
        with(of(record("Decrypt", "both", 22), &second, "ASIASECOND"), "/awsRegion", "ap-south-1".into()),
    ];
    let outcome = reconcile(&ends(), &[&ends()[..], &stolen].concat(), &question());
    assert_eq!(requests(&outcome.missing_from_trail), ["renewed", "elsewhere", "both"]);

    // By its unique id, whatever its name.
    let by_id = |record, id: &str| with(record, "/userIdentity/principalId", id.into());
    let ours = ends().map(|record| by_id(record, "AROABROKER:pod-1"));
    let renamed = "arn:aws:sts::111122223333:assumed-role/renamed/pod-3";
    let stolen = [
        by_id(of(record("Decrypt", "same", 20), renamed, "ASIATHIRD"), "AROABROKER:pod-3"),
        by_id(of(record("Decrypt", "other", 20), renamed, "ASIAFOURTH"), "AROAOTHER:pod-1"),
    ];
    let outcome = reconcile(&ours, &[&ours[..], &stolen].concat(), &question());
    assert_eq!(requests(&outcome.missing_from_trail), ["same"]);
}

#[test]
fn a_federated_user_is_no_other_federated_user_of_the_account() {
    let federated = |record, name: &str| {
        let arn = format!("arn:aws:sts::111122223333:federated-user/{name}");
        let record = of(record, &arn, &format!("ASIA{name}"));
        with(record, "/userIdentity/principalId", format!("111122223333:{name}").into())
    };
    let ours = ends().map(|record| federated(record, "broker"));
    let stranger = federated(record("Decrypt", "stranger", 20), "alice");
    let outcome = reconcile(&ours, &[&ours[..], &[stranger]].concat(), &question());
    assert_eq!(outcome.verdict, Match::Matched);
}

#[test]
fn an_access_key_alone_is_enough_and_a_later_report_tells_its_role() {
    let alone = json!({ "type": "Unknown", "accessKeyId": "ASIAEXAMPLE" });
    let ours = ends().map(|record| with(record, "/userIdentity", alone.clone()));
    let session = of(record("Decrypt", "same key", 20), BROKER, "ASIAEXAMPLE");
    let renewed = of(record("Decrypt", "same role", 21), &BROKER.replace("pod-1", "pod-2"), "ASIASECOND");
    let aws = [&ends()[..], &[session, renewed]].concat();
    let outcome = reconcile(&ours, &aws, &question());
    assert_eq!((requests(&outcome.missing_from_trail), outcome.matched), (vec!["same key"], 2));

    let report = json!({
        "userIdentity": { "type": "Broker", "principalId": "key-broker" },
        "eventTime": "2026-11-21T10:00:40Z",
        "eventSource": "keybroker.v1.KeyBroker",
        "eventName": "ReportIdentity",
        "awsRegion": "us-west-2",
        "additionalEventData": {
            "outcome": "Allowed",
            "identity": { "type": "AssumedRole", "arn": BROKER, "accessKeyId": "ASIAEXAMPLE" },
        },
        "eventID": "report",
    });
    let outcome = reconcile(&[&ours[..], &[report]].concat(), &aws, &question());
    assert_eq!(requests(&outcome.missing_from_trail), ["same key", "same role"]);
}

#[test]
fn a_record_that_names_another_session_than_awss_is_a_difference() {
    let wrong = of(ends()[0].clone(), &BROKER.replace("pod-1", "pod-0"), "ASIAEXAMPLE");
    let outcome = reconcile(&[wrong, ends()[1].clone()], &ends(), &question());
    let fields: Vec<_> = outcome.differences.iter().map(|difference| difference.field).collect();
    assert_eq!((outcome.verdict, fields), (Match::Unmatched, vec!["userIdentity.arn"]));
}

/// Nobody who stops the broker first goes unseen.
#[test]
fn calls_outside_the_trails_time_are_counted_and_no_verdict_hides_them() {
    let outside = [
        with(record("Decrypt", "before", 20), "/eventTime", "2026-11-21T09:59:59Z".into()),
        with(record("Decrypt", "after", 20), "/eventTime", "2026-11-21T10:01:00Z".into()),
        with(record("Decrypt", "days later", 20), "/eventTime", "2026-11-21T10:50:00Z".into()),
    ];
    let aws = [&ends()[..], &outside].concat();
    let outcome = reconcile(&ends(), &aws, &question());
    assert_eq!((outcome.verdict, outcome.outside_the_trail, outcome.matched), (Match::CannotTell, 3, 2));
    assert!(outcome.why.is_some_and(|why| why.contains("--since")));
    let bounded = Question {
        since: Some(datetime!(2026-11-21 10:00 UTC)),
        until: Some(datetime!(2026-11-21 10:01 UTC)),
        ..question()
    };
    assert_eq!(reconcile(&ends(), &aws, &bounded).verdict, Match::Matched);
    let inside = [&aws[..], &[record("Decrypt", "inside", 20)]].concat();
    assert_eq!(reconcile(&ends(), &inside, &question()).verdict, Match::Unmatched);
}

#[test]
fn what_aws_leaves_out_of_a_failed_call_is_not_compared() {
    let throttled = with(ends()[0].clone(), "/errorCode", "ThrottlingException".into());
    let bare = with(throttled.clone(), "/requestParameters", Value::Null);
    let bare = with(bare, "/resources", Value::Null);
    let ours = [throttled.clone(), ends()[1].clone()];
    let outcome = reconcile(&ours, &[bare, ends()[1].clone()], &question());
    assert_eq!((outcome.verdict, outcome.differences), (Match::Matched, Vec::new()));
    let other = with(throttled, "/requestParameters/keyId", "alias/b".into());
    let outcome = reconcile(&ours, &[other, ends()[1].clone()], &question());
    assert_eq!(outcome.verdict, Match::Unmatched);
}

#[test]
fn an_auditor_who_read_the_trail_may_ask_kms_other_things() {
    let auditor = "arn:aws:iam::111122223333:user/Auditor";
    let read = of(record("Decrypt", "read", 10), auditor, "AKIAAUDITOR");
    let read = with(read, "/userIdentity/invokedBy", "key-broker".into());
    let other = of(record("Decrypt", "other", 11), auditor, "AKIAAUDITOR");
    let ours = [&ends()[..], std::slice::from_ref(&read)].concat();
    let outcome = reconcile(&ours, &[&ends()[..], &[read, other]].concat(), &question());
    assert_eq!((outcome.verdict, outcome.matched), (Match::Matched, 3));
}

#[test]
fn one_request_id_may_be_of_two_calls_and_two_names_are_a_difference() {
    let both = [record("GenerateDataKey", "same", 10), record("Decrypt", "same", 10)];
    let ours = [&ends()[..], &both].concat();
    assert_eq!(reconcile(&ours, &ours, &question()).matched, 4);

    let renamed = [&ends()[..], &[both[0].clone(), record("Encrypt", "same", 10)]].concat();
    let outcome = reconcile(&ours, &renamed, &question());
    let difference = outcome.differences.first().expect("a difference");
    assert_eq!(
        (difference.field, difference.ours.as_deref(), difference.aws.as_deref()),
        ("eventName", Some("Decrypt"), Some("Encrypt"))
    );
    assert_eq!((outcome.matched, outcome.differences.len(), outcome.verdict), (4, 1, Match::Unmatched));
}

#[test]
fn the_same_call_in_several_files_or_accounts_counts_once() {
    let shared = with(record("Decrypt", "shared", 10), "/sharedEventID", "s".into());
    let copy = with(shared.clone(), "/eventID", "copy".into());
    let ours = [&ends()[..], std::slice::from_ref(&shared)].concat();
    let aws = [&ends()[..], &ends()[..], &[shared, copy]].concat();
    let outcome = reconcile(&ours, &aws, &question());
    assert_eq!((outcome.verdict, outcome.matched), (Match::Matched, 3));
    assert_eq!(reconcile(&[&ours[..], &ours[..]].concat(), &aws, &question()).matched, 3);
}

#[test]
fn fields_that_differ_are_named_with_both_values() {
    let changed = [
        ("/errorCode", json!("AccessDenied")),
        ("/requestParameters/keyId", json!("alias/b")),
        ("/requestParameters/encryptionContext", json!({ "tenant": "evil" })),
        ("/requestParameters", Value::Null),
        ("/resources", json!([])),
    ];
    for (n, (pointer, value)) in changed.into_iter().enumerate() {
        let aws = [with(ends()[0].clone(), pointer, value), ends()[1].clone()];
        let outcome = reconcile(&ends(), &aws, &question());
        assert_eq!(outcome.verdict, Match::Unmatched);
        let lines: Vec<String> = outcome
            .differences
            .iter()
            .map(|difference| format!("{}: {:?} / {:?}", difference.field, difference.ours, difference.aws))
            .collect();
        insta::assert_snapshot!(format!("difference_{n}"), lines.join("\n"));
    }
}

#[test]
fn a_key_that_the_broker_was_not_told_of_is_no_difference() {
    let failed = with(ends()[0].clone(), "/errorCode", "NotFoundException".into());
    let ours = [with(failed.clone(), "/resources", json!([])), ends()[1].clone()];
    assert_eq!(reconcile(&ours, &[failed, ends()[1].clone()], &question()).differences, []);
}

#[test]
fn since_and_until_bound_what_is_told() {
    let ours = [&ends()[..], &[record("Sign", "ours", 30)]].concat();
    let aws = [&ends()[..], &[record("Decrypt", "theirs", 31)]].concat();
    let until = Question { until: Some(datetime!(2026-11-21 10:00:30 UTC)), ..question() };
    let outcome = reconcile(&ours, &aws, &until);
    assert_eq!((outcome.verdict, outcome.matched), (Match::Matched, 1));
    let since = Question { since: Some(datetime!(2026-11-21 10:00:31 UTC)), ..question() };
    let outcome = reconcile(&ours, &aws, &since);
    assert_eq!((outcome.missing_from_aws.len(), requests(&outcome.missing_from_trail)), (0, vec!["theirs"]));
}

#[test]
fn nothing_to_compare_is_no_verdict() {
    let later = with(record("Decrypt", "later", 0), "/eventTime", "2026-11-22T00:00:00Z".into());
    let elsewhere = with(record("Decrypt", "x", 0), "/awsRegion", "eu-west-1".into());
    let new = Question { settled: datetime!(2026-11-21 09:00 UTC), ..question() };
    let whys: Vec<String> = [
        reconcile(&[], &ends(), &question()),
        reconcile(&ends(), &[], &question()),
        reconcile(&ends(), &[elsewhere], &question()),
        reconcile(&ends(), &[later], &question()),
        reconcile(&ends(), &[record("Decrypt", "theirs", 20)], &new),
    ]
    .into_iter()
    .map(|outcome| {
        assert_eq!(outcome.verdict, Match::CannotTell);
        outcome.why.expect("a reason")
    })
    .collect();
    insta::assert_snapshot!(whys.join("\n"));
}

/// AWS's documentation shows some calls twice, with other fields: one of each id is enough.
#[test]
fn awss_own_samples_join_with_themselves_and_a_changed_one_does_not() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/cloudtrail");
    let mut records: Vec<Value> = Vec::new();
    for entry in fs::read_dir(samples).expect("they are in the repository") {
        let file = fs::read(entry.expect("an entry").path()).expect("readable");
        for_each_record(&file, |json| records.push(serde_json::from_str(json).expect("JSON")))
            .expect("a record");
    }
    for id in ["requestID", "eventID"] {
        records.sort_by_key(|record| record[id].to_string());
        records.dedup_by_key(|record| record[id].to_string());
    }
    assert!(records.len() > 10);
    let outcome = reconcile(&records, &records, &question());
    assert_eq!(
        (outcome.verdict, outcome.matched, outcome.differences.len()),
        (Match::Matched, records.len(), 0)
    );

    let mut changed = records.clone();
    changed[0]["errorCode"] = "AccessDenied".into();
    assert_eq!(reconcile(&records, &changed, &question()).verdict, Match::Unmatched);
}

/// A record whose value of `tenant` is redacted.
fn redacted(record: Value, digester: &Digester) -> Value {
    let value = record["requestParameters"]["encryptionContext"]["tenant"].as_str().expect("text").to_owned();
    let record = with(record, "/requestParameters/encryptionContext/tenant", digester.digest(&value).into());
    with(record, "/additionalEventData", json!({ "redactedEncryptionContext": ["tenant"] }))
}

#[test]
fn what_the_trail_redacts_is_redacted_in_awss_records_before_they_are_compared() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = |name: &str, byte: &str| {
        fs::write(dir.path().join(name), byte.repeat(32)).expect("writes");
        Digester::with_key_in(&dir.path().join(name)).expect("a key")
    };
    let (right, wrong) = (key("right", "k"), key("wrong", "w"));
    let [first, last] = ends();
    let aws = [awss(&first), awss(&last)];
    let other = with(aws[0].clone(), "/requestParameters/encryptionContext/tenant", "globex".into());
    let judged = |by: &Digester, key: Option<&Digester>, aws: &[Value]| {
        let mut reconciler = Reconciler::default().with_key(key.cloned());
        for record in [redacted(first.clone(), by), last.clone()] {
            reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
        }
        for record in aws {
            reconciler.add_aws(&of_aws(record).to_string(), &question()).expect("a record");
        }
        reconciler.finish(&question())
    };
    assert_eq!(judged(&right, Some(&right), &aws).verdict, Match::Matched);
    assert_eq!(judged(&Digester::Plain, None, &aws).verdict, Match::Matched, "takes no key");
    assert_eq!(judged(&right, Some(&wrong), &aws).verdict, Match::Unmatched);
    let untold = judged(&right, None, &aws);
    assert_eq!(untold.verdict, Match::CannotTell);
    assert!(untold.why.is_some_and(|why| why.contains("--redaction-key")));
    for by in [&right, &Digester::Plain] {
        let unmatched = judged(by, Some(&right), &[other.clone(), aws[1].clone()]);
        assert_eq!(unmatched.differences.len(), 1);
        let shown = format!("{:?}", unmatched.differences);
        assert!(!shown.contains("globex"), "AWS's value is not shown either: {shown}");
    }
    // A record that only says that a value is a digest.
    let lie =
        with(redacted(first.clone(), &right), "/requestParameters/encryptionContext/tenant", "x".into());
    assert_eq!(reconcile(&[lie, last.clone()], &aws, &question()).verdict, Match::Unmatched);
}
