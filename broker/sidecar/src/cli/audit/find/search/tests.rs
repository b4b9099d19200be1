//! Every record of a story is found, once, from whichever id one begins and in whichever order records lie; what has nothing to do with it
//! is not; and places that cannot have more are not read again.

use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

const START: OffsetDateTime = datetime!(2026-03-01 08:00 UTC);

fn uuid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn ciphertext(number: u32) -> String {
    format!("{number:064x}")
}

/// A call to KMS: its requestID is of the number, its eventID of a million more.
fn kms(number: u32, name: &str, minute: i64) -> String {
    record(
        "kms.amazonaws.com",
        name,
        minute,
        &uuid(number),
        &uuid(number + 1_000_000),
        &Value::Null,
        &Value::Null,
    )
}

/// A call that got the data key of a ciphertext, from the call to KMS of this number.
fn draw(number: u32, kms: u32, (served_from, minted): (&str, i64), made: u32, minute: i64) -> String {
    let key = json!({
        "servedFrom": served_from, "kmsRequestID": uuid(kms), "kmsEventID": uuid(kms + 1_000_000),
        "mintedAt": time(minted), "ciphertextBlobSHA256": ciphertext(made),
    });
    call(
        number,
        "GenerateDataKey",
        minute,
        &Value::Null,
        &json!({ "outcome": "Allowed", "dataKey": key, "trace": trace(number) }),
    )
}

fn decrypt(number: u32, kms: u32, made: u32, minute: i64) -> String {
    let key = json!({
        "servedFrom": "KMS", "kmsRequestID": uuid(kms), "kmsEventID": uuid(kms + 1_000_000), "mintedAt": time(minute),
    });
    let asked = json!({ "ciphertextBlobSHA256": ciphertext(made) });
    call(number, "Decrypt", minute, &asked, &json!({ "outcome": "Allowed", "dataKey": key }))
}

fn call(number: u32, name: &str, minute: i64, asked: &Value, data: &Value) -> String {
    record("keybroker.v1.KeyBroker", name, minute, &uuid(number), &uuid(number + 1_000_000), asked, data)
}

fn record(
    source: &str,
    name: &str,
    minute: i64,
    request: &str,
    event: &str,
    asked: &Value,
    data: &Value,
) -> String {
    json!({
        "eventTime": time(minute), "eventSource": source, "eventName": name, "awsRegion": "us-west-2",
        "requestParameters": asked, "additionalEventData": data, "requestID": request, "eventID": event,
    })
    .to_string()
}

fn trace(number: u32) -> Value {
    json!({ "traceId": format!("{:032x}", number / 10), "spanId": format!("{number:016x}") })
}

fn time(minute: i64) -> String {
    key_broker_trail::record::record_time(START + Duration::minutes(minute))
}

/// Searches through places; with how many of them were read.
fn search(wanted: Wanted, places: &[Vec<String>]) -> (Story, usize) {
    let times = places.iter().map(|records| {
        let mut at: Vec<_> =
            records.iter().map(|text| ReadRecord::parse(text).expect("a record").event_time).collect();
        at.sort();
        [at.first().copied(), at.last().copied()]
    });
    let (mut search, mut reads) = (Search::new(wanted, Period::default(), times), 0);
    loop {
        let due = search.next_pass();
        if due.is_empty() {
            return (search.story(), reads);
        }
        for place in due {
            reads += 1;
            let records: Vec<&str> = places[place].iter().map(String::as_str).collect();
            search.take(place, &records).expect("records");
        }
    }
}

fn ids(records: &Records) -> Vec<u32> {
    assert_eq!(records.in_all, records.kept.len() as u64);
    let id = |found: &Found| {
        let record = ReadRecord::parse(&found.json).expect("a record");
        u32::from_str_radix(&record.request_id[..8], 16).expect("a number")
    };
    records.kept.iter().map(id).collect()
}

fn id(number: u32) -> Wanted {
    Wanted::Id(uuid(number))
}

/// Two data keys of one day, each with its uses here and there, and both decrypted on another day.
fn places() -> Vec<Vec<String>> {
    let day = 24 * 60;
    vec![
        vec![kms(1, "GenerateDataKey", 0), draw(10, 1, ("KMS", 0), 7, 0), kms(2, "GenerateDataKey", 1)],
        vec![draw(20, 2, ("KMS", 1), 8, 1), draw(11, 1, ("CACHE", 0), 7, 2)],
        vec![draw(21, 2, ("CACHE", 1), 8, 3), draw(12, 1, ("CACHE", 0), 7, 3)],
        vec![kms(3, "Decrypt", 2 * day)],
        vec![decrypt(30, 3, 7, 2 * day), kms(4, "Decrypt", 2 * day), decrypt(31, 4, 8, 2 * day)],
        vec![call(40, "GenerateRandom", 3 * day, &Value::Null, &json!({ "outcome": "Denied" }))],
    ]
}

#[test]
fn every_id_leads_to_the_whole_story_of_its_data_key() {
    let places = places();
    let (kms_ids, uses) = ([1, 3], [10, 11, 12, 30]);
    for (wanted, about) in [
        (id(1), 10),
        (id(1_000_001), 10),
        (id(3), 30),
        (id(1_000_003), 30),
        (id(10), 10),
        (id(1_000_011), 11),
        (id(12), 12),
        (id(30), 30),
        (Wanted::Sha256(ciphertext(7)), 10),
    ] {
        let what = format!("{wanted:?}");
        let (story, _) = search(wanted, &places);
        assert_eq!(ids(&story.calls), [about], "{what}");
        assert_eq!(story.data_keys.len(), 1, "{what}");
        let key = &story.data_keys[0];
        assert_eq!(key.ciphertext_sha256.as_deref(), Some(&*ciphertext(7)), "{what}");
        assert_eq!(ids(&key.kms_records), kms_ids, "{what}");
        let others: Vec<u32> = uses.into_iter().filter(|id| *id != about).collect();
        assert_eq!(ids(&key.uses), others, "{what}");
    }
}

#[test]
fn the_order_of_places_and_of_records_is_of_no_account() {
    let mut places = places();
    for turn in 0..places.len() {
        places.rotate_left(1);
        for place in &mut places {
            place.reverse();
        }
        let (story, _) = search(id(21), &places);
        assert_eq!(
            (ids(&story.calls), ids(&story.data_keys[0].kms_records)),
            (vec![21], vec![2, 4]),
            "{turn}"
        );
        assert_eq!(ids(&story.data_keys[0].uses), [20, 31], "{turn}");
    }
}

#[test]
fn a_trace_may_have_several_calls_and_several_data_keys() {
    // The spans of 20 and 21 are of one trace; 10, 11 and 12 of another.
    let (story, _) = search(Wanted::Trace(format!("{:032x}", 1)), &places());
    assert_eq!((ids(&story.calls), ids(&story.data_keys[0].uses)), (vec![10, 11, 12], vec![30]));
    let mut places = places();
    places.push(vec![call(
        13,
        "DescribeKey",
        9,
        &Value::Null,
        &json!({ "outcome": "Allowed", "trace": trace(22) }),
    )]);
    let (story, _) = search(Wanted::Trace(format!("{:032x}", 2)), &places);
    assert_eq!((ids(&story.calls), story.data_keys.len()), (vec![20, 21, 13], 1));
}

#[test]
fn what_was_refused_has_a_story_too_and_what_nobody_has_has_none() {
    let (story, reads) = search(id(40), &places());
    assert_eq!((ids(&story.calls), story.data_keys.len(), reads), (vec![40], 0, places().len()));
    let (story, reads) = search(id(99), &places());
    assert_eq!((story.calls.in_all, story.data_keys.len(), reads), (0, 0, places().len()));
    let mut places = places();
    let count = json!({
        "count": 9, "firstRequestID": uuid(50), "lastRequestID": uuid(59), "keyNames": [], "differentKeyNames": 1,
    });
    places.push(vec![call(
        50,
        "Decrypt",
        9,
        &Value::Null,
        &json!({ "outcome": "Throttled", "refusals": count }),
    )]);
    assert_eq!(ids(&search(id(59), &places).0.calls), [50], "the last of those that one record stands for");
    let withdrawn = json!({ "outcome": "Failed", "withdrawsEventID": uuid(1_000_010) });
    places.push(vec![call(60, "GenerateDataKey", 9, &Value::Null, &withdrawn)]);
    assert_eq!(ids(&search(id(1_000_010), &places).0.calls), [10, 60]);
}

/// A call to KMS that an incident begins with may have been made by the broker for itself, or its caller may have gone away.
#[test]
fn a_call_to_kms_that_no_call_names_is_told_alone() {
    let (story, _) = search(id(5), &[vec![kms(5, "Sign", 0)]]);
    assert_eq!((story.calls.in_all, ids(&story.data_keys[0].kms_records)), (0, vec![5]));
    assert_eq!(story.data_keys[0].ciphertext_sha256, None);
}

/// Of a data key it is known when it was made, and of a call to KMS how long its answer is kept: a long trail is not read over and over.
#[test]
fn only_places_that_may_have_more_are_read_again() {
    let day = 24 * 60;
    let quiet = |number: u32, minute| vec![kms(number, "GenerateRandom", minute)];
    let mut places: Vec<_> =
        (100..200).map(|number| quiet(number, (i64::from(number) - 150) * day)).collect();
    places.insert(50, vec![kms(1, "GenerateDataKey", 0), draw(10, 1, ("KMS", 0), 7, 0)]);
    places.push(vec![decrypt(30, 3, 7, 60 * day), kms(3, "Decrypt", 60 * day)]);
    let (story, reads) = search(id(1), &places);
    assert_eq!((ids(&story.calls), ids(&story.data_keys[0].uses)), (vec![10], vec![30]));
    assert!(reads <= places.len() + 2, "{reads} readings of {} places", places.len());
    // Of a decrypt alone nobody knows when its ciphertext was made: all that is before is read once more.
    let (story, reads) = search(id(30), &places);
    assert_eq!((ids(&story.calls), ids(&story.data_keys[0].uses)), (vec![30], vec![10]));
    assert!(reads <= 2 * places.len() + 2, "{reads} readings of {} places", places.len());
}

#[test]
fn a_trace_id_that_is_on_everything_does_not_take_all_memory() {
    let number = |at: u32| 1_000 + at;
    let trace = json!({ "traceId": "f".repeat(32), "spanId": "f".repeat(16) });
    let place: Vec<String> = (0..11_000)
        .map(|at| {
            let key = json!({ "servedFrom": "KMS", "kmsEventID": uuid(at), "ciphertextBlobSHA256": ciphertext(at) });
            let data = json!({ "outcome": "Allowed", "dataKey": key, "trace": trace });
            call(number(at), "GenerateDataKey", 0, &Value::Null, &data)
        })
        .collect();
    let (story, _) = search(Wanted::Trace("f".repeat(32)), &[place]);
    assert_eq!((story.calls.in_all, story.calls.kept.len()), (11_000, MOST_RECORDS));
    assert_eq!((story.data_keys.len(), story.is_cut), (MOST_KEYS, true));
}
