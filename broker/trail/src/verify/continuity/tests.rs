//! Records missing between log files show in the digests alone, whether they are reported or not. Digests that do not place their log
//! files in the chain are no fault, and the report mentions them.

use std::sync::Arc;

use proptest::prelude::*;
use time::Duration;

use crate::digest::ChainSpan;
use crate::journal::hash_chain::Link;
use crate::reader::TrailReader;
use crate::verify::forge::{Forge, MemoryStore, START, names, refusal, signer};
use crate::verify::{FindingKind, Report, Verdict, VerifyOptions, verify};

async fn verified(store: &MemoryStore) -> Report {
    let reader = TrailReader::new(Arc::new(store.clone()), names(), None);
    let options = VerifyOptions { keys: vec![signer().public_key().clone()], ..VerifyOptions::default() };
    verify(&reader, &options, &mut |_| {}).await
}

/// Seven log files with a record each: three in the first digest, none in the next, four in the third.
fn seven() -> Forge {
    let mut minutes = 0..;
    let mut file = || vec![refusal(START + Duration::minutes(minutes.next().unwrap_or_default()))];
    let files: Vec<_> = (0..7).map(|_| file()).collect();
    Forge { digests: vec![files[..3].to_vec(), vec![], files[3..].to_vec()], ..Forge::default() }
}

#[tokio::test]
async fn missing_records_show_wherever_they_are() {
    assert_eq!(verified(&seven().store().await).await.verdict, Verdict::Sound);
    for lost in 0..6 {
        let report = verified(&Forge { lost: Some((lost, 4)), ..seven() }.store().await).await;
        assert_eq!(report.verdict, Verdict::Unsound, "after log file {lost}");
        assert_eq!(report.counts.get(&FindingKind::LogFileGap), Some(&1));
        assert!(report.findings[0].words.contains("4 records are missing"), "{report:?}");
    }
    // Losses before the first log file or after the last leave no gap.
    assert_eq!(
        verified(&Forge { lost: Some((6, 4)), ..seven() }.store().await).await.verdict,
        Verdict::Sound
    );
}

#[tokio::test]
async fn a_stretch_is_held_against_the_digest_before_it() {
    let mut forge = Forge { lost: Some((3, 1)), ..seven() };
    forge.digests.reverse();
    let store = forge.store().await;
    let reader = TrailReader::new(Arc::new(store), names(), None);
    let from = Some(START + Duration::minutes(61));
    let options =
        VerifyOptions { keys: vec![signer().public_key().clone()], from, ..VerifyOptions::default() };
    // Four, none, three; the empty digest is the first of the period.
    let report = verify(&reader, &options, &mut |_| {}).await;
    assert_eq!((report.digests, report.counts.get(&FindingKind::LogFileGap)), (2, Some(&1)), "{report:?}");
}

#[tokio::test]
async fn older_digests_are_sound_and_the_report_says_what_it_cannot_tell() {
    let old = Forge { has_chain: false, ..seven() };
    let report = verified(&old.store().await).await;
    assert_eq!((report.verdict, report.findings.len()), (Verdict::Sound, 1), "{report:?}");
    assert!(report.findings[0].words.starts_with("7 log files"), "{report:?}");
    assert_eq!(report.counts.get(&FindingKind::ChainUnknown), Some(&1));
    let report = verified(&Forge { lost: Some((1, 1)), ..old }.store().await).await;
    assert_eq!(report.verdict, Verdict::Sound, "nobody can tell: {report:?}");
}

#[tokio::test]
async fn a_log_file_has_the_records_of_its_place() {
    let mut forge = seven();
    let moved = forge.digests[2][0].clone();
    for (edit, kind) in [
        (
            (|span: &mut ChainSpan| span.hash_after = "0".repeat(64)) as fn(&mut ChainSpan),
            FindingKind::LogFileChain,
        ),
        (|span| span.hash_after = "00".into(), FindingKind::DigestMalformed),
        (|span| span.first_sequence = 0, FindingKind::DigestMalformed),
        (|span| span.last_sequence = 0, FindingKind::DigestMalformed),
        (|span| span.last_sequence += 1, FindingKind::LogFileChain),
    ] {
        let store = forge.store_edited(edit).await;
        let report = verified(&store).await;
        assert!(
            report.counts.contains_key(&kind) && report.verdict == Verdict::Unsound,
            "{kind}: {report:?}"
        );
    }
    forge.digests[2].push(moved);
    assert!(verified(&forge.store().await).await.counts.contains_key(&FindingKind::EventIdTwice));
}

proptest! {
    #[test]
    fn what_is_written_reads_back(first in 0..u64::MAX - 1, records in 1..1_000_u64, hash in any::<[u8; 32]>()) {
        let before = Link { sequence: first, hash };
        let end = Link { sequence: first.saturating_add(records), hash: Link::START.next(&hash).hash };
        prop_assert_eq!(ChainSpan::new(&before, &end).links(), Some((before, end)));
    }
}
