//! A trail, its journal and its store, with a clock that the test sets; and what the trail must contain.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use key_broker_core::clock::{Clock, SystemClock};
use proptest::prelude::*;
use tempfile::TempDir;
use time::OffsetDateTime;

use super::resume;
use crate::announcer::Announcer;
use crate::delivery::Trail;
use crate::ending::close;
use crate::journal::hash_chain::parse_line;
use crate::journal::{Durability, Journal, JournalConfig, JournalThread, files};
use crate::names::TrailNames;
use crate::notice::Reloads;
use crate::origin::Origin;
use crate::reader::TrailReader;
use crate::record::ReadRecord;
use crate::records;
use crate::remainder::Remainder;
use crate::store::{Object, Store, StoreError};
use crate::verify::forge::{MemoryStore, START, caller, refusal, signer};
use crate::verify::{Report, TrailState, Verdict, VerifyOptions, verify};

/// The moment at which a broker is killed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kill {
    /// Between two pieces of work; the last line may be torn.
    Now { torn: bool },
    /// In a delivery and its digest, after this many objects; the next one is stored or not.
    WhileDelivering { puts: usize, stored: bool },
}

pub(super) struct Site {
    dir: TempDir,
    pub(super) store: FaultyStore,
    clock: Arc<HandClock>,
    running: Option<Running>,
    /// The eventIDs of committed records, whose calls were answered.
    acknowledged: BTreeSet<String>,
    /// Those of them whose loss shows even if the journal's directory is lost, too: not what a broker has written since it continued a
    /// closed trail, before that is open in the store again. Until then it answers no call.
    in_open_trails: BTreeSet<String>,
    /// The least and the most reloads that may be reported: notices can be lost with the directory.
    reloads: RangeInclusive<u64>,
    /// The trails of all journals, in order.
    trails: Vec<TrailNames>,
    /// Whether the whole directory of the journal was removed, with the notices in it.
    is_emptied: bool,
}

struct Running {
    trail: Trail,
    journal: Journal,
    thread: JournalThread,
    announcer: Announcer,
}

impl Site {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(HandClock(Mutex::new(START)));
        let store = FaultyStore { journal_dir: dir.path().join("journal"), ..FaultyStore::default() };
        let mut site = Self {
            dir,
            store,
            clock,
            running: None,
            acknowledged: BTreeSet::new(),
            in_open_trails: BTreeSet::new(),
            reloads: 0..=0,
            trails: Vec::new(),
            is_emptied: false,
        };
        site.start();
        site
    }

    fn journal_dir(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    pub(super) fn start(&mut self) {
        let dir = self.journal_dir();
        let config = JournalConfig::new(dir.clone(), Durability::Write, Duration::from_secs(10));
        let clock: Arc<dyn Clock> = Arc::<HandClock>::clone(&self.clock);
        let (journal, thread) = Journal::open(&config, Arc::clone(&clock)).expect("the journal opens");
        let (caller, origin) = (Arc::new(caller()), Origin::default());
        let announcer = Announcer { journal: journal.clone(), journal_dir: dir, caller, origin, clock };
        let trail = resume(Arc::new(self.store.clone()), None, &announcer).expect("the trail starts");
        if self.trails.last() != Some(trail.names()) {
            self.trails.push(trail.names().clone());
        }
        self.running = Some(Running { trail, journal, thread, announcer });
    }

    /// No calls are answered while the trail is not open in the store.
    async fn is_open(&mut self) -> bool {
        let trail = &mut self.running().trail;
        trail.is_open() || trail.digest().await.is_ok()
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it runs")
    }

    pub(super) async fn call(&mut self, times: u8) {
        for _ in 0..times {
            self.clock.pass();
            if !self.is_open().await {
                return;
            }
            let record = refusal(self.clock.now());
            let id = event_id(&record);
            let line = format!("{record}\n").into_bytes();
            if self.running().journal.append(line).wait().await.is_ok() {
                self.in_open_trails.insert(id.clone());
                self.acknowledged.insert(id);
            }
        }
    }

    pub(super) async fn deliver(&mut self) {
        self.clock.pass();
        // The store may be failing on purpose.
        let _ = self.running().trail.deliver().await;
    }

    pub(super) async fn digest(&mut self) {
        self.clock.pass();
        // Likewise.
        let _ = self.running().trail.digest().await;
    }

    pub(super) fn reload(&mut self) {
        let notices = Arc::clone(self.running().journal.notices());
        notices.tell_reloads(Reloads { policy: 1, ..Reloads::default() }).expect("notes it");
        self.reloads = self.reloads.start() + 1..=self.reloads.end() + 1;
    }

    fn closed(&self) -> Vec<PathBuf> {
        let files = files(&self.journal_dir()).unwrap_or_default().into_iter();
        files.filter(|file| file.closed_at.is_some()).map(|file| file.path).collect()
    }

    /// Whatever is in the journal must be in the trail, including the broker's own records.
    fn note_journal(&mut self) {
        let is_open = self.running().trail.is_open();
        for file in files(&self.journal_dir()).expect("files") {
            let text = fs::read(file.path).expect("reads");
            let records = text.split(|byte| *byte == b'\n').filter_map(parse_line);
            let texts = records.filter_map(|(_, record)| std::str::from_utf8(record).ok());
            let read = texts.filter_map(|text| ReadRecord::parse(text).ok());
            let ids: Vec<_> = read.map(|record| record.event_id.to_string()).collect();
            if is_open {
                self.in_open_trails.extend(ids.iter().cloned());
            }
            self.acknowledged.extend(ids);
        }
    }

    pub(super) fn remove(&mut self, which: usize) {
        self.note_journal();
        let closed = self.closed();
        if !closed.is_empty() {
            fs::remove_file(&closed[which % closed.len()]).expect("removes");
        }
    }

    pub(super) fn edit(&mut self, which: usize, byte: usize) {
        self.note_journal();
        let closed = self.closed();
        if closed.is_empty() {
            return;
        }
        let path = &closed[which % closed.len()];
        let mut text = fs::read(path).expect("reads");
        if text.is_empty() {
            return;
        }
        let at = byte % text.len();
        text[at] ^= 1;
        fs::write(path, text).expect("writes");
    }

    /// A journal that is lost before its trail is open (again) had only the broker's own records: no call was answered.
    fn note_lost_journal(&mut self) {
        if self.running().trail.is_open() {
            self.note_journal();
        }
    }

    pub(super) fn remove_directory(&mut self) {
        self.note_lost_journal();
        self.is_emptied = true;
        fs::remove_dir_all(self.journal_dir()).expect("removes");
        fs::create_dir(self.journal_dir()).expect("makes");
        // Notices that were not reported are lost with it if the process ends.
        self.reloads = 0..=*self.reloads.end();
    }

    pub(super) async fn remove_directory_while_delivering(&mut self) {
        self.note_lost_journal();
        self.store.set_moment(Some(Moment { puts: 0, is_stored: true, removes_directory: true }));
        self.deliver().await;
        if self.store.take_moment().is_some() {
            // There was nothing to deliver, or the store is down.
            return;
        }
        fs::create_dir(self.journal_dir()).expect("makes");
        self.is_emptied = true;
        self.reloads = 0..=*self.reloads.end();
    }

    /// The number of committed records that are not in a digest's log files.
    pub(super) async fn lacks(&self) -> usize {
        self.acknowledged.difference(&self.delivered().await.0).count()
    }

    pub(super) async fn stop(&mut self) -> Remainder {
        let Running { trail, thread, announcer, .. } = self.running.take().expect("it runs");
        let within = if self.store.fails.load(Ordering::Relaxed) { WHILE } else { LONG };
        let began = SystemClock.instant();
        trail.finish(within).await;
        let took = SystemClock.instant() - began;
        assert!(within == WHILE || took < within / 4, "it comes to its end by itself, but took {took:?}");
        close(thread, &announcer, self.trails.last())
    }

    pub(super) async fn kill(&mut self, kill: Kill) {
        let mut kept = Snapshot::of(&self.journal_dir(), &self.store.objects);
        if let Kill::WhileDelivering { puts, stored } = kill {
            self.store.set_moment(Some(Moment { puts, is_stored: stored, removes_directory: false }));
            self.deliver().await;
            self.digest().await;
            kept = self
                .store
                .take_kept()
                .unwrap_or_else(|| Snapshot::of(&self.journal_dir(), &self.store.objects));
        }
        // Nothing counts that the process does from here on.
        let Running { trail, thread, .. } = self.running.take().expect("it runs");
        drop(trail);
        thread.close().expect("no defect");
        kept.restore(&self.journal_dir(), &self.store.objects);
        if matches!(kill, Kill::Now { torn: true })
            && let Some(open) = files(&self.journal_dir()).expect("files").pop()
        {
            let mut text = fs::read(&open.path).expect("reads");
            text.extend_from_slice(b"4711 00ff half a li");
            fs::write(&open.path, text).expect("writes");
        }
    }

    fn reader(&self, names: &TrailNames) -> TrailReader {
        TrailReader::new(Arc::new(self.store.objects.clone()), names.clone(), None)
    }

    fn newest_trail(&self) -> &TrailNames {
        self.trails.last().expect("it has started")
    }

    async fn verified(&self, names: &TrailNames, journal_dir: Option<PathBuf>) -> Report {
        let keys = vec![signer().public_key().clone()];
        let options = VerifyOptions { keys, journal_dir, ..VerifyOptions::default() };
        verify(&self.reader(names), &options, &mut |_| {}).await
    }

    /// The eventIDs in log files that are in digests, and the number of reloads reported there.
    async fn delivered(&self) -> (BTreeSet<String>, u64) {
        let (mut ids, mut reloads, mut told) = (BTreeSet::new(), 0, BTreeSet::new());
        let mut named = Vec::new();
        for names in &self.trails {
            let reader = self.reader(names);
            for key in reader.digest_keys().await.expect("lists").own {
                named.extend(reader.digest(&key.key).await.expect("reads").expect("is there").log_files);
            }
        }
        let reader = self.reader(self.newest_trail());
        for log_file in named {
            let json = reader.log_file(&log_file.s3_object).await.expect("reads").expect("is there");
            for record in records(&json) {
                let record: serde_json::Value =
                    serde_json::from_str(record.expect("a record")).expect("JSON");
                ids.insert(record["eventID"].as_str().expect("an id").to_owned());
                let data = &record["additionalEventData"];
                // Two records with the same noticeID report the same.
                if told.insert(data["noticeID"].to_string()) {
                    reloads += data["reloads"]["policy"].as_u64().unwrap_or_default();
                }
            }
        }
        (ids, reloads)
    }

    /// The last broker has delivered everything it could. A journal that was lost shows as a trail that does not end.
    pub(super) async fn check_stopped(&self) -> Result<(), TestCaseError> {
        let (delivered, reloads) = self.delivered().await;
        let lacks = self.acknowledged.difference(&delivered).count();
        let is_anew = self.trails.len() > 1;
        for journal_dir in [None, Some(self.journal_dir())] {
            let mut reports = Vec::new();
            for names in &self.trails {
                let is_newest = names == self.newest_trail();
                reports.push(self.verified(names, journal_dir.clone().filter(|_| is_newest)).await);
            }
            let is_whole = |report: &Report| {
                report.verdict == Verdict::Sound && report.state == Some(TrailState::Closed)
            };
            let all_whole = reports.iter().all(is_whole);
            let shown = if is_anew { &self.in_open_trails } else { &self.acknowledged };
            let is_lacking = shown.difference(&delivered).next().is_some();
            prop_assert!(!is_lacking || !all_whole, "{} lack: {:?}", lacks, reports);
            let Some(newest) = reports.last() else { continue };
            prop_assert_eq!(newest.state, Some(TrailState::Closed), "{:?}", newest);
            if is_anew || self.is_emptied {
                // Notices were lost with the directory: if no record is missing, the broker may report more than was lost.
                continue;
            }
            let expected = if lacks > 0 { Verdict::Unsound } else { Verdict::Sound };
            prop_assert_eq!(newest.verdict, expected, "{} lack: {:?}", lacks, newest);
        }
        if !is_anew && lacks == 0 {
            prop_assert!(self.reloads.contains(&reloads), "{reloads} reloads are told of {:?}", self.reloads);
        }
        Ok(())
    }

    /// The same for a broker that was killed, for an auditor who has its journal.
    pub(super) async fn check_killed(&self) -> Result<(), TestCaseError> {
        let (mut there, _) = self.delivered().await;
        let report = self.verified(self.newest_trail(), Some(self.journal_dir())).await;
        // What is noted as delivered, or is in the journal, is not lost.
        let journal = fs::read_dir(self.journal_dir()).expect("a directory");
        let text: Vec<u8> = journal
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "closed" || kind == "open"))
            .flat_map(|path| fs::read(path).expect("reads"))
            .collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        let notes = fs::read_to_string(self.journal_dir().join("trail.json")).unwrap_or_default();
        let reader = self.reader(self.newest_trail());
        for key in reader.log_file_keys().await.expect("lists").iter().filter(|key| notes.contains(*key)) {
            let json = reader.log_file(key).await.expect("reads").expect("is there");
            there.extend(records(&json).map(|record| event_id(record.expect("a record"))));
        }
        let lacks = self.acknowledged.iter().filter(|id| !there.contains(*id) && !text.contains(*id)).count();
        let is_anew = self.trails.len() > 1 || notes.is_empty();
        if lacks > 0 && !is_anew {
            prop_assert_ne!(report.verdict, Verdict::Sound, "{} lack after the kill: {:?}", lacks, report);
        }
        Ok(())
    }
}

/// A store that fails on demand, and keeps what a killed broker leaves.
#[derive(Clone, Default)]
pub(super) struct FaultyStore {
    pub(super) objects: MemoryStore,
    journal_dir: PathBuf,
    fails: Arc<AtomicBool>,
    moment: Arc<Mutex<Option<Moment>>>,
    kept: Arc<Mutex<Option<Snapshot>>>,
}

/// The moment of a kill, or of removing the directory.
#[derive(Clone, Copy, PartialEq)]
struct Moment {
    /// After this many objects.
    puts: usize,
    /// Whether the next one is stored.
    is_stored: bool,
    removes_directory: bool,
}

impl FaultyStore {
    pub(super) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    fn set_moment(&self, moment: Option<Moment>) {
        *self.moment.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    fn take_moment(&self) -> Option<Moment> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts an object and returns the moment if it has come.
    fn pass(&self) -> Option<Moment> {
        let mut next = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = next.take()?;
        if moment.puts == 0 {
            return Some(moment);
        }
        *next = Some(Moment { puts: moment.puts - 1, ..moment });
        None
    }

    fn take_kept(&self) -> Option<Snapshot> {
        self.set_moment(None);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self) {
        let kept = Snapshot::of(&self.journal_dir, &self.objects);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError("it is down".into()));
        }
        let moment = self.pass();
        if moment.is_some_and(|moment| !moment.is_stored) {
            self.keep();
        }
        let put = self.objects.put(object).await;
        if let Some(Moment { is_stored: true, removes_directory, .. }) = moment {
            if removes_directory {
                fs::remove_dir_all(&self.journal_dir).expect("removes");
            } else {
                self.keep();
            }
        }
        put
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.objects.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.objects.list(prefix).await
    }
}

/// Journal and store at one moment.
struct Snapshot {
    files: Vec<(std::ffi::OsString, Vec<u8>)>,
    objects: MemoryStore,
}

impl Snapshot {
    fn of(dir: &Path, objects: &MemoryStore) -> Self {
        let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
        let files = entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("reads")));
        Self { files: files.collect(), objects: objects.copy() }
    }

    fn restore(&self, dir: &Path, objects: &MemoryStore) {
        fs::remove_dir_all(dir).expect("removes");
        fs::create_dir(dir).expect("makes");
        for (name, bytes) in &self.files {
            fs::write(dir.join(name), bytes).expect("writes");
        }
        let kept = self.objects.with(|objects| objects.clone());
        objects.with(|objects| *objects = kept);
    }
}

/// The test sets the time of day; waiting takes real time.
pub(super) struct HandClock(pub(super) Mutex<OffsetDateTime>);

impl HandClock {
    pub(super) fn pass(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += time::Duration::seconds(17);
    }
}

impl Clock for HandClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
}

/// How long a broker tries while its store is down.
const WHILE: Duration = Duration::from_millis(30);
/// Longer than it takes.
const LONG: Duration = Duration::from_secs(20);

fn event_id(record: &str) -> String {
    ReadRecord::parse(record).expect("a record").event_id.to_string()
}
