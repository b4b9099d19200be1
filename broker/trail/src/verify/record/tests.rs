//! Records of a broker match the profiles, and every deviation is named.

use std::hash::RandomState;

use time::Duration;

use super::*;
use crate::notice::{Reloads, Untold};
use crate::record::{ActivityRecord, AwsCaller, UserIdentity};
use crate::verify::forge::{Mint, START, refusal};

fn why(record: &str) -> Option<String> {
    read(record, "111122223333", &RandomState::new(), None).err().map(|flaw| flaw.why)
}

#[test]
fn what_a_broker_writes_is_of_a_profile() {
    let mint = Mint::new(1, START);
    for record in [mint.record(), mint.draw(1).record(), refusal(START + Duration::SECOND)] {
        assert_eq!(why(&record), None, "{record}");
    }
}

fn notice() -> String {
    let caller = AwsCaller {
        account_id: "111122223333".into(),
        partition: "aws".into(),
        region: "us-west-2".into(),
        kms_host: "kms.us-west-2.amazonaws.com".into(),
        source_address: "127.0.0.1".into(),
    };
    let journal = Notice { missing_records: 20, ..Notice::default() };
    let reloads = Reloads { policy: 1, ..Reloads::default() };
    let untold = Untold { id: Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0000), journal, reloads };
    let mut line = Vec::new();
    ActivityRecord::of_notice(&untold, START, &caller).append_to(&mut line);
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

#[test]
fn a_record_of_the_brokers_own_tells_and_has_nothing_else() {
    let record = notice();
    assert_eq!(why(&record), None, "{record}");
    let swapped = |one: &str, other: &str| {
        assert!(record.contains(one), "{one}: {record}");
        record.replacen(one, other, 1)
    };
    for (one, other, word) in [
        ("\"type\":\"Broker\"", "\"type\":\"UnixWorkload\"", "type"),
        ("\"principalId\":\"key-broker\"", "\"principalId\":\"unix:uid/0\"", "type"),
        ("\"ReportNotice\"", "\"GenerateRandom\"", "type"),
        ("\"ReportNotice\"", "\"ReportOther\"", "action"),
        (",\"noticeID\":\"a0000000-0000-4000-8000-000000000000\"", "", "tells nothing"),
        ("\"noticeID\":\"a", "\"noticeID\":\"A", "noticeID"),
        ("\"journal\":{\"missingRecords\":20},\"reloads\":{\"policy\":1},", "", "nothing is told"),
        ("\"requestParameters\":null", "\"requestParameters\":{}", "only calls"),
        ("\"journal\":{\"missingRecords\":20}", "\"journal\":[0,0,20,0]", "object"),
        ("\"responseElements\"", "\"x\"", "x"),
    ] {
        let why = why(&swapped(one, other)).unwrap_or_else(|| panic!("{other} is taken"));
        assert!(why.contains(word), "{other}: {why}");
    }
}

/// Removing from a record of an answer what it is checked against makes it invalid.
#[test]
fn an_answer_tells_what_it_is_held_against() {
    let mint = Mint::new(1, START);
    let record = mint.draw(1).record();
    for (field, instead) in [
        ("dataKey", ""),
        ("policy", ""),
        ("requestParameters", "\"requestParameters\":null,"),
        ("resources", ""),
    ] {
        let start = record.find(&format!("\"{field}\":")).expect("is there");
        let value = start + field.len() + 3;
        let end = if record[value..].starts_with('[') {
            value + record[value..].find(']').expect("ends") + 1
        } else {
            value + 2 + end_of_object(&record[value + 1..])
        };
        // With the comma after it or, at the end, the one before it.
        let stripped = match record[end..].strip_prefix(',') {
            Some(rest) => format!("{}{instead}{rest}", &record[..start]),
            None => format!("{}{}", &record[..start - 1], &record[end..]),
        };
        let why = why(&stripped).unwrap_or_else(|| panic!("without {field} it is taken"));
        assert!(why.contains(field), "{field}: {why}");
    }
    let counts = ",\"messagesUsed\":1,\"messagesLimit\":10,\"bytesUsed\":10,\"bytesLimit\":1000";
    assert!(record.contains(counts), "{record}");
    assert!(why(&record.replace(counts, "")).is_some_and(|why| why.contains("messagesUsed")));
}

#[test]
fn every_departure_is_named() {
    let mint = Mint::new(1, START);
    let (kms, activity, refused) = (mint.record(), mint.draw(1).record(), refusal(START));
    let swapped = |record: &str, one: &str, other: &str| {
        assert!(record.contains(one), "{one}: {record}");
        record.replacen(one, other, 1)
    };
    let cases = [
        (&kms, "\"eventVersion\":\"1.11\"", "\"eventVersion\":\"1.02\"", "eventVersion"),
        (&kms, "08:00:00Z", "08:00:00.5Z", "eventTime"),
        (&kms, ",\"userIdentity\"", ", \"userIdentity\"", "compact"),
        (
            &kms,
            "\"requestParameters\":{",
            "\"errorMessage\":\"x\",\"requestParameters\":{",
            "without errorCode",
        ),
        (&kms, "\"responseElements\":null", "\"responseElements\":{}", "responseElements"),
        (&kms, "\"responseElements\":null,", "", "responseElements"),
        (&kms, "\"readOnly\":true", "\"readOnly\":false", "readOnly"),
        (&kms, "\"readOnly\":true", "\"readOnly\":\"true\"", "boolean"),
        (&kms, "\"managementEvent\":true", "\"managementEvent\":false", "managementEvent"),
        (&kms, "\"AwsApiCall\"", "\"AwsServiceEvent\"", "eventType"),
        (&kms, "us-west-2\"", "somewhere\"", "awsRegion"),
        (
            &kms,
            "\"recipientAccountId\":\"111122223333\"",
            "\"recipientAccountId\":\"222233334444\"",
            "recipient",
        ),
        (&kms, "\"keySpec\":\"AES_256\"", "\"keySpec\":\"AES_512\"", "keySpec"),
        (&kms, "\"keySpec\":\"AES_256\"", "\"keySpec\":\"AES_256\",\"numberOfBytes\":32", "operation"),
        (&kms, "\"keyId\":\"alias/dev\",", "", "operation"),
        (&kms, "{\"tenant\":\"acme\"}", "{}", "empty"),
        (&kms, "{\"tenant\":\"acme\"}", "{\"tenant\":1}", "string"),
        (&kms, "{\"tenant\":\"acme\"}", "{\"tenant\":\"acme\",\"tenant\":\"acme\"}", "in their order"),
        (&kms, "{\"tenant\":\"acme\"}", "{\"tenant\":\"acme\",\"a\":\"b\"}", "in their order"),
        (&kms, "{\"tenant\":\"acme\"}", "{\"tenant\":\"\\u0061cme\"}", "a broker writes"),
        (&kms, "\"eventName\":\"GenerateDataKey\"", "\"eventName\":\"Verify\"", "Verify"),
        (&kms, "\"eventName\":\"GenerateDataKey\"", "\"eventName\":\"Encrypt\"", "of this operation"),
        (&kms, "\"type\":\"IAMUser\"", "\"type\":\"UnixWorkload\"", "type"),
        (&kms, "\"type\":\"IAMUser\"", "\"type\":\"AssumedRole\"", "assumed role"),
        (&kms, "AWS::KMS::Key", "AWS::S3::Object", "type"),
        (&kms, ":key/", ":alias/", "ARN"),
        (&kms, "\"eventID\":\"a", "\"eventID\":\"A", "eventID"),
        (&kms, "\"eventCategory\":\"Management\"", "\"eventCategory\":\"Data\"", "eventCategory"),
        (&kms, "\"eventCategory\"", "\"more\":1,\"eventCategory\"", "more"),
        (&kms, "\"requestParameters\":{", "\"errorCode\":\"AccessDenied\",\"requestParameters\":{", "denied"),
        (&activity, "\"outcome\":\"Allowed\"", "\"outcome\":\"Granted\"", "Granted"),
        (&activity, "\"outcome\":\"Allowed\"", "\"outcome\":\"Failed\"", "errorCode"),
        (&activity, "\"outcome\":\"Allowed\"", "\"outcome\":{\"Allowed\":null}", "string"),
        (&refused, "\"outcome\":\"Denied\"", "\"outcome\":\"Allowed\"", "errorCode"),
        (&activity, "\"servedFrom\":\"KMS\"", "\"servedFrom\":\"DISK\"", "DISK"),
        (&activity, "\"kmsEventID\":\"a0000000-0000-4000-8000-000000000001\",", "", "kmsEventID"),
        (&activity, "\"mintedAt\":\"2026", "\"mintedAt\":\"x026", "mintedAt"),
        (&activity, "\"messagesUsed\":1,", "", "messagesUsed"),
        (&activity, "\"messagesUsed\":1,", "\"messagesUsed\":-1,", "-1"),
        (&activity, ",\"use\":{\"messages\":1,\"bytes\":10}", "", "without use"),
        (&activity, "\"eventName\":\"GenerateDataKey\"", "\"eventName\":\"Sign\"", "action"),
        (&activity, "\"type\":\"UnixWorkload\"", "\"type\":\"IAMUser\"", "workload"),
        (&activity, "\"principalId\":\"unix:uid/1000\"", "\"principalId\":\"\"", "principalId"),
        (&activity, "\"managementEvent\":false", "\"managementEvent\":true", "managementEvent"),
        (
            &activity,
            "\"additionalEventData\":{",
            "\"additionalEventData\":null,\"x\":{",
            "no additionalEventData",
        ),
        (&activity, "\"sourceIPAddress\":\"unix\"", "\"sourceIPAddress\":\"\"", "sourceIPAddress"),
    ];
    for (record, one, other, word) in cases {
        let why = why(&swapped(record, one, other)).unwrap_or_else(|| panic!("{other} is taken"));
        assert!(why.contains(word), "{other}: {why}");
    }
}

#[test]
fn what_is_said_to_be_redacted_is_a_digest() {
    let mint = Mint::new(1, START);
    let plain = format!("sha256:{}", "0a".repeat(32));
    for record in [mint.record(), mint.draw(1).record()] {
        let redacted = |value: &str, told: &str| {
            let head = "\"additionalEventData\":{";
            let record = record.replacen("\"tenant\":\"acme\"", &format!("\"tenant\":\"{value}\""), 1);
            let Some((before, rest)) = record.split_once(head) else {
                let data = format!("{head}\"redactedEncryptionContext\":{told}}},\"requestID\"");
                return record.replacen("\"requestID\"", &data, 1);
            };
            let end = end_of_object(rest);
            format!(
                "{before}{head}{}{}{}",
                &rest[..end],
                format_args!(",\"redactedEncryptionContext\":{told}"),
                &rest[end..]
            )
        };
        for value in [&plain, &format!("hmac-{plain}")] {
            assert_eq!(why(&redacted(value, "[\"tenant\"]")), None);
        }
        for (value, told, word) in [
            ("acme", "[\"tenant\"]", "no digest"),
            ("sha256:00", "[\"tenant\"]", "no digest"),
            (&plain.to_uppercase(), "[\"tenant\"]", "no digest"),
            (&plain, "[\"tenant\",\"user\"]", "not there"),
            (&plain, "[\"tenant\",\"tenant\"]", "each once"),
            (&plain, "{}", "sequence"),
        ] {
            let why = why(&redacted(value, told)).unwrap_or_else(|| panic!("{value} {told} is taken"));
            assert!(why.contains(word), "{value} {told}: {why}");
        }
    }
}

/// The end of the object at the start of `json`.
fn end_of_object(json: &str) -> usize {
    let mut depth = 1;
    json.bytes()
        .position(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth == 0
        })
        .expect("it ends")
}

#[test]
fn fields_come_in_cloudtrails_order_and_once() {
    let record = refusal(START);
    let (one, other) = ("\"readOnly\":true,", "\"managementEvent\":false,");
    let moved = record.replacen(one, "", 1).replacen(other, &format!("{other}{one}"), 1);
    assert_eq!(
        why(&moved).as_deref(),
        Some(
            "not as a broker writes it, from byte 682 on: \"resources\":[{\"accountId\":\"111122223333\",\"type\":\"AWS::KMS::K \
             where there should be \"readOnly\":true,\"resources\":[{\"accountId\":\"111122223333\",\"ty"
        )
    );
    let twice = record.replacen(one, &format!("{one}{one}"), 1);
    assert!(why(&twice).is_some_and(|why| why.contains("duplicate field `readOnly`")));
    for more in [" ", "x", "{}"] {
        assert!(why(&format!("{record}{more}")).is_some(), "{more:?}");
    }
}

#[test]
fn a_record_has_256_kilobytes_at_most() {
    let record = refusal(START).replacen("\"no\"", &format!("\"{}\"", "x".repeat(256 << 10)), 1);
    assert!(why(&record).is_some_and(|why| why.contains("262144 at most")));
}

#[test]
fn later_brokers_may_add_to_what_is_open_and_to_nothing_else() {
    let activity = Mint::new(1, START).draw(1).record();
    let with = |one: &str, other: &str| {
        assert!(activity.contains(one), "{one}: {activity}");
        why(&activity.replacen(one, other, 1))
    };
    for open in ["\"additionalEventData\":{", "\"dataKey\":{", "\"policy\":{", "\"details\":{"] {
        assert_eq!(with(open, &format!("{open}\"later\":[1],")), None, "{open}");
        let spaced = with(open, &format!("{open}\"later\": [1],"));
        assert!(spaced.is_some_and(|why| why.contains("compact")), "{open}");
    }
    for closed in ["\"requestParameters\":{", "\"use\":{", "\"resources\":[{", "\"userIdentity\":{"] {
        assert!(with(closed, &format!("{closed}\"later\":1,")).is_some(), "{closed}");
    }
}

/// A KMS record of a role session.
fn of_a_session(identity: &UserIdentity<'_>) -> String {
    let identity = serde_json::to_string(identity).expect("JSON");
    let record = Mint::new(1, START).record();
    let (from, to) =
        (record.find("\"userIdentity\":").expect("there"), record.find(",\"eventTime\"").expect("there"));
    format!("{}\"userIdentity\":{identity}{}", &record[..from], &record[to..])
}

fn session() -> UserIdentity<'static> {
    let arn = "arn:aws:sts::111122223333:assumed-role/broker/pod-1";
    let mut identity = UserIdentity::of_aws("111122223333", arn, "AROAEXAMPLE:pod-1", None);
    identity.access_key_id = Some("ASIAEXAMPLE".into());
    identity
}

#[test]
fn a_session_has_all_that_sts_tells_or_its_access_key_alone() {
    let whole = of_a_session(&session());
    assert_eq!(why(&whole), None, "{whole}");
    let older = whole.replacen("\"arn\":\"arn:aws:iam::111122223333:role/broker\",", "", 1);
    assert_ne!(older, whole);
    assert_eq!(why(&older), None, "brokers before left the role's ARN out");
    let other = whole.replace("::111122223333:", "::444455556666:");
    let other = other.replace("\"accountId\":\"111122223333\",\"ac", "\"accountId\":\"444455556666\",\"ac");
    assert_eq!(why(&other), None, "a role for the keys of another account: {other}");
    let user = Mint::new(1, START).record().replace("::111122223333:user", "::444455556666:user");
    let user = user.replacen("\"accountId\":\"111122223333\"", "\"accountId\":\"444455556666\"", 1);
    assert!(why(&user).is_some_and(|why| why.contains("only a role's session")), "{user}");
    let mut alone = UserIdentity::default();
    (alone.kind, alone.access_key_id) = ("Unknown".into(), Some("ASIAEXAMPLE".into()));
    let alone = of_a_session(&alone);
    assert_eq!(why(&alone), None, "{alone}");
    for (record, one, other, word) in [
        (&whole, "\"arn\":\"arn:aws:sts::111122223333:assumed-role/broker/pod-1\",", "", "type is Unknown"),
        (&whole, ":role/broker\"", ":role/other\"", "sessionIssuer.arn"),
        (
            &whole,
            "\"accountId\":\"111122223333\",\"accessKeyId\"",
            "\"accountId\":\"444455556666\",\"accessKeyId\"",
            "not that of userIdentity.arn",
        ),
        (&whole, "\"principalId\":\"AROAEXAMPLE:pod-1\",", "", "principalId"),
        (&alone, ",\"accessKeyId\":\"ASIAEXAMPLE\"", "", "accessKeyId"),
        (&alone, "\"accessKeyId\"", "\"accountId\":\"111122223333\",\"accessKeyId\"", "alone"),
        (&alone, "\"Unknown\"", "\"AssumedRole\"", "Unknown"),
    ] {
        assert!(record.contains(one), "{one}: {record}");
        let why = why(&record.replacen(one, other, 1)).unwrap_or_else(|| panic!("{other} is taken"));
        assert!(why.contains(word), "{other}: {why}");
    }
}

#[test]
fn a_report_of_an_identity_tells_whose_an_access_key_is() {
    let caller = AwsCaller {
        account_id: "111122223333".into(),
        partition: "aws".into(),
        region: "us-west-2".into(),
        kms_host: "kms.us-west-2.amazonaws.com".into(),
        source_address: "127.0.0.1".into(),
    };
    let mut line = Vec::new();
    ActivityRecord::of_identity(session(), START, &caller).append_to(&mut line);
    let record = String::from_utf8(line).expect("text").trim_end().to_owned();
    assert_eq!(why(&record), None, "{record}");
    for (one, other, word) in [
        ("\"ReportIdentity\"", "\"ReportNotice\"", "ReportIdentity"),
        (",\"accessKeyId\":\"ASIAEXAMPLE\"", "", "whose"),
        ("\"arn\":\"arn:aws:sts::111122223333:assumed-role/broker/pod-1\",", "", "whose"),
        ("\"principalId\":\"AROAEXAMPLE:pod-1\"", "\"principalId\":\"AROAEXAMPLE\"", "assumed role"),
        ("\"requestParameters\":null", "\"requestParameters\":{}", "only calls"),
    ] {
        assert!(record.contains(one), "{one}: {record}");
        let why = why(&record.replacen(one, other, 1)).unwrap_or_else(|| panic!("{other} is taken"));
        assert!(why.contains(word), "{other}: {why}");
    }
    let denied = refusal(START).replacen(
        "\"outcome\":\"Denied\"",
        "\"outcome\":\"Denied\",\"identity\":{\"type\":\"Root\"}",
        1,
    );
    assert!(why(&denied).is_some_and(|why| why.contains("ReportIdentity")), "{denied}");
}
