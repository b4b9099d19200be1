//! A verdict is about a period. What is in it is verified with what is around it, and an empty period has no verdict.

use super::*;

#[tokio::test]
async fn a_time_without_digests_is_not_told_of() {
    let store = sound().await;
    let at = |minutes: i64| Some(START + Duration::minutes(minutes));
    for (from, to) in
        [(at(-100), at(-10)), (at(-100), at(0)), (at(180), at(500)), (at(180), None), (at(999), None)]
    {
        let newest_signature = report_digest(&store, 2).await.signature;
        let keys = vec![signer().public_key().clone()];
        let options = VerifyOptions { keys, from, to, newest_signature, ..VerifyOptions::default() };
        let report = verified_with(&store, options).await;
        assert_eq!(
            (report.verdict, kinds(&report)),
            (Verdict::CannotTell, vec![FindingKind::NoDigest]),
            "{from:?} {to:?}"
        );
        assert!(report.findings[0].words.contains("2026-03-01T11:00:00Z"), "{:?}", report.findings);
    }
}

#[tokio::test]
async fn a_log_file_that_was_delivered_after_the_time_is_looked_for_there() {
    // Complete in the first hour, and delivered in the third.
    let (mut forge, mint) = (Forge::sound(), Mint::new(3, START + Duration::minutes(20)));
    forge.digests[2].push(vec![mint.record(), mint.draw(1).record()]);
    let store = forge.store().await;
    let mut last = report_digest(&store, 2).await.digest;
    let late = last.log_files[1].s3_object.clone();
    let early = names().log_file(START + Duration::minutes(20), &[77; 32]);
    let moved = store.with(|objects| objects.remove(&late)).expect("is there");
    store.with(|objects| objects.insert(early.clone(), Object { key: early.clone(), ..moved }));
    last.log_files[1].s3_object = early;
    store.sign(&last, &last.to_json(), &signer()).await;
    let options = VerifyOptions {
        keys: vec![signer().public_key().clone()],
        to: Some(START + Duration::minutes(40)),
        ..VerifyOptions::default()
    };
    let report = verified_with(&store, options).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Sound, vec![]), "{report:?}");
}

#[tokio::test]
async fn a_stretch_of_time_is_verified_by_itself() {
    let store = sound().await;
    let keys = || vec![signer().public_key().clone()];
    let last = VerifyOptions {
        keys: keys(),
        from: Some(START + Duration::minutes(121)),
        ..VerifyOptions::default()
    };
    let report = verified_with(&store, last).await;
    assert_eq!((report.verdict, report.digests, report.records), (Verdict::Sound, 1, 4), "{report:?}");
    let first =
        VerifyOptions { keys: keys(), to: Some(START + Duration::minutes(30)), ..VerifyOptions::default() };
    let report = verified_with(&store, first).await;
    assert_eq!((report.verdict, report.digests, report.records), (Verdict::Sound, 1, 3), "{report:?}");
    // A data key that was minted before the period.
    let mint = mint();
    let late = mint.draw(2);
    let mut forge = Forge::sound();
    forge.digests[1] =
        vec![vec![late.record().replace("08:02:05", "09:02:05").replace("08:07:00", "09:07:00")]];
    let options =
        VerifyOptions { keys: keys(), from: Some(START + Duration::minutes(61)), ..VerifyOptions::default() };
    let report = verified_with(&forge.store().await, options).await;
    assert_eq!(report.verdict, Verdict::Sound, "{report:?}");
    assert_eq!(report.counts.get(&FindingKind::MintedBefore), Some(&1));
}
