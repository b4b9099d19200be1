//! What AWS's files have beside the trail's calls is of its class, and of no other.

use serde_json::{Value, json};
use time::macros::datetime;

use super::super::super::siblings::Siblings;
use super::super::*;
use super::{ends, of_aws, question, reconcile, record, requests, with};

#[test]
fn refused_calls_are_listed_by_error_and_are_no_findings() {
    let denied = with(
        with(record("Decrypt", "denied", 20), "/errorCode", "AccessDenied".into()),
        "/requestParameters",
        Value::Null,
    );
    let dry = with(record("GenerateDataKey", "dry", 21), "/errorCode", "DryRunOperationException".into());
    let network = json!({
        "eventTime": "2026-11-21T10:00:22Z", "eventSource": "kms.amazonaws.com", "eventName": "Decrypt", "awsRegion": "us-west-2",
        "eventID": "n", "errorCode": "VpceAccessDenied", "eventCategory": "NetworkActivity", "eventType": "AwsVpceEvent",
        "userIdentity": { "type": "AWSAccount", "principalId": "AROAEXAMPLE:pod", "accountId": "111122223333" },
    });
    let twice =
        with(with(ends()[0].clone(), "/eventCategory", "NetworkActivity".into()), "/errorCode", Value::Null);
    let insight = json!({
        "eventTime": "2026-11-21T10:00:23Z", "eventSource": "kms.amazonaws.com", "eventName": "Decrypt", "awsRegion": "us-west-2",
        "eventID": "i", "eventType": "AwsCloudTrailInsight", "eventCategory": "Insight",
    });
    let aws = [&ends()[..], &[denied, dry, network, twice, insight]].concat();
    let outcome = reconcile(&ends(), &aws, &question());
    assert_eq!((outcome.verdict, outcome.matched), (Match::Matched, 2));
    let classes = &outcome.classes;
    let refused: Vec<_> = classes.refused.iter().map(|(error, count)| (error.as_str(), *count)).collect();
    assert_eq!(refused, [("AccessDenied", 1), ("VpceAccessDenied", 1)]);
    assert_eq!((classes.dry_runs, classes.network_activity, classes.summaries), (1, 1, 1));
    assert_eq!(requests(&classes.refused_calls), ["denied"]);
}

#[test]
fn the_trail_itself_is_recognised_and_never_matched() {
    let mut reconciler = Reconciler::default();
    for record in ends() {
        reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
    }
    for record in ends() {
        reconciler.add_aws(&record.to_string(), &question()).expect("a record");
    }
    let outcome = reconciler.finish(&question());
    assert_eq!((outcome.verdict, outcome.matched, outcome.classes.own), (Match::CannotTell, 0, 2));
    assert!(outcome.why.is_some_and(|why| why.contains("eventIDs")));
}

#[test]
fn files_without_kms_prove_nothing() {
    let other = with(record("PutObject", "s3", 20), "/eventSource", "s3.amazonaws.com".into());
    let outcome = reconcile(&ends(), &[other], &question());
    assert_eq!(outcome.verdict, Match::CannotTell);
    assert!(outcome.why.is_some_and(|why| why.contains("ExcludeManagementEventSources")));
}

#[test]
fn what_others_do_under_the_keys_is_counted() {
    let other = |request: &str, arn: &str| {
        with(
            with(record("Decrypt", request, 30), "/userIdentity/arn", arn.into()),
            "/userIdentity/accessKeyId",
            "AKIAOTHER".into(),
        )
    };
    let someone = "arn:aws:iam::111122223333:user/someone";
    let service = with(
        other("c", "x"),
        "/userIdentity",
        json!({ "type": "AWSService", "invokedBy": "cloudtrail.amazonaws.com" }),
    );
    let elsewhere =
        with(other("d", someone), "/resources/0/ARN", "arn:aws:kms:us-west-2:111122223333:key/other".into());
    let aws =
        [&ends()[..], &[other("a", someone), other("b", someone), other("b", someone), service, elsewhere]]
            .concat();
    let outcome = reconcile(&ends(), &aws, &question());
    assert_eq!(outcome.verdict, Match::Matched);
    assert_eq!(
        json!(outcome.classes.by_others),
        json!({ someone: { "Decrypt": 2 }, "cloudtrail.amazonaws.com": { "Decrypt": 1 } })
    );
}

/// A trail excuses a call only if it is expected: whoever has the role's credentials can put one there.
#[test]
fn calls_of_other_trails_are_theirs_if_they_are_expected() {
    let aws = [&ends()[..], &[record("GenerateDataKey", "elsewhere", 20)]].concat();
    let with = |siblings: Siblings| {
        let mut reconciler = Reconciler::default();
        for record in ends() {
            reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
        }
        reconciler.set_siblings(siblings);
        for record in &aws {
            reconciler.add_aws(&of_aws(record).to_string(), &question()).expect("a record");
        }
        reconciler.finish(&question())
    };
    let expected = with(Siblings::made(&[("other", true, &["elsewhere"])], &[]));
    assert_eq!((expected.verdict, expected.siblings.expected), (Match::Matched, 1));
    let unexpected = with(Siblings::made(&[("other", false, &["elsewhere"])], &[]));
    assert_eq!(unexpected.verdict, Match::CannotTell);
    assert!(unexpected.why.is_some_and(|why| why.contains("--expect: other")));
    let awaited = with(Siblings::made(&[("other", true, &[])], &["other", "stranger"]));
    assert_eq!((awaited.verdict, awaited.missing_from_trail.len()), (Match::CannotTell, 1));
    assert!(awaited.why.is_some_and(|why| why.contains("other") && !why.contains("stranger")));
    // Whoever can write into the bucket can put such a trail there.
    let planted = with(Siblings::made(&[("other", false, &[])], &["other", "stranger"]));
    assert_eq!((planted.verdict, planted.missing_from_trail.len()), (Match::Unmatched, 1));
    assert_eq!(planted.siblings.unverified, ["other", "stranger"]);
    let nobody = with(Siblings::made(&[("other", true, &["another"])], &[]));
    assert_eq!((nobody.verdict, nobody.missing_from_trail.len()), (Match::Unmatched, 1));
}

/// A log file at the end of the trail that somebody has overwritten does not make the trail end before.
#[test]
fn the_trail_does_not_end_before_what_cannot_be_read() {
    let verdict = |claimed: Option<OffsetDateTime>| {
        let mut reconciler = Reconciler::default();
        for record in ends() {
            reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
        }
        if let Some(at) = claimed {
            reconciler.claim(at);
        }
        let later = with(record("Decrypt", "stolen", 0), "/eventTime", "2026-11-21T10:20:00Z".into());
        for record in [&ends()[..], &[later]].concat() {
            reconciler.add_aws(&of_aws(&record).to_string(), &question()).expect("a record");
        }
        reconciler.finish(&question()).verdict
    };
    assert_eq!(verdict(None), Match::CannotTell);
    assert_eq!(verdict(Some(datetime!(2026-11-21 10:30 UTC))), Match::Unmatched);
}

/// What two records of one call tell differently is found where there is no time to compare.
#[test]
fn a_difference_is_a_finding_whatever_else_cannot_be_told() {
    let ours = record("Decrypt", "moved", 10);
    let elsewhere = with(ours.clone(), "/awsRegion", "eu-west-1".into());
    let theirs = with(elsewhere, "/requestParameters/keyId", "alias/b".into());
    let outcome = reconcile(&[ours], &[theirs], &question());
    assert!(!outcome.differences.is_empty(), "{outcome:?}");
    assert_eq!((outcome.verdict, outcome.range), (Match::Unmatched, None));
}
