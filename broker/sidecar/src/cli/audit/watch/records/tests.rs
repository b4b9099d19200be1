//! The record of a use is found by its requestID; what may be a use without a record is told of the uses that it may be, and of no others.

use serde_json::{Value, json};
use time::macros::datetime;

use super::super::state::{KeyState, Sighting};
use super::*;

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/k";
const AT: OffsetDateTime = datetime!(2026-11-21 10:00 UTC);
const TRAIL: ReadTrail<'_> = ReadTrail { name: "t", place: Some("shop/orders-0"), is_from_its_start: true };

/// A use of `key` at [`AT`] that is looked for.
fn looking_for(key: &str) -> Records {
    let seen =
        Sighting { at: AT, operation: "Decrypt".into(), request_id: "r".into(), cloudtrail_event_id: None };
    let of_key = KeyState { since: AT, last: None, is_blind: false, pending: vec![seen], alarms: Vec::new() };
    let mut state = WatchState::new("b");
    state.keys.insert(key.into(), of_key);
    Records::new(&state, Duration::minutes(5))
}

fn time(minutes: i64) -> String {
    key_broker_trail::record::record_time(AT + Duration::minutes(minutes))
}

fn kms(minutes: i64, request: &str, error: Option<&str>) -> Value {
    json!({
        "eventTime": time(minutes), "eventSource": "kms.amazonaws.com", "eventName": "Decrypt", "awsRegion": "us-west-2",
        "errorCode": error, "requestID": request, "eventID": "e", "resources": [{ "ARN": KEY }],
    })
}

fn activity(minutes: i64, name: &str, error: Option<&str>, data: Value) -> Value {
    let mut record = json!({
        "eventTime": time(minutes), "eventSource": "keybroker.v1.KeyBroker", "eventName": name, "awsRegion": "us-west-2",
        "errorCode": error, "requestID": "own", "eventID": "e", "resources": [{ "ARN": KEY }],
    });
    record["additionalEventData"] = data;
    record
}

fn own(minutes: i64, name: &str, data: Value) -> Value {
    let mut record = activity(minutes, name, None, data);
    record.as_object_mut().expect("an object").remove("resources");
    record
}

fn add(records: &mut Records, trail: &ReadTrail<'_>, all: &[Value]) {
    for record in all {
        let json = record.to_string();
        records.add(trail, &ReadRecord::parse(&json).expect("a record"));
    }
}

fn troubles(trail: &ReadTrail<'_>, all: &[Value]) -> usize {
    let mut records = looking_for(KEY);
    add(&mut records, trail, all);
    assert_eq!(records.record_of("r"), None);
    records.troubles("r").inspect(|reason| assert_eq!(reason.place.as_deref(), Some("shop/orders-0"))).count()
}

#[test]
fn a_record_is_found_and_a_dry_run_is_told_apart() {
    for (error, is_dry_run) in [(None, false), (Some("DryRunOperationException"), true)] {
        let mut records = looking_for(KEY);
        add(&mut records, &TRAIL, &[kms(1, "other", None), kms(0, "r", error)]);
        assert_eq!(records.record_of("r"), Some(("t".into(), is_dry_run)));
        assert_eq!(records.record_of("other"), None, "nobody looks for it");
        assert_eq!(records.keys, BTreeSet::from([KEY.to_owned()]));
    }
}

#[test]
fn calls_without_an_answer_may_be_it_about_then_and_under_that_key() {
    let failed = |minutes, error| activity(minutes, "Decrypt", Some(error), json!({ "outcome": "Failed" }));
    for error in [
        "KMSUnavailable",
        "DeadlineExceeded",
        "RequestCancelled",
        "KMSInternalException",
        "KMSUnexpectedAnswer",
    ] {
        assert_eq!(troubles(&TRAIL, &[failed(0, error)]), 1, "{error}");
        assert_eq!(troubles(&TRAIL, &[failed(-7, error)]), 1, "{error}: it may have taken two minutes");
        assert_eq!(troubles(&TRAIL, &[failed(-8, error)]), 0, "{error}");
        assert_eq!(troubles(&TRAIL, &[failed(6, error)]), 0, "{error}");
        let mut records = looking_for("arn:aws:kms:us-west-2:111122223333:key/other");
        add(&mut records, &TRAIL, &[failed(0, error)]);
        assert_eq!(records.troubles("r").count(), 0, "{error}: under another key");
    }
    for error in ["AccessDenied", "DisabledException", "ValidationException", "NotFoundException"] {
        assert_eq!(troubles(&TRAIL, &[failed(0, error)]), 0, "{error}: KMS has said no");
    }
    let without_key = own(0, "Decrypt", json!({ "outcome": "Failed" }));
    let mut unnamed = without_key.clone();
    unnamed["errorCode"] = "KMSUnavailable".into();
    assert_eq!(troubles(&TRAIL, &[without_key]), 0);
    assert_eq!(troubles(&TRAIL, &[unnamed]), 1, "a ciphertext may be of any key");
}

#[test]
fn what_was_tried_again_may_have_been_done_the_first_time() {
    assert_eq!(troubles(&TRAIL, &[kms(1, "x", Some("ThrottlingException"))]), 1);
    assert_eq!(troubles(&TRAIL, &[kms(1, "x", Some("AccessDenied"))]), 0);
    let answered = |seconds| {
        let minted = key_broker_trail::record::record_time(AT + Duration::seconds(seconds));
        activity(
            0,
            "Decrypt",
            None,
            json!({ "outcome": "Allowed", "dataKey": { "servedFrom": "KMS", "mintedAt": minted } }),
        )
    };
    assert_eq!(troubles(&TRAIL, &[answered(1)]), 0);
    assert_eq!(troubles(&TRAIL, &[answered(3)]), 1, "an attempt before may have had no answer");
    let check = json!({ "outcome": "Allowed", "failedCheck": { "keyArn": KEY, "operation": "Decrypt", "reason": "KMS_UNAVAILABLE" } });
    assert_eq!(troubles(&TRAIL, &[own(1, "ReportFailedCheck", check)]), 1);
    let notice = json!({ "outcome": "Allowed", "journal": { "unrecordedKmsAnswers": 1 } });
    assert_eq!(troubles(&TRAIL, &[own(30, "ReportNotice", notice)]), 1);
}

/// A renewal is asked for beside the calls, and a lost answer leaves nothing but the draw that has asked for it.
#[test]
fn a_data_key_that_was_due_for_renewal_may_have_been_renewed_in_vain() {
    let drawn = |minutes: i64, minted: i64, used: u64| {
        let data_key = json!({
            "servedFrom": "CACHE", "mintedAt": time(minted), "expiresAt": time(minted + 60), "messagesUsed": used, "messagesLimit": 100,
            "bytesUsed": 0, "bytesLimit": 0,
        });
        activity(minutes, "Decrypt", None, json!({ "outcome": "Allowed", "dataKey": data_key }))
    };
    let troubles = |all: &[Value]| {
        let mut records = looking_for(KEY);
        add(&mut records, &TRAIL, all);
        records.end();
        records.troubles("r").count()
    };
    assert_eq!(troubles(&[drawn(0, -20, 1)]), 0, "it is new");
    assert_eq!(troubles(&[drawn(0, -50, 1)]), 1, "it is old");
    assert_eq!(troubles(&[drawn(0, -20, 80)]), 1, "it is used up");
    assert_eq!(troubles(&[drawn(-20, -70, 1)]), 0, "at another time");
    assert_eq!(troubles(&[drawn(0, -50, 1), kms(0, "mint", None)]), 0, "KMS has answered");
    assert_eq!(troubles(&[drawn(0, -50, 1), kms(0, "mint", Some("DryRunOperationException"))]), 1);
}

#[test]
fn a_process_that_was_killed_may_have_done_it() {
    let start = |minutes| own(minutes, "StartBroker", json!({ "outcome": "Allowed" }));
    let close = |minutes| own(minutes, "CloseTrail", json!({ "outcome": "Allowed" }));
    let unknown = ReadTrail { is_from_its_start: false, ..TRAIL };
    for (trail, records, expected) in [
        (&TRAIL, vec![start(-60)], 0),
        (&TRAIL, vec![start(-60), kms(-20, "x", None), start(30)], 1),
        (&TRAIL, vec![start(-60), kms(-20, "x", None), start(-10)], 0),
        (&TRAIL, vec![start(-60), kms(20, "x", None), start(30)], 0),
        (&TRAIL, vec![start(-60), kms(-20, "x", None), close(-19), start(30)], 0),
        (&unknown, vec![start(30)], 1),
        (&unknown, vec![start(-30)], 0),
        (&TRAIL, vec![start(30)], 0),
    ] {
        assert_eq!(troubles(trail, &records), expected, "{records:#?}");
    }
}

#[test]
fn a_log_file_that_cannot_be_read_may_have_it() {
    for (times, expected) in [
        ([Some(AT - Duration::HOUR), Some(AT + Duration::HOUR)], 1),
        ([Some(AT + Duration::HOUR), Some(AT + Duration::HOUR)], 0),
        ([None, None], 1),
    ] {
        let mut records = looking_for(KEY);
        records.leave_out(&TRAIL, times);
        assert_eq!(records.troubles("r").count(), expected);
    }
}

#[test]
fn replicas_of_a_multi_region_key_are_one_key_to_what_had_no_answer() {
    let (home, away) = (
        KEY.replace("key/k", "key/mrk-1"),
        KEY.replace("us-west-2", "eu-west-1").replace("key/k", "key/mrk-1"),
    );
    let mut failed = activity(0, "Decrypt", Some("KMSUnavailable"), json!({ "outcome": "Failed" }));
    failed["resources"][0]["ARN"] = home.into();
    let mut records = looking_for(&away);
    add(&mut records, &TRAIL, &[failed]);
    assert_eq!(records.troubles("r").count(), 1);
}

#[test]
fn the_keys_of_the_trail_are_known_by_what_it_asks_for_itself() {
    let mut records = looking_for(KEY);
    let identity = json!({ "type": "AssumedRole", "invokedBy": "key-broker" });
    let of_trail = |name: &str, key: &str, context: Value| {
        let mut record = kms(0, "x", None);
        record["eventName"] = name.into();
        record["userIdentity"] = identity.clone();
        record["resources"][0]["ARN"] = key.into();
        record["requestParameters"] = json!({ "encryptionContext": context });
        record
    };
    let bound = json!({ "aws:cloudtrail:arn": "arn:aws:cloudtrail:us-west-2:111122223333:trail/t" });
    add(
        &mut records,
        &TRAIL,
        &[
            of_trail("Sign", "signing", json!({})),
            of_trail("GenerateDataKey", "encrypting", bound),
            of_trail("GenerateDataKey", "checked", json!({})),
        ],
    );
    assert_eq!(records.trail_keys, BTreeSet::from(["encrypting".to_owned(), "signing".to_owned()]));
    assert!(records.keys.is_empty(), "a dry run of the broker's own is no workload's call");
}
