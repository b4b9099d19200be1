//! What S3 and readers of the trail ask KMS is theirs as far as it reads or stores this trail, and no further.

use serde_json::{Value, json};

use super::super::super::reader_records::ReaderRecords;
use super::super::*;
use super::{TRAIL, awss, ends, of, of_aws, question, reconcile, record, requests, with};

/// The same, told of what readers have recorded.
fn reconcile_told(ours: &[Value], aws: &[Value], readers: &[Value]) -> Reconciliation {
    let mut records = ReaderRecords::default();
    for record in readers {
        records.add(&ReadRecord::parse(&record.to_string()).expect("a record"));
    }
    let mut reconciler = Reconciler::new(records);
    for record in ours {
        reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
    }
    for record in aws {
        reconciler.add_aws(&of_aws(record).to_string(), &question()).expect("a record");
    }
    reconciler.finish(&question())
}

/// What reading the trail takes.
fn reading(request: &str) -> Value {
    let context = json!({ "aws:cloudtrail:arn": TRAIL, "aws:s3:arn": "arn:aws:s3:::b/k" });
    let read = with(record("Decrypt", request, 20), "/requestParameters/encryptionContext", context);
    with(read, "/userIdentity/invokedBy", "key-broker".into())
}

#[test]
fn what_s3_asks_for_this_trails_objects_is_expected_and_nothing_else() {
    let asked = |name, request| {
        let asked = record(name, request, 20);
        let asked = with(asked, "/userIdentity/invokedBy", "AWS Internal".into());
        with(asked, "/requestParameters/encryptionContext", json!({ "aws:cloudtrail:arn": TRAIL }))
    };
    let aws = [&ends()[..], &[asked("GenerateDataKey", "put"), asked("Decrypt", "get")]].concat();
    let outcome = reconcile(&ends(), &aws, &question());
    assert_eq!((outcome.by_services, requests(&outcome.missing_from_trail)), (1, vec!["get"]));
}

#[test]
fn what_readers_recorded_is_counted_apart_whoever_they_are() {
    let auditor = "arn:aws:iam::111122223333:user/Auditor";
    let own = reading("own");
    let others = of(reading("others"), auditor, "AKIAAUDITOR");
    let aws = [&ends()[..], &[awss(&own), awss(&others), awss(&others)]].concat();
    let untold = reconcile(&ends(), &aws, &question());
    assert_eq!((requests(&untold.missing_from_trail), untold.maybe_of_readers), (vec!["own"], 1));
    let told = reconcile_told(&ends(), &aws, &[own.clone(), others]);
    assert_eq!((told.verdict, told.matched, told.by_readers), (Match::Matched, 2, 2));
    // One that only the reader has may be of another trail, or another day.
    let nothing = reconcile_told(&ends(), &ends(), &[own]);
    assert_eq!((nothing.verdict, nothing.by_readers), (Match::Matched, 0));
}

#[test]
fn the_signing_key_may_be_asked_for_and_no_other() {
    let key = |record, name: &str| with(record, "/resources/0/ARN", name.into());
    let signed = with(
        key(record("Sign", "signed", 30), "arn:signing"),
        "/userIdentity/invokedBy",
        "key-broker".into(),
    );
    let ours = [&ends()[..], &[signed]].concat();
    let asked = [
        key(record("GetPublicKey", "it", 31), "arn:signing"),
        key(record("GetPublicKey", "other", 32), "arn:k"),
    ];
    let outcome = reconcile_told(&ours, &[&ours[..], &asked].concat(), &asked);
    assert_eq!((outcome.by_readers, requests(&outcome.missing_from_trail)), (1, vec!["other"]));
}

/// Somebody with the broker's credentials who writes a reader's file, too, hides nothing by it but readings of the trail.
#[test]
fn a_readers_file_explains_nothing_that_is_not_reading() {
    let bound = |name: &str, request: &str| with(reading(request), "/eventName", name.into());
    let elsewhere = json!({ "aws:cloudtrail:arn": TRAIL.replace("trail/t", "trail/u") });
    let stolen = [
        record("Decrypt", "workload", 20),
        with(reading("elsewhere"), "/requestParameters/encryptionContext", elsewhere),
        with(reading("bare"), "/requestParameters", Value::Null),
        bound("GenerateDataKey", "mint"),
        bound("Encrypt", "seal"),
        bound("GetPublicKey", "key"),
        record("Sign", "sign", 20),
    ];
    let aws: Vec<Value> = ends().iter().cloned().chain(stolen.iter().map(awss)).collect();
    let outcome = reconcile_told(&ends(), &aws, &stolen);
    assert_eq!((outcome.by_readers, outcome.missing_from_trail.len()), (0, stolen.len()));

    // The file says a reading; AWS saw something else, or another one.
    let seen = [
        record("Decrypt", "r", 20),
        with(awss(&reading("r")), "/requestParameters/keyId", "alias/b".into()),
        with(awss(&reading("r")), "/errorCode", "AccessDenied".into()),
        with(awss(&reading("r")), "/resources", json!([])),
    ];
    for theirs in seen {
        let is_refused = theirs["errorCode"].is_string();
        let outcome = reconcile_told(&ends(), &[&ends()[..], &[theirs]].concat(), &[reading("r")]);
        let listed = if is_refused { &outcome.classes.refused_calls } else { &outcome.missing_from_trail };
        assert_eq!((outcome.by_readers, requests(listed)), (0, vec!["r"]));
    }
}
