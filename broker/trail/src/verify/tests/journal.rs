//! A journal can only add to a verdict. Whatever becomes of its files and of the broker's notes: what is wrong in the bucket, or with a
//! line that can be read, is called unsound; what is only out of sight accuses nobody; and no journal from which undelivered records are
//! missing is called sound.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::digest::sha256_hex;
use crate::format_version::FORMAT_VERSION;
use crate::journal::hash_chain::{Link, header};
use crate::journal::{Begun, files};
use crate::state::{Previous, State};
use crate::store::{Store, StoreError};

use super::*;

/// What became of a file of the journal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Whole,
    /// It cannot be opened.
    Withheld,
    /// It is of a later version.
    Newer,
    Removed,
    /// One of its lines was changed.
    Changed,
}

/// What became of `trail.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Notes {
    Whole,
    Removed,
    Withheld,
    Newer,
    Garbled,
}

#[derive(Debug, Clone)]
struct Journal {
    fates: Vec<Fate>,
    notes: Notes,
    /// How many of its records are delivered.
    delivered: usize,
    has_begun: bool,
}

/// Records in each file.
const EACH: usize = 2;

impl Journal {
    fn of(fates: &[Fate]) -> Self {
        Self { fates: fates.to_vec(), notes: Notes::Whole, delivered: 0, has_begun: true }
    }

    /// Writes it, with the notes of the broker that delivered `store`. Returns the places between its records.
    async fn write(&self, dir: &Path, store: &MemoryStore) -> Vec<Link> {
        // The places of the delivered records do not matter here.
        let mut link = Link { sequence: 7, hash: [7; 32] };
        let (mut links, mut begun) = (vec![link], link);
        for (number, fate) in (1..).zip(&self.fates) {
            begun = link;
            let mut text = header(number, &link);
            for _ in 0..EACH {
                let mut written = Vec::new();
                link.append(refusal(START + Duration::hours(3)).as_bytes(), &mut written);
                text += std::str::from_utf8(&written).expect("text");
                links.push(link);
            }
            let end = if number == self.fates.len() as u64 { ".open" } else { "-20260301T110000Z.closed" };
            let path = dir.join(format!("journal-{number:08}{end}"));
            match fate {
                Fate::Whole => fs::write(path, text).expect("writes"),
                Fate::Withheld => fs::create_dir(path).expect("in its place"),
                Fate::Newer => fs::write(path, later(&text)).expect("writes"),
                Fate::Removed => {}
                Fate::Changed => fs::write(path, text.replacen("1001", "1002", 1)).expect("writes"),
            }
        }
        if self.has_begun {
            Begun::new(self.fates.len() as u64, begun).save(dir).expect("saves");
        }
        let mut state = State::new(names().trail, START + Duration::hours(3));
        (state.delivered, state.previous) = (Some(links[self.delivered]), Some(newest(store).await));
        state.save(dir).expect("saves");
        let path = dir.join("trail.json");
        match self.notes {
            Notes::Whole => {}
            Notes::Removed => fs::remove_file(path).expect("removes"),
            Notes::Withheld => {
                fs::remove_file(&path).expect("removes");
                fs::create_dir(path).expect("in its place");
            }
            Notes::Newer => fs::write(path, "{\"version\":99}").expect("writes"),
            Notes::Garbled => fs::write(path, "{}").expect("writes"),
        }
        links
    }

    /// The verdicts that are right, if nothing is wrong in the bucket.
    fn right(&self) -> Vec<Verdict> {
        use Verdict::{CannotTell, Sound, Unsound};
        let is = |fate: Fate| self.fates.contains(&fate);
        let is_withheld = is(Fate::Withheld) || is(Fate::Newer) || self.notes != Notes::Whole;
        if is(Fate::Changed) {
            return vec![Unsound];
        }
        // The oldest files, once they are delivered; the newest file always stays.
        let is_done = |place: usize| (place + 1) * EACH <= self.delivered && place + 1 < self.fates.len();
        let gone = self.fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Removed);
        let oldest = self.fates.iter().take_while(|fate| **fate == Fate::Removed).count();
        let mut missing = gone.map(|(place, _)| place).filter(|place| *place >= oldest || !is_done(*place));
        let Some(first) = missing.next() else {
            return vec![if is_withheld { CannotTell } else { Sound }];
        };
        let left = self.fates.iter().rposition(|fate| *fate != Fate::Removed);
        let is_end = left.is_some_and(|left| left < first) && self.delivered <= first * EACH;
        let has_all = |place: usize| (place + 1) * EACH <= self.delivered;
        let is_lost =
            (first..self.fates.len()).any(|place| self.fates[place] == Fate::Removed && !has_all(place));
        match (is_withheld, is_lost, is_end && !self.has_begun) {
            // Without the file and without the note that it was begun, nothing is left of it.
            (false, _, true) => vec![Sound],
            (true, _, true) => vec![CannotTell],
            (false, true, false) => vec![Unsound],
            (true, true, false) => vec![CannotTell, Unsound],
            // Out of order, though nothing is lost.
            (_, false, false) => vec![Sound, CannotTell, Unsound],
        }
    }
}

fn later(text: &str) -> String {
    text.replacen(&format!(" {FORMAT_VERSION} "), &format!(" {} ", FORMAT_VERSION + 1), 1)
}

async fn newest(store: &MemoryStore) -> Previous {
    let reader = TrailReader::new(Arc::new(store.clone()), names(), None);
    let key = reader.digest_keys().await.expect("lists").own.pop().expect("one");
    let file = reader.digest_file(&key.key).await.expect("reads").expect("is there");
    Previous {
        bucket: file.digest.digest_s3_bucket.clone(),
        object: key.key,
        hash: sha256_hex(&file.json),
        signature: file.signature.expect("is signed"),
        is_closing: false,
    }
}

async fn verified_beside(store: &MemoryStore, dir: Option<&Path>) -> Report {
    let journal_dir = dir.map(Path::to_owned);
    let keys = vec![signer().public_key().clone()];
    verified_with(store, VerifyOptions { keys, journal_dir, ..VerifyOptions::default() }).await
}

async fn verdict_of(journal: &Journal, store: &MemoryStore) -> Report {
    let dir = tempfile::tempdir().expect("a directory");
    journal.write(dir.path(), &sound().await).await;
    verified_beside(store, Some(dir.path())).await
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn any_journal() -> impl Strategy<Value = Journal> {
    let fate = prop_oneof![
        6 => Just(Fate::Whole),
        2 => Just(Fate::Withheld),
        2 => Just(Fate::Newer),
        2 => Just(Fate::Removed),
        1 => Just(Fate::Changed),
    ];
    let notes = prop_oneof![
        6 => Just(Notes::Whole),
        1 => Just(Notes::Removed),
        1 => Just(Notes::Withheld),
        1 => Just(Notes::Newer),
        1 => Just(Notes::Garbled),
    ];
    let fates = prop::collection::vec(fate, 1..6);
    (fates, notes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(fates, notes, at, has_begun)| {
        let delivered = at.index(fates.len() * EACH + 1);
        Journal { fates, notes, delivered, has_begun }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_journal_hides_nothing_and_accuses_nobody(journal in any_journal()) {
        run(async {
            let report = verdict_of(&journal, &sound().await).await;
            prop_assert!(journal.right().contains(&report.verdict), "{:?}: {report:#?}", journal.right());
            Ok(())
        })?;
    }

    #[test]
    fn what_is_wrong_in_the_bucket_stays_wrong(journal in any_journal(), place in any::<prop::sample::Index>()) {
        run(async {
            let store = sound().await;
            let log_files: Vec<_> = store.keys().into_iter().filter(|key| !key.contains("Digest")).collect();
            store.with(|objects| objects.remove(place.get(&log_files)));
            prop_assert_eq!(verified(&store).await.verdict, Verdict::Unsound);
            let report = verdict_of(&journal, &store).await;
            prop_assert_eq!(report.verdict, Verdict::Unsound, "{:#?}", report);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn each_way_to_lose_files_is_told_by_what_is_left() {
    use Fate::{Changed, Newer, Removed, Whole, Withheld};
    use FindingKind::{JournalBroken, JournalGap, JournalUnreadable};
    let table: [(&str, &[Fate], Verdict, &[FindingKind]); 8] = [
        (
            "a line behind a newer file",
            &[Whole, Newer, Changed],
            Verdict::Unsound,
            &[JournalBroken, JournalUnreadable],
        ),
        (
            "a line behind a file that cannot be opened",
            &[Withheld, Changed],
            Verdict::Unsound,
            &[JournalBroken, JournalUnreadable],
        ),
        (
            "a line before it",
            &[Changed, Withheld],
            Verdict::Unsound,
            &[JournalBroken, JournalGap, JournalUnreadable],
        ),
        (
            "a file behind it, by its number",
            &[Whole, Withheld, Removed, Whole],
            Verdict::CannotTell,
            &[JournalGap, JournalUnreadable],
        ),
        (
            "a file before it, by its number",
            &[Whole, Removed, Newer, Whole],
            Verdict::CannotTell,
            &[JournalGap, JournalUnreadable],
        ),
        (
            "a file before the newest, whose place is noted",
            &[Whole, Removed, Withheld],
            Verdict::Unsound,
            &[JournalGap, JournalUnreadable],
        ),
        (
            "the newest behind it",
            &[Whole, Withheld, Removed],
            Verdict::Unsound,
            &[JournalGap, JournalUnreadable],
        ),
        ("the newest", &[Whole, Removed], Verdict::Unsound, &[JournalGap]),
    ];
    for (name, fates, verdict, expected) in table {
        let report = verdict_of(&Journal::of(fates), &sound().await).await;
        assert_eq!((report.verdict, &kinds(&report)[..]), (verdict, expected), "{name}: {report:#?}");
    }
}

/// A failed write may leave whole lines behind where the next file begins. If that one cannot be read, the file behind it shows only that
/// there may be such lines; but no file begins before the one that came before the unread file, or before what was delivered from it.
#[tokio::test]
async fn a_file_that_begins_before_the_end_of_those_before_an_unread_one() {
    let store = sound().await;
    for (begins, delivered, verdict) in [
        (6, 0, Verdict::Unsound),
        (7, 0, Verdict::Unsound),
        (8, 0, Verdict::CannotTell),
        (9, 0, Verdict::CannotTell),
        (15, 0, Verdict::CannotTell),
        (8, 2, Verdict::Unsound),
        (9, 2, Verdict::Unsound),
        (10, 2, Verdict::CannotTell),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal { delivered, ..Journal::of(&[Fate::Whole, Fate::Newer, Fate::Whole]) };
        journal.write(dir.path(), &store).await;
        let third = files(dir.path()).expect("lists").pop().expect("three").path;
        // Of another chain, which nobody can tell without the second file.
        let mut link = Link { sequence: begins, hash: [9; 32] };
        let mut text = header(3, &link).into_bytes();
        link.append(refusal(START + Duration::hours(3)).as_bytes(), &mut text);
        fs::write(third, text).expect("writes");
        let report = verified_beside(&store, Some(dir.path())).await;
        assert_eq!(report.verdict, verdict, "{begins} {delivered}: {report:#?}");
        assert!(!report.counts.contains_key(&FindingKind::EventIdTwice), "{report:#?}");
    }
}

#[tokio::test]
async fn an_uncommitted_rest_before_an_unread_file_is_not_counted_twice() {
    let (store, dir) = (sound().await, tempfile::tempdir().expect("a directory"));
    Journal::of(&[Fate::Whole, Fate::Newer, Fate::Whole]).write(dir.path(), &store).await;
    let listed = files(dir.path()).expect("lists");
    let first = fs::read_to_string(&listed[0].path).expect("text");
    let (_, again) = first.trim_end().rsplit_once('\n').expect("lines");
    let (_, record) = again.split_once(" {").expect("a record");
    let mut link = Link { sequence: 8, hash: [9; 32] };
    let mut text = header(3, &link).into_bytes();
    link.append(format!("{{{record}").as_bytes(), &mut text);
    fs::write(&listed[2].path, text).expect("writes");
    let report = verified_beside(&store, Some(dir.path())).await;
    assert_eq!(report.verdict, Verdict::CannotTell, "{report:#?}");
}

#[tokio::test]
async fn a_journal_without_notes_is_none_unless_its_trail_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let report = verified_beside(&sound().await, Some(dir.path())).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::JournalUnreadable]));
    assert!(report.findings[0].words.contains("--no-journal"), "{report:#?}");
    Journal::of(&[Fate::Whole]).write(dir.path(), &sound().await).await;
    let mut state = State::load(dir.path()).expect("reads").expect("is there");
    state.trail = "other".into();
    state.save(dir.path()).expect("saves");
    let report = verified_beside(&sound().await, Some(dir.path())).await;
    assert_eq!((report.verdict, kinds(&report)), (Verdict::CannotTell, vec![FindingKind::JournalUnreadable]));
    assert!(report.findings[0].words.contains("other"), "{report:#?}");
}

/// The record of a failed call to KMS may come after that of its call, so only the newest calls wait for one: neither a journal that
/// is not there nor one that cannot be read changes what is known of earlier ones.
#[tokio::test]
async fn a_failed_call_is_doubted_only_where_its_record_may_still_come() {
    let data_key =
        "\"dataKey\":{\"servedFrom\":\"KMS\",\"kmsRequestID\":\"b0000000-0000-4000-8000-000000000009\"}";
    for (hours, verdict) in [(0, Verdict::Unsound), (2, Verdict::CannotTell)] {
        let failed = refusal(START + Duration::hours(hours) + Duration::minutes(1));
        let failed = failed.replace("\"outcome\"", &format!("{data_key},\"outcome\""));
        let mut forge = Forge::sound();
        forge.digests[usize::try_from(hours).expect("few")][0].push(failed);
        let store = forge.store().await;
        assert_eq!(verified(&store).await.verdict, verdict, "{hours}");
        for fates in [&[Fate::Withheld][..], &[Fate::Whole, Fate::Newer]] {
            let dir = tempfile::tempdir().expect("a directory");
            Journal::of(fates).write(dir.path(), &store).await;
            assert_eq!(verified_beside(&store, Some(dir.path())).await.verdict, verdict, "{hours}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        Journal::of(&[Fate::Whole]).write(dir.path(), &store).await;
        assert_eq!(verified_beside(&store, Some(dir.path())).await.verdict, Verdict::Unsound, "it has all");
    }
}

/// A store that has an object and does not return it.
pub(super) struct Withholding(pub(super) MemoryStore, pub(super) String);

#[async_trait]
impl Store for Withholding {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        self.0.put(object).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        if *key == self.1 { Err(StoreError("503 Slow Down".into())) } else { self.0.get(key).await }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.0.list(prefix).await
    }
}

/// The notes name the newest digest: where the store does not return it, nobody has deleted it.
#[tokio::test]
async fn a_newest_digest_that_is_not_returned_is_not_missing() {
    let (store, dir) = (sound().await, tempfile::tempdir().expect("a directory"));
    Journal::of(&[Fate::Whole]).write(dir.path(), &store).await;
    let withholding = Withholding(store.copy(), newest(&store).await.object);
    let reader = TrailReader::new(Arc::new(withholding), names(), None);
    let keys = vec![signer().public_key().clone()];
    let journal_dir = Some(dir.path().to_owned());
    let options = VerifyOptions { keys, journal_dir, ..VerifyOptions::default() };
    let report = verify(&reader, &options, &mut |_| {}).await;
    assert!(report.counts.contains_key(&FindingKind::Unreadable), "{report:#?}");
    assert!(!report.counts.contains_key(&FindingKind::NewestMissing), "{report:#?}");
    assert_eq!(report.verdict, Verdict::CannotTell, "its log files are not planted: {report:#?}");
}
