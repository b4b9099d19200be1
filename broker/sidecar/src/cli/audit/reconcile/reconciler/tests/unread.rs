//! A call that the trail lacks is no finding if its record may be in an object that could not be read, and is one at any other time.

use super::*;

fn reconcile_unread(times: [Option<OffsetDateTime>; 2], theirs: &Value) -> Reconciliation {
    let mut reconciler = Reconciler::default();
    reconciler.set_unread(&[Unread { key: "AWSLogs/key".into(), why: "AccessDenied".into(), times }]);
    for record in &ends() {
        reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
    }
    for record in ends().iter().chain([theirs]) {
        reconciler.add_aws(&of_aws(record).to_string(), &question()).expect("a record");
    }
    reconciler.finish(&question())
}

#[test]
fn a_call_of_the_time_of_an_unread_object_is_no_finding() {
    let (before, at, after) =
        (datetime!(2026-11-21 9:50 UTC), datetime!(2026-11-21 10:00:30 UTC), datetime!(2026-11-21 10:10 UTC));
    let theirs = record("Decrypt", "theirs", 30);
    for (times, may_have) in [
        ([None, None], true),
        ([Some(before), Some(after)], true),
        ([Some(at), Some(at)], true),
        // The two records of a call may differ by minutes.
        ([Some(before), Some(at - time::Duration::minutes(4))], true),
        ([Some(before), Some(before)], false),
        ([None, Some(before)], false),
        ([Some(after), None], false),
    ] {
        let outcome = reconcile_unread(times, &theirs);
        let wanted = if may_have { Match::CannotTell } else { Match::Unmatched };
        assert_eq!(outcome.verdict, wanted, "{times:?}");
        assert_eq!(
            (outcome.unread.len(), outcome.missing_from_trail.len()),
            (may_have.into(), (!may_have).into())
        );
    }
}
