//! Records of a broker are of the profiles, and every departure is named.

use std::hash::RandomState;

use time::Duration;

use super::*;
use crate::audit::verify::forge::{Mint, START, refusal};

fn why(record: &str) -> Option<String> {
    read(record, "111122223333", &RandomState::new()).err().map(|flaw| flaw.why)
}

#[test]
fn what_a_broker_writes_is_of_a_profile() {
    let mint = Mint::new(1, START);
    for record in [mint.record(), mint.draw(1).record(), refusal(START + Duration::SECOND)] {
        assert_eq!(why(&record), None, "{record}");
    }
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
        (&kms, "\"responseElements\":null", "\"responseElements\":{}", "unit"),
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
        (&kms, "\"eventName\":\"GenerateDataKey\"", "\"eventName\":\"Encrypt\"", "Encrypt"),
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
        (&activity, "\"additionalEventData\":{", "\"additionalEventData\":null,\"x\":{", "x"),
        (&activity, "\"sourceIPAddress\":\"unix\"", "\"sourceIPAddress\":\"\"", "sourceIPAddress"),
    ];
    for (record, one, other, word) in cases {
        let why = why(&swapped(record, one, other)).unwrap_or_else(|| panic!("{other} is taken"));
        assert!(why.contains(word), "{other}: {why}");
    }
}

#[test]
fn fields_come_in_cloudtrails_order_and_once() {
    let record = refusal(START);
    let (one, other) = ("\"readOnly\":true,", "\"managementEvent\":false,");
    let moved = record.replacen(one, "", 1).replacen(other, &format!("{other}{one}"), 1);
    assert!(why(&moved).is_some_and(|why| why.contains("order")));
    let twice = record.replacen(one, &format!("{one}{one}"), 1);
    assert!(why(&twice).is_some_and(|why| why.contains("twice")));
    for more in [" ", "x", "{}"] {
        assert!(why(&format!("{record}{more}")).is_some(), "{more:?}");
    }
}

#[test]
fn a_record_has_256_kilobytes_at_most() {
    let record = refusal(START).replacen("\"no\"", &format!("\"{}\"", "x".repeat(256 << 10)), 1);
    assert!(why(&record).is_some_and(|why| why.contains("262144 at most")));
}
