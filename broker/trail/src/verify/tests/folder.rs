//! Objects in the folder of log files that no digest vouches for are found, whatever else is there.

use std::sync::Arc;

use super::journal::Withholding;
use super::*;

#[tokio::test]
async fn what_is_in_no_digest_is_found_and_other_trails_are_asked() {
    let store = sound().await;
    let planted = names().log_file(START + Duration::minutes(70), &[9; 32]);
    store.insert(&planted, b"{\"Records\":[]}", std::collections::BTreeMap::new());
    let report = verified(&store).await;
    assert_eq!(kinds(&report), [FindingKind::LogFileUnreferenced]);
    assert_eq!(report.verdict, Verdict::Unsound);

    // Belongs to another broker, as its digest says.
    let other = TrailNames { trail: "other".into(), ..names() };
    let of_other = async |hours, log_file: &str| {
        let end = START + Duration::hours(hours);
        let mut digest = report_digest(&store, 0).await.digest;
        digest.digest_s3_object = other.digest(end);
        digest.digest_end_time = record_time(end);
        log_file.clone_into(&mut digest.log_files[0].s3_object);
        store.sign(&digest, &digest.to_json(), &signer()).await;
        digest.digest_s3_object
    };
    let digest = of_other(4, &planted).await;
    let report = verified(&store).await;
    assert_eq!((report.verdict, report.counts.get(&FindingKind::OtherTrail)), (Verdict::Sound, Some(&1)));
    store.with(|objects| objects.get_mut(&digest).map(|object| object.metadata.clear()));
    assert_eq!(
        kinds(&verified(&store).await),
        [FindingKind::DigestSignature, FindingKind::LogFileUnreferenced]
    );
    store.with(|objects| objects.remove(&digest));

    // A digest that ended earlier cannot know of it.
    let early = of_other(1, &planted).await;
    let options =
        |now| VerifyOptions { keys: vec![signer().public_key().clone()], now, ..VerifyOptions::default() };
    let soon = Some(START + Duration::hours(5));
    assert_eq!(
        verified_with(&store, options(soon)).await.verdict,
        Verdict::Sound,
        "it may wait for its next digest"
    );
    assert_eq!(verified(&store).await.verdict, Verdict::CannotTell, "not for ever");
    store.with(|objects| objects.remove(&early));

    // Neither an empty digest nor one that nobody signed excuses anything.
    let gone = other.digest(START - Duration::hours(9_999));
    store.insert(&gone, b"", std::collections::BTreeMap::new());
    assert_eq!(verified_with(&store, options(soon)).await.verdict, Verdict::Unsound);
}

#[tokio::test]
async fn what_others_with_an_unknown_key_vouch_for_is_told_and_not_believed() {
    let store = sound().await;
    let planted = names().log_file(START + Duration::minutes(70), &[9; 32]);
    store.insert(&planted, b"{\"Records\":[]}", std::collections::BTreeMap::new());
    let other = TrailNames { trail: "other".into(), ..names() };
    let mut digest = report_digest(&store, 0).await.digest;
    digest.digest_s3_object = other.digest(START + Duration::hours(4));
    digest.digest_public_key_fingerprint = stranger().fingerprint();
    digest.log_files[0].s3_object = planted;
    store.sign(&digest, &digest.to_json(), &signer()).await;
    let report = verified(&store).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::OtherTrail]));
}

#[tokio::test]
async fn what_readers_of_the_folder_would_read_is_found_whatever_its_name() {
    for (name, verdict) in [
        ("2026/03/01/planted.json.gz", Verdict::Unsound),
        ("planted.json", Verdict::Unsound),
        ("2026/03/01/README.txt", Verdict::Sound),
    ] {
        let store = sound().await;
        let key = format!("{}{name}", names().log_folder());
        store.insert(&key, b"{\"Records\":[]}", std::collections::BTreeMap::new());
        let report = verified(&store).await;
        assert_eq!(report.verdict, verdict, "{name}");
        assert_eq!(report.counts.get(&FindingKind::ForeignObject), Some(&1));
    }
}

#[tokio::test]
async fn a_log_file_that_waits_for_its_digest_is_no_reproach() {
    let store = sound().await;
    let newer = names().log_file(START + Duration::minutes(185), &[9; 32]);
    store.insert(&newer, b"{\"Records\":[]}", std::collections::BTreeMap::new());
    let report = verified(&store).await;
    assert_eq!((report.verdict, report.findings.len()), (Verdict::Sound, 1), "{report:?}");
    let within = names().log_file(START + Duration::minutes(150), &[9; 32]);
    store.insert(&within, b"{\"Records\":[]}", std::collections::BTreeMap::new());
    assert_eq!(verified(&store).await.verdict, Verdict::CannotTell);
}

/// Any digest but the newest, too: what it names may be what is in no other.
#[tokio::test]
async fn log_files_of_a_digest_that_is_not_returned_are_not_planted() {
    let store = sound().await;
    let digests =
        TrailReader::new(Arc::new(store.copy()), names(), None).digest_keys().await.expect("lists").own;
    for digest in digests {
        let withholding = Withholding(store.copy(), digest.key.clone());
        let reader = TrailReader::new(Arc::new(withholding), names(), None);
        let options = VerifyOptions { keys: vec![signer().public_key().clone()], ..VerifyOptions::default() };
        let report = verify(&reader, &options, &mut |_| {}).await;
        assert_eq!(report.verdict, Verdict::CannotTell, "{}: {report:#?}", digest.key);
    }
}
