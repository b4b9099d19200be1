//! What was taken away is found in AWS's own records, as AWS documents them; uses after it are held against what the broker has promised,
//! and any order of takings, returns and uses comes to what a list of them says.

use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ROLE: &str = "arn:aws:sts::111122223333:assumed-role/broker/pod-1";
const START: OffsetDateTime = datetime!(2026-11-21 10:00 UTC);

fn time(second: i64) -> String {
    key_broker_trail::record::record_time(START + Duration::seconds(second))
}

fn extend(object: &mut Value, parts: Value) {
    if let Value::Object(parts) = parts {
        object.as_object_mut().expect("an object").extend(parts);
    }
}

/// A record of AWS's in the form of its documentation
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/understanding-kms-entries.html>).
fn aws(name: &str, second: i64, parts: Value) -> Value {
    let mut record = json!({
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "IAMUser", "principalId": "EX_PRINCIPAL_ID", "arn": "arn:aws:iam::111122223333:user/Alice",
            "accountId": "111122223333", "accessKeyId": "EXAMPLE_KEY_ID", "userName": "Alice",
        },
        "eventTime": time(second),
        "eventSource": "kms.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-west-2",
        "sourceIPAddress": "192.0.2.0",
        "userAgent": "AWS Internal",
        "requestParameters": { "keyId": "1234abcd-12ab-34cd-56ef-1234567890ab" },
        "responseElements": null,
        "requestID": format!("{name}-{second}"),
        "eventID": format!("event {name} {second}"),
        "readOnly": false,
        "resources": [{ "accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": KEY }],
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": "111122223333",
        "eventCategory": "Management",
    });
    extend(&mut record, parts);
    record
}

/// As AWS KMS writes what it does by itself.
fn of_kms_itself(name: &str, second: i64) -> Value {
    let identity = json!({ "accountId": "111122223333", "invokedBy": "AWS Internal" });
    let mut record = aws(
        name,
        second,
        json!({ "userIdentity": identity, "eventType": "AwsServiceEvent", "requestParameters": null }),
    );
    record.as_object_mut().expect("an object").remove("requestID");
    record
}

fn of_iam(name: &str, second: i64) -> Value {
    let asked = json!({ "roleName": "broker", "policyName": "keys" });
    let parts = json!({ "eventSource": "iam.amazonaws.com", "awsRegion": "us-east-1", "requestParameters": asked, "resources": null });
    aws(name, second, parts)
}

fn start(seconds: u32, mode: &str) -> Value {
    let reuse =
        json!({ "revocationCheckSeconds": seconds, "revocationCheck": mode, "unverifiedMaxSeconds": 300 });
    json!({
        "eventTime": time(0), "eventSource": "keybroker.v1.KeyBroker", "eventName": "StartBroker", "awsRegion": "us-west-2",
        "eventID": "start",
        "additionalEventData": { "outcome": "Allowed", "broker": { "reuse": reuse }, "identity": { "arn": ROLE } },
    })
}

/// A hit of a data key that KMS made at second `minted` and that is kept for a day, for tenant acme.
fn hit(second: i64, minted: i64, data_key: Value) -> Value {
    let mut told = json!({
        "servedFrom": "CACHE", "kmsRequestID": "mint", "mintedAt": time(minted), "expiresAt": time(minted + 86_400),
    });
    extend(&mut told, data_key);
    json!({
        "eventTime": time(second), "eventSource": "keybroker.v1.KeyBroker", "eventName": "GenerateDataKey", "awsRegion": "us-west-2",
        "requestParameters": { "keyId": "alias/a", "encryptionContext": { "tenant": "acme" } },
        "additionalEventData": { "outcome": "Allowed", "dataKey": told },
        "eventID": format!("hit {second}"),
        "resources": [{ "accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": KEY }],
    })
}

fn allowed(second: i64, scope: &str) -> Value {
    json!({ "lastAllowed": { "time": time(second), "kmsRequestID": "check", "kmsEventID": "e", "scope": scope } })
}

fn takings(aws: &[Value], ours: &[Value]) -> Vec<ListedTaking> {
    let question =
        Question { since: None, until: None, settled: START + Duration::DAY, trail_arns: BTreeSet::new() };
    let mut takings = Takings::new(question, Duration::minutes(5), None);
    for record in aws {
        takings.add_aws(&record.to_string()).expect("a record");
    }
    for record in ours {
        let json = record.to_string();
        takings.add_ours("trail", &ReadRecord::parse(&json).expect("a record")).expect("a record");
    }
    takings.finish(&BTreeSet::from([KEY.to_owned()])).takings
}

/// What the one taking comes to, by how long the key was served.
fn verdict(aws: &[Value], ours: &[Value]) -> (Verdict, Option<i64>) {
    let all = takings(aws, ours);
    assert_eq!(all.len(), 1, "{all:?}");
    (all[0].verdict, all[0].served_for_seconds)
}

#[test]
fn a_key_that_is_nobodys_is_out_of_use_within_the_promise() {
    let ways = [
        aws("DisableKey", 100, json!({})),
        aws("ScheduleKeyDeletion", 100, json!({})),
        aws("DeleteImportedKeyMaterial", 100, json!({ "responseElements": { "keyId": KEY } })),
        of_kms_itself("DeleteKey", 100),
        of_kms_itself("DeleteExpiredKeyMaterial", 100),
    ];
    for way in ways {
        let at =
            |second| verdict(std::slice::from_ref(&way), &[start(60, "key"), hit(second, 50, json!({}))]);
        assert_eq!(at(100), (Verdict::Held, None), "not after it: {way}");
        assert_eq!(at(100 + 360), (Verdict::Held, Some(360)), "{way}");
        assert_eq!(at(100 + 361), (Verdict::Late, Some(361)), "{way}");
        let asked_in_vain = hit(100 + 660, 50, json!({ "lastCheckFailed": "a-record" }));
        assert_eq!(
            verdict(std::slice::from_ref(&way), &[start(60, "key"), asked_in_vain]),
            (Verdict::Held, Some(660))
        );
        let older = verdict(std::slice::from_ref(&way), &[hit(461, 50, json!({}))]);
        assert_eq!(older, (Verdict::CannotTell, Some(361)), "nothing is promised");
        let failed = aws("DisableKey", 100, json!({ "errorCode": "AccessDenied" }));
        assert!(takings(&[failed], &[start(60, "key"), hit(900, 50, json!({}))]).is_empty());
    }
}

#[test]
fn describing_a_key_is_no_use_of_it() {
    let mut described = hit(900, 50, json!({ "servedFrom": "KMS" }));
    described["eventName"] = "DescribeKey".into();
    assert_eq!(
        verdict(&[aws("DisableKey", 100, json!({}))], &[start(60, "key"), described]),
        (Verdict::Held, None)
    );
}

#[test]
fn without_checks_data_keys_live_as_long_as_they_may_and_none_is_made() {
    let way = [aws("DisableKey", 100, json!({}))];
    let short = |second, minted| hit(second, minted, json!({ "expiresAt": time(minted + 1_000) }));
    assert_eq!(verdict(&way, &[start(0, "key"), short(1_050, 50)]), (Verdict::Held, Some(950)));
    assert_eq!(verdict(&way, &[start(0, "key"), short(1_051, 50)]), (Verdict::Late, Some(951)));
    assert_eq!(
        verdict(&way, &[start(0, "key"), short(1_050, 500)]),
        (Verdict::Late, Some(950)),
        "made after it"
    );
}

#[test]
fn enabling_and_importing_end_it_and_cancelling_a_deletion_does_not() {
    let hit = hit(5_000, 50, json!({}));
    for (ends, is_late) in [("EnableKey", false), ("ImportKeyMaterial", false), ("CancelKeyDeletion", true)] {
        let events = [aws("ScheduleKeyDeletion", 100, json!({})), aws(ends, 4_000, json!({}))];
        let expected = if is_late { Verdict::Late } else { Verdict::Held };
        assert_eq!(verdict(&events, &[start(60, "key"), hit.clone()]).0, expected, "{ends}");
        let failed =
            [events[0].clone(), aws(ends, 4_000, json!({ "errorCode": "KMSInvalidStateException" }))];
        assert_eq!(verdict(&failed, &[start(60, "key"), hit.clone()]).0, Verdict::Late, "{ends}");
    }
}

/// A grant as it begins, with this constraint.
fn grant(constraints: Value) -> Value {
    let mut asked = json!({
        "keyId": KEY, "operations": ["GenerateDataKey", "Decrypt"],
        "granteePrincipal": "arn:aws:iam::111122223333:role/service/broker",
    });
    asked["constraints"] = constraints;
    aws(
        "CreateGrant",
        1,
        json!({ "requestParameters": asked, "responseElements": { "grantId": "g", "keyId": KEY } }),
    )
}

fn revoked() -> Value {
    aws("RevokeGrant", 100, json!({ "requestParameters": { "keyId": KEY, "grantId": "g" } }))
}

/// As AWS documents it: without parameters, with the grant's id beside them.
fn retired() -> Value {
    aws("RetireGrant", 100, json!({ "requestParameters": null, "additionalEventData": { "grantId": "g" } }))
}

#[test]
fn a_grant_is_judged_by_its_beginning() {
    let acme = json!({ "encryptionContextSubset": { "tenant": "acme" } });
    let globex = json!({ "encryptionContextEquals": { "tenant": "globex" } });
    for ends in [revoked(), retired()] {
        let judged = |begins: Option<Value>, mode: &str, hit: Value| {
            let events: Vec<Value> = begins.into_iter().chain([ends.clone()]).collect();
            verdict(&events, &[start(60, mode), hit])
        };
        let late = |more: Value| hit(900, 50, more);
        assert_eq!(judged(Some(grant(acme.clone())), "context", late(json!({}))).0, Verdict::Late);
        assert_eq!(judged(Some(grant(acme.clone())), "context", hit(460, 50, json!({}))).0, Verdict::Held);
        // By default, a context is out of use within its data keys' own bounds.
        assert_eq!(judged(Some(grant(acme.clone())), "key", late(json!({}))).0, Verdict::Held);
        assert_eq!(judged(Some(grant(globex.clone())), "context", late(json!({}))), (Verdict::Held, None));
        let still = judged(Some(grant(acme.clone())), "context", late(allowed(880, "CONTEXT")));
        assert_eq!(still, (Verdict::Held, None), "KMS allows it by another permission");
        assert_eq!(judged(Some(grant(acme.clone())), "context", late(allowed(880, "KEY"))).0, Verdict::Late);
        assert_eq!(
            judged(Some(grant(json!(null))), "key", late(json!({}))).0,
            Verdict::Late,
            "of all contexts"
        );
        assert_eq!(judged(Some(grant(json!(null))), "key", late(allowed(880, "KEY"))).0, Verdict::Held);
        assert_eq!(judged(None, "context", late(json!({}))).0, Verdict::CannotTell);
        assert_eq!(judged(None, "context", late(allowed(880, "CONTEXT"))).0, Verdict::Held);
    }
    let other = [
        aws(
            "CreateGrant",
            1,
            json!({
                "requestParameters": { "operations": ["GenerateDataKey"], "granteePrincipal": "rds.us-west-2.amazonaws.com" },
                "responseElements": { "grantId": "g" },
            }),
        ),
        revoked(),
    ];
    assert!(takings(&other, &[start(60, "key"), hit(900, 50, json!({}))]).is_empty(), "not the broker's");
}

#[test]
fn what_a_policy_says_is_not_judged_and_need_not_be_where_kms_was_asked() {
    let ways = [
        aws(
            "PutKeyPolicy",
            100,
            json!({ "requestParameters": { "keyId": KEY, "policyName": "default", "policy": "{}" } }),
        ),
        aws("UntagResource", 100, json!({ "requestParameters": { "keyId": KEY, "tagKeys": ["Dept"] } })),
        of_iam("DeleteRolePolicy", 100),
        of_iam("DetachRolePolicy", 100),
        of_iam("PutRolePolicy", 100),
    ];
    for way in ways {
        // AWS's files tell until the end of the last day that they have a record of in a region.
        let judged = |mode: &str, hit: Value| verdict(std::slice::from_ref(&way), &[start(60, mode), hit]);
        assert_eq!(judged("key", hit(900, 50, json!({}))), (Verdict::CannotTell, Some(800)), "{way}");
        assert_eq!(judged("key", hit(460, 50, json!({}))).0, Verdict::Held, "{way}");
        assert_eq!(judged("key", hit(900, 50, allowed(880, "KEY"))).0, Verdict::Held, "{way}");
        assert_eq!(judged("context", hit(900, 50, allowed(880, "KEY"))).0, Verdict::CannotTell, "{way}");
        assert_eq!(judged("context", hit(900, 50, allowed(880, "CONTEXT"))), (Verdict::Held, None), "{way}");
    }
    let mut other = of_iam("DeleteRolePolicy", 100);
    other["requestParameters"]["roleName"] = "other".into();
    assert!(takings(&[other], &[start(60, "key"), hit(900, 50, json!({}))]).is_empty());
}

#[test]
fn a_replica_is_taken_away_for_itself() {
    let (home, away) =
        (KEY.replace("key/", "key/mrk-"), KEY.replace("key/", "key/mrk-").replace("us-west-2", "us-east-1"));
    let taken = |arn: &str| {
        aws(
            "DisableKey",
            100,
            json!({ "resources": [{ "ARN": arn }], "requestParameters": { "keyId": arn } }),
        )
    };
    // The broker's own records have the ARN of its own region; KMS's have that of the region which answered.
    let mint = json!({
        "eventTime": time(50), "eventSource": "kms.amazonaws.com", "eventName": "GenerateDataKey", "awsRegion": "us-east-1",
        "eventID": "mint", "requestID": "mint", "resources": [{ "ARN": away }],
    });
    let mut hit = hit(900, 50, json!({}));
    hit["resources"][0]["ARN"] = home.clone().into();
    let verdict = |event| {
        takings(&[event], &[start(60, "key"), mint.clone(), hit.clone()]).first().map(|taking| taking.verdict)
    };
    assert_eq!(verdict(taken(&away)), Some(Verdict::Late));
    assert_eq!(verdict(taken(&home)), None, "no answer is of that one");
}

#[test]
fn what_is_too_new_to_tell_is_left_to_the_next_time() {
    let mut question = Question {
        since: None,
        until: None,
        settled: START + Duration::seconds(800),
        trail_arns: BTreeSet::new(),
    };
    for (settled, late) in [(800, 0), (1_000, 1)] {
        question.settled = START + Duration::seconds(settled);
        let mut takings = Takings::new(question.clone(), Duration::minutes(5), None);
        takings.add_aws(&aws("DisableKey", 100, json!({})).to_string()).expect("a record");
        for record in [start(60, "key"), hit(900, 50, json!({}))] {
            let json = record.to_string();
            takings.add_ours("t", &ReadRecord::parse(&json).expect("a record")).expect("a record");
        }
        let found = takings.finish(&BTreeSet::from([KEY.to_owned()]));
        assert_eq!(found.takings[0].late_uses, late, "an EnableKey may be on its way");
    }
}

/// What happens in a second.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Taken(&'static str),
    Restored(&'static str),
    Used { is_unverified: bool },
}

fn happenings() -> impl Strategy<Value = Vec<(i64, Happening)>> {
    let one = prop_oneof![
        Just(Happening::Taken("DisableKey")),
        Just(Happening::Taken("ScheduleKeyDeletion")),
        Just(Happening::Restored("EnableKey")),
        Just(Happening::Restored("ImportKeyMaterial")),
        any::<bool>().prop_map(|is_unverified| Happening::Used { is_unverified }),
    ];
    prop::collection::vec((1_i64..3_000, one), 0..40)
}

/// The same by a list of all that happened: for each taking, the last use after it and before anything gave the key back.
fn naive(all: &[(i64, Happening)]) -> Vec<(i64, Option<i64>, bool)> {
    let mut takings = Vec::new();
    for (taken, what) in all {
        if !matches!(what, Happening::Taken(_)) {
            continue;
        }
        let restored = all.iter().filter(|(at, what)| matches!(what, Happening::Restored(_)) && at >= taken);
        let end = restored.map(|(at, _)| *at).min().unwrap_or(i64::MAX);
        let mut last = None;
        let mut is_late = false;
        for (at, what) in all {
            if let Happening::Used { is_unverified } = what
                && at > taken
                && *at < end
            {
                last = last.max(Some(at - taken));
                is_late |= *at > taken + 300 + 60 + if *is_unverified { 300 } else { 0 };
            }
        }
        takings.push((*taken, last, is_late));
    }
    takings.sort_unstable();
    takings
}

proptest! {
    #[test]
    fn any_interleaving_comes_to_what_a_list_says(mut all in happenings()) {
        // An eventID is of one event.
        all.sort_by_key(|(at, _)| *at);
        all.dedup_by_key(|(at, _)| *at);
        let mut events = Vec::new();
        let mut records = vec![start(60, "key")];
        for (at, what) in &all {
            match what {
                Happening::Taken(name) | Happening::Restored(name) => events.push(aws(name, *at, json!({}))),
                Happening::Used { is_unverified } => {
                    let failed = if *is_unverified { json!({ "lastCheckFailed": "a-record" }) } else { json!({}) };
                    records.push(hit(*at, 0, failed));
                }
            }
        }
        let found: Vec<_> = takings(&events, &records)
            .into_iter()
            .map(|taking| {
                let at = (taking.event_time - START).whole_seconds();
                (at, taking.served_for_seconds, taking.verdict == Verdict::Late)
            })
            .collect();
        prop_assert_eq!(found, naive(&all));
    }
}
