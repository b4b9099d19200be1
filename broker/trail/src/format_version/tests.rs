//! What is of a later version is not judged, not started on and never cut; what a later program of the same version adds is passed over;
//! and what a program of the version before has left is taken over. With the feature `next-format` all of it is of version 2.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::*;
use crate::digest::sha256_hex;
use crate::journal::hash_chain::{Link, header};
use crate::journal::{Durability, Journal, JournalConfig, files};
use crate::reader::TrailReader;
use crate::state::State;
use crate::verify::forge::{Forge, MemoryStore, START, names, refusal, signer};
use crate::verify::{FindingKind, Report, Verdict, VerifyOptions, verify};

const NEXT: u32 = FORMAT_VERSION + 1;

async fn verified(store: &MemoryStore, journal_dir: Option<&Path>) -> Report {
    let reader = TrailReader::new(Arc::new(store.clone()), names(), None);
    let journal_dir = journal_dir.map(Path::to_owned);
    let options =
        VerifyOptions { keys: vec![signer().public_key().clone()], journal_dir, ..VerifyOptions::default() };
    verify(&reader, &options, &mut |_| {}).await
}

/// A sound trail whose digests, from number `place` on, are `edit`ed by who signs them.
async fn signed_anew(place: usize, edit: fn(&str) -> String) -> MemoryStore {
    let store = Forge::sound().store().await;
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let mut previous = None::<(String, String)>;
    for (number, key) in reader.digest_keys().await.expect("lists").own.into_iter().enumerate() {
        let mut digest = reader.digest(&key.key).await.expect("reads").expect("is there");
        (digest.previous_digest_hash_value, digest.previous_digest_signature) = previous.unzip();
        let mut json = digest.to_json();
        if number >= place {
            json = edit(std::str::from_utf8(&json).expect("text")).into_bytes();
        }
        let signature = store.sign(&digest, &json, &signer()).await;
        previous = Some((sha256_hex(&json), signature));
    }
    store
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    report.counts.keys().copied().collect()
}

#[tokio::test]
async fn a_digest_of_a_later_version_is_not_judged_and_what_is_before_it_is() {
    let store = signed_anew(1, |digest| {
        let (before, _) = digest.split_once("\"keyBroker\":").expect("ours");
        format!("{before}\"keyBroker\":{{\"version\":{NEXT},\"position\":{{\"of\":\"another form\"}}}}}}")
    })
    .await;
    let report = verified(&store, None).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::NewerFormat]));
    let words = &report.findings[0].words;
    assert!(words.contains(&format!("version {NEXT}")), "{words}");
    assert_eq!(report.records, 3, "those of the first digest");
    // Whoever cannot sign makes nothing newer.
    let key = store.keys().into_iter().rfind(|key| key.contains("Digest")).expect("a digest");
    store.with(|objects| {
        let object = objects.get_mut(&key).expect("there");
        object.metadata.insert("signature".into(), "00".repeat(256));
    });
    assert_eq!(verified(&store, None).await.verdict, Verdict::Unsound);
}

#[tokio::test]
async fn a_field_more_is_passed_over() {
    let store = signed_anew(0, |digest| {
        let more = digest.replace("\"hashAlgorithm\":", "\"later\":\"x\",\"hashAlgorithm\":");
        let more = more.replace("\"keyBroker\":{", "\"keyBroker\":{\"later\":{\"a\":[1]},");
        format!("{},\"later\":true}}", more.strip_suffix('}').expect("an object"))
    })
    .await;
    let report = verified(&store, None).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Sound, vec![]), "{report:?}");
    let store = signed_anew(0, |digest| {
        digest.replace("111122223333\",\"digestStart", "999999999999\",\"digestStart")
    })
    .await;
    assert_eq!(verified(&store, None).await.verdict, Verdict::Unsound);
}

/// A journal as a broker of this version leaves it.
fn journal(dir: &Path, version: u32) -> String {
    let header = header(1, &Link::START).replacen(&FORMAT_VERSION.to_string(), &version.to_string(), 1);
    let (mut lines, mut link) = (header.into_bytes(), Link::START);
    link.append_all(format!("{}\n", refusal(START)).as_bytes(), &mut lines);
    fs::create_dir(dir).expect("makes");
    let text = String::from_utf8(lines).expect("text");
    fs::write(dir.join("journal-00000001.open"), &text).expect("writes");
    text
}

fn open(dir: &Path) -> std::io::Result<()> {
    let config = JournalConfig::new(dir.to_owned(), Durability::Write, Duration::from_secs(5));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Journal::open(&config, clock).map(|(_, thread)| thread.close().map(drop).expect("no defect"))
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path().join("journal");
    let text = journal(&dir, NEXT);
    let refused = open(&dir).expect_err("refused").to_string();
    assert!(refused.contains(&format!("version {NEXT}")), "{refused}");
    assert_eq!(fs::read_to_string(dir.join("journal-00000001.open")).expect("reads"), text);
    let report = verified(&Forge::sound().store().await, Some(&dir)).await;
    assert_eq!(report.verdict, Verdict::CannotTell, "{report:?}");
}

#[tokio::test]
async fn a_journal_of_this_version_and_of_the_one_before_is_taken_over() {
    for version in [FORMAT_VERSION, FORMAT_VERSION.saturating_sub(1).max(1)] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("journal");
        let text = journal(&dir, version);
        open(&dir).expect("takes it over");
        let closed = files(&dir).expect("lists").remove(0);
        assert!(closed.closed_at.is_some(), "its records wait to be delivered");
        assert_eq!(fs::read_to_string(closed.path).expect("reads"), text);
    }
}

#[test]
fn notes_of_a_later_version_are_refused_and_a_field_more_is_passed_over() {
    let dir = tempfile::tempdir().expect("dir");
    let notes = |version: u32| json!({ "version": version, "trail": "t-000000000000", "start": 0, "logFiles": [], "later": { "a": 1 } });
    let load = |notes: &Value| {
        fs::write(dir.path().join("trail.json"), notes.to_string()).expect("writes");
        State::load(dir.path())
    };
    assert_eq!(load(&notes(FORMAT_VERSION)).expect("reads").expect("is there").trail, "t-000000000000");
    assert!(load(&notes(1)).is_ok(), "the version before");
    let mut later = notes(NEXT);
    later["trail"] = 7.into();
    let refused = load(&later).expect_err("refused").to_string();
    assert!(refused.contains(&format!("version {NEXT}")), "{refused}");
}

#[test]
fn notes_of_the_version_before_are_saved_in_this_ones_form() {
    let dir = tempfile::tempdir().expect("dir");
    let notes = json!({ "version": 1, "trail": "t-000000000000", "start": 0, "logFiles": [] });
    fs::write(dir.path().join("trail.json"), notes.to_string()).expect("writes");
    State::load(dir.path()).expect("reads").expect("is there").save(dir.path()).expect("saves");
    let saved: Value =
        serde_json::from_slice(&fs::read(dir.path().join("trail.json")).expect("reads")).expect("JSON");
    assert_eq!(saved["version"], FORMAT_VERSION);
}

/// Three files of a journal, two records in each; the one with number `later` is of the next version.
fn three_files(dir: &Path, later: Option<u64>) -> Vec<Link> {
    let (mut link, mut links) = (Link::START, vec![Link::START]);
    for number in 1..=3 {
        let version = if later == Some(number) { NEXT } else { FORMAT_VERSION };
        let header =
            header(number, &link).replacen(&format!(" {FORMAT_VERSION} "), &format!(" {version} "), 1);
        let mut text = header.into_bytes();
        for _ in 0..2 {
            link.append_all(format!("{}\n", refusal(START)).as_bytes(), &mut text);
            links.push(link);
        }
        let end = if number == 3 { ".open" } else { "-20260301T100000Z.closed" };
        fs::write(dir.join(format!("journal-{number:08}{end}")), text).expect("writes");
    }
    assert_eq!(files(dir).expect("lists").len(), 3);
    links
}

/// A file of the journal that cannot be read hides records, and accuses nobody of having removed them, wherever it and the delivery are.
#[tokio::test]
async fn a_file_of_a_later_version_is_no_gap_in_the_journal() {
    let store = Forge::sound().store().await;
    for later in [None, Some(1), Some(2), Some(3)] {
        for delivered in 0..=6 {
            let dir = tempfile::tempdir().expect("dir");
            let links = three_files(dir.path(), later);
            let mut state = State::new(names().trail, START);
            state.delivered = Some(links[delivered]);
            state.save(dir.path()).expect("saves");
            let report = verified(&store, Some(dir.path())).await;
            // That these notes do not know the store's digests is another finding.
            let of_journal: Vec<_> =
                kinds(&report).into_iter().filter(|kind| *kind != FindingKind::ChainGap).collect();
            let wanted = if later.is_some() { vec![FindingKind::JournalUnreadable] } else { vec![] };
            assert_eq!(of_journal, wanted, "{later:?} {delivered} {report:?}");
        }
    }
}
