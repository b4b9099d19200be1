//! A table of ways to deceive verification, each with the right verdict and the expected finding.

use std::collections::BTreeMap;

use super::*;
use crate::digest::Position;
use crate::signature::Signer;

/// Somebody else's signing key.
fn thief() -> Signer {
    static PEM: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    Signer::from_pem(PEM.get_or_init(crate::verify::forge::new_pem).as_bytes()).expect("reads")
}

fn planted_key() -> String {
    names().log_file(START + Duration::minutes(70), &[9; 32])
}

/// A sound trail with a log file planted beside it.
async fn planted() -> MemoryStore {
    let store = sound().await;
    store.insert(&planted_key(), b"{\"Records\":[]}", BTreeMap::new());
    store
}

/// Adds an empty object.
fn empty(store: &MemoryStore, key: &str) {
    store.with(|objects| {
        let object = Object { key: key.to_owned(), bytes: Vec::new(), metadata: BTreeMap::new() };
        objects.insert(key.to_owned(), object)
    });
}

/// Adds a digest of the trail with this name, which ends this many hours after the beginning and names the log file.
async fn add_digest(store: &MemoryStore, trail: &str, hours: i64, signer: &Signer) {
    let end = START + Duration::hours(hours);
    let mut digest = report_digest(store, 0).await.digest;
    digest.digest_s3_object = TrailNames { trail: trail.into(), ..names() }.digest(end);
    (digest.digest_start_time, digest.digest_end_time) =
        (record_time(end - Duration::hours(1)), record_time(end));
    digest.digest_public_key_fingerprint = signer.public_key().fingerprint();
    digest.log_files.truncate(1);
    digest.log_files[0].s3_object = planted_key();
    digest.key_broker.as_mut().expect("ours").position = Some(Position::Opening);
    store.sign(&digest, &digest.to_json(), signer).await;
}

/// A trail with a call to KMS and two uses of its answer; from the first use the text between `from` and `to` is removed.
async fn stripped(from: &str, to: &str) -> MemoryStore {
    let (mint, record) = (mint(), mint().draw(1).record());
    let start = record.find(from).expect("is there");
    let end = start + record[start..].find(to).expect("follows");
    let stripped = format!("{}{}", &record[..start], &record[end..]);
    Forge::of(vec![mint.record(), stripped, mint.draw(2).record()]).store().await
}

/// A case, its objects, the right verdict, and the expected finding.
type Row = (&'static str, MemoryStore, Verdict, Option<FindingKind>);

/// Objects that excuse others.
async fn of_digests() -> Vec<Row> {
    let other =
        |hours| TrailNames { trail: "other".into(), ..names() }.digest(START + Duration::hours(hours));
    let mut rows = vec![(
        "a planted log file",
        planted().await,
        Verdict::Unsound,
        Some(FindingKind::LogFileUnreferenced),
    )];
    let mut add = |name, store: &MemoryStore, verdict, kind| rows.push((name, store.copy(), verdict, kind));

    let store = planted().await;
    empty(&store, &other(-50_000));
    empty(&store, &other(4));
    let kind = Some(FindingKind::LogFileUnreferenced);
    add("zero-byte digests of another trail beside it", &store, Verdict::Unsound, kind);
    let store = sound().await;
    empty(&store, &names().digest(START + Duration::hours(4)));
    add("a zero-byte digest of this trail", &store, Verdict::Unsound, Some(FindingKind::DigestMalformed));

    let store = planted().await;
    add_digest(&store, "other", 4, &thief()).await;
    add("a foreign trail's digest names it", &store, Verdict::CannotTell, Some(FindingKind::OtherTrail));
    let store = planted().await;
    add_digest(&store, names().trail.as_str(), 4, &thief()).await;
    add(
        "a digest by another key in this trail's name",
        &store,
        Verdict::Unsound,
        Some(FindingKind::DigestOtherKey),
    );
    let store = planted().await;
    add_digest(&store, "other", 4, &signer()).await;
    add(
        "a trail of the same key names it: reconcile asks who expects that one",
        &store,
        Verdict::Sound,
        Some(FindingKind::OtherTrail),
    );
    store.with(|objects| objects.get_mut(&other(4)).map(|object| object.metadata.clear()));
    add("the same, unsigned", &store, Verdict::Unsound, Some(FindingKind::LogFileUnreferenced));

    let store = planted().await;
    add_digest(&store, "other", 1, &signer()).await;
    add(
        "a retired trail, which cannot know of it",
        &store,
        Verdict::CannotTell,
        Some(FindingKind::LogFileUnreferenced),
    );
    let store = sound().await;
    add_digest(&store, names().trail.as_str(), 9, &signer()).await;
    add(
        "a replica that begins a trail of the same name",
        &store,
        Verdict::Unsound,
        Some(FindingKind::ChainGap),
    );
    rows
}

/// Records without what others are checked against, signed by the key's owner.
async fn of_records() -> Vec<Row> {
    let malformed = Some(FindingKind::RecordMalformed);
    let mint = mint();
    let trail = async |records: Vec<String>| Forge::of(records).store().await;
    vec![
        (
            "an answer without policy",
            stripped("\"policy\"", "\"dataKey\"").await,
            Verdict::Unsound,
            malformed,
        ),
        (
            "an answer without data key",
            stripped(",\"dataKey\"", "},\"requestID\"").await,
            Verdict::Unsound,
            malformed,
        ),
        (
            "an answer without its KMS record",
            stripped("\"kmsEventID\"", "\"mintedAt\"").await,
            Verdict::Unsound,
            malformed,
        ),
        (
            "an answer without bounds",
            stripped(",\"messagesUsed\"", ",\"ciphertext").await,
            Verdict::Unsound,
            malformed,
        ),
        (
            "an answer without keys",
            stripped("\"resources\"", "\"eventType\"").await,
            Verdict::Unsound,
            malformed,
        ),
        (
            "an answer without end",
            stripped("\"expiresAt\"", "\"messagesUsed\"").await,
            Verdict::Unsound,
            Some(FindingKind::UsedAgain),
        ),
        (
            "a removed call to KMS",
            trail(vec![mint.draw(1).record()]).await,
            Verdict::Unsound,
            Some(FindingKind::KmsRecordMissing),
        ),
        (
            "a removed use, told",
            trail(vec![mint.record(), mint.draw(1).record(), mint.draw(3).record()]).await,
            Verdict::Sound,
            Some(FindingKind::UsesMissing),
        ),
        (
            "removed records of which the chain tells",
            Forge { lost: Some((1, 2)), ..Forge::sound() }.store().await,
            Verdict::Unsound,
            Some(FindingKind::LogFileGap),
        ),
        (
            "the uses themselves",
            trail(vec![mint.record(), mint.draw(1).record(), mint.draw(2).record()]).await,
            Verdict::Sound,
            None,
        ),
    ]
}

#[tokio::test]
async fn each_gets_the_verdict_that_is_right() {
    let rows = [of_digests().await, of_records().await].concat();
    let mut wrong = Vec::new();
    for (name, store, verdict, kind) in rows {
        let report = verified(&store).await;
        let is_found = kind.is_none_or(|kind| report.counts.contains_key(&kind));
        if (report.verdict, is_found) != (verdict, true) {
            wrong.push(format!("{name}: {:?} {:?}", report.verdict, report.counts));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
