//! A cached data key is used no longer after KMS's last permission than the broker promises: the permission that a use names is recorded,
//! is a permission, and concerns the same key; only a recorded failed check excuses its lateness.

use uuid::Uuid;

use super::super::forge::{failed_check, start};
use super::*;
use crate::record::{AllowedScope, CheckedScope, RevocationPromise};

const PROMISE: RevocationPromise = RevocationPromise {
    revocation_check_seconds: 60,
    revocation_check: CheckedScope::Key,
    unverified_max_seconds: 200,
};
const BY_CONTEXT: RevocationPromise =
    RevocationPromise { revocation_check: CheckedScope::Context, ..PROMISE };
const FAILED: Uuid = Uuid::from_u128(0xc000_0000_0000_4000_8000_0000_0000_0001);

/// What a use names besides its data key, and what is recorded.
#[derive(Clone, Default)]
struct Case {
    promise: Option<RevocationPromise>,
    /// How long after minting the data key is used.
    used_after: i64,
    /// When a check was made after minting, KMS's error, if any, and the check's scope.
    check: Option<(i64, Option<&'static str>, AllowedScope)>,
    /// Whether the check was about another encryption context.
    elsewhere: bool,
    /// Whether the check has no record.
    missing: bool,
    /// The operation of a failed check, and when it was made after minting.
    failed: Option<(i64, &'static str)>,
}

async fn found_in(case: Case) -> Vec<FindingKind> {
    let mint = mint();
    let at = |seconds| mint.at + Duration::seconds(seconds);
    let mut check = Mint::new(2, case.check.map_or(mint.at, |(after, ..)| at(after)));
    check.tenant = if case.elsewhere { "other" } else { mint.tenant };
    let mut late = mint.draw(2);
    late.at = at(case.used_after);
    late.last_allowed = case.check.map(|(_, _, scope)| (&check, scope));
    late.last_check_failed = case.failed.map(|_| FAILED);
    let mut records = vec![start(case.promise, START), mint.record(), mint.draw(1).record()];
    records.extend(case.check.filter(|_| !case.missing).map(|(_, error, _)| check.record_of(error)));
    records.extend(case.failed.map(|(after, operation)| failed_check(operation, FAILED, at(after))));
    records.push(late.record());
    found(records).await
}

const DRY_RUN: Option<&str> = Some("DryRunOperationException");

#[tokio::test]
async fn a_use_is_within_the_interval_or_names_a_newer_permission() {
    use AllowedScope::{Context, Key};
    let used = |used_after| Case { promise: Some(PROMISE), used_after, ..Case::default() };
    let checked =
        |used_after, after, scope| Case { check: Some((after, DRY_RUN, scope)), ..used(used_after) };
    for case in [
        used(60),
        Case { promise: None, ..used(299) },
        Case { promise: Some(RevocationPromise { revocation_check_seconds: 0, ..PROMISE }), ..used(299) },
        checked(120, 60, Key),
        checked(120, 60, Context),
        Case { elsewhere: true, ..checked(120, 60, Key) },
        // A call for another data key serves as well as a dry run.
        Case { check: Some((60, None, Key)), ..used(120) },
        Case { promise: Some(BY_CONTEXT), ..checked(120, 60, Context) },
    ] {
        assert_eq!(found_in(case.clone()).await, [], "{}", case.used_after);
    }
    for case in [used(61), checked(121, 60, Key), Case { promise: Some(BY_CONTEXT), ..checked(120, 60, Key) }]
    {
        assert_eq!(found_in(case.clone()).await, [FindingKind::UsedUnchecked], "{}", case.used_after);
    }
    for error in ["DisabledException", "ThrottlingException"] {
        let refused = Case { check: Some((60, Some(error), Key)), ..used(120) };
        assert_eq!(found_in(refused).await, [FindingKind::KmsRecordMismatch], "{error}");
    }
    let of_another = Case { elsewhere: true, ..checked(120, 60, Context) };
    assert_eq!(found_in(of_another).await, [FindingKind::KmsRecordMismatch]);
    assert_eq!(
        found_in(Case { missing: true, ..checked(120, 60, Key) }).await,
        [FindingKind::KmsRecordMissing]
    );
}

#[tokio::test]
async fn only_a_recorded_failed_check_excuses_lateness_and_not_for_ever() {
    let late = |used_after, failed| Case {
        promise: Some(PROMISE),
        used_after,
        failed: Some(failed),
        ..Case::default()
    };
    assert_eq!(found_in(late(90, (70, "GenerateDataKey"))).await, []);
    assert_eq!(found_in(late(200, (190, "GenerateDataKey"))).await, []);
    for case in
        [late(201, (190, "GenerateDataKey")), late(120, (70, "GenerateDataKey")), late(90, (70, "Decrypt"))]
    {
        assert_eq!(found_in(case.clone()).await, [FindingKind::UsedUnchecked], "{}", case.used_after);
    }
}

#[tokio::test]
async fn without_the_record_of_a_start_it_is_said_that_nothing_is_known() {
    let mut forge = Forge::of(vec![start(Some(PROMISE), START)]);
    forge.digests.push(vec![vec![
        Mint::new(1, START + Duration::minutes(62)).record(),
        Mint::new(1, START + Duration::minutes(62)).draw(2).record(),
    ]]);
    let from =
        |from| VerifyOptions { keys: vec![signer().public_key().clone()], from, ..VerifyOptions::default() };
    let store = forge.store().await;
    for (from, is_unknown) in [(from(None), false), (from(Some(START + Duration::minutes(60))), true)] {
        let report = verified_with(&store, from).await;
        assert_eq!(report.verdict, Verdict::Sound, "{report:?}");
        assert_eq!(report.counts.contains_key(&FindingKind::PromiseUnknown), is_unknown);
    }
}
