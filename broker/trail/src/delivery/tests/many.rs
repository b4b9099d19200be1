//! Many brokers deliver into one bucket over a day: they come and go, some are killed with their journals, the store is down for a while,
//! a clock is wrong by a day. Every surviving record is delivered once, every trail is judged right, and each object is read once for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use key_broker_core::clock::{Clock, SystemClock};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::resume;
use super::site::{HandClock, caller};
use crate::announcer::Announcer;
use crate::delivery::Trail;
use crate::journal::{Durability, Journal, JournalConfig, JournalThread};
use crate::origin::Origin;
use crate::reader::TrailReader;
use crate::record::ReadRecord;
use crate::store::{Object, Store, StoreError};
use crate::verify::forge::{MemoryStore, START, names, refusal, signer};
use crate::verify::{FindingKind, Report, TrailState, Verdict, VerifyOptions, trails, verify_all};

/// A bucket that counts what is asked of it.
#[derive(Clone, Default)]
struct CountingStore {
    objects: MemoryStore,
    gets: Arc<Mutex<HashMap<String, u32>>>,
    lists: Arc<AtomicU64>,
    puts: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
}

#[async_trait]
impl Store for CountingStore {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreError("it is down".into()));
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.objects.put(object).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        *self.gets.lock().unwrap_or_else(PoisonError::into_inner).entry(key.to_owned()).or_default() += 1;
        self.objects.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.objects.list(prefix).await
    }
}

/// The time of all, and how far a broker's own clock is off.
struct OwnClock(Arc<HandClock>, time::Duration);

impl Clock for OwnClock {
    fn now(&self) -> OffsetDateTime {
        self.0.now() + self.1
    }

    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
}

struct Broker {
    trail: Trail,
    announcer: Announcer,
    thread: JournalThread,
    /// The eventIDs of records that were committed.
    told: BTreeSet<String>,
    _dir: TempDir,
}

impl Broker {
    async fn start(store: &CountingStore, clock: Arc<dyn Clock>) -> Self {
        let temp = tempfile::tempdir().expect("dir");
        let dir = temp.path().join("journal");
        let config = JournalConfig::new(dir.clone(), Durability::Write, Duration::from_secs(10));
        let (journal, thread) = Journal::open(&config, Arc::clone(&clock)).expect("the journal opens");
        let (caller, origin) = (Arc::new(caller()), Origin::default());
        let announcer = Announcer { journal, journal_dir: dir, caller, origin, clock };
        let mut trail = resume(Arc::new(store.clone()), None, &announcer).expect("it starts");
        trail.digest().await.expect("opens");
        Self { trail, announcer, thread, told: BTreeSet::new(), _dir: temp }
    }

    async fn call(&mut self, times: usize) {
        for _ in 0..times {
            let record = refusal(self.announcer.clock.now());
            self.told.insert(ReadRecord::parse(&record).expect("a record").event_id.to_string());
            let line = format!("{record}\n").into_bytes();
            self.announcer.journal.append(line).wait().await.expect("commits");
        }
    }

    /// Everything of it is gone but what it has delivered.
    fn kill(self) -> String {
        let name = self.trail.names().trail.clone();
        drop(self.trail);
        self.thread.close().expect("no defect");
        name
    }

    async fn end(self) -> BTreeSet<String> {
        self.trail.finish(Duration::from_secs(20)).await;
        self.thread.close().expect("no defect");
        self.told
    }
}

/// What a day has left.
struct Day {
    store: CountingStore,
    killed: BTreeSet<String>,
    /// What survived.
    told: BTreeSet<String>,
    end: OffsetDateTime,
}

/// `brokers` begin over a day of 24 hours and live for six; every twentieth is killed.
async fn day(brokers: usize) -> Day {
    let clock = Arc::new(HandClock(Mutex::new(START)));
    let (store, mut killed, mut told) = (CountingStore::default(), BTreeSet::new(), BTreeSet::new());
    let mut alive: Vec<(usize, usize, Broker)> = Vec::new();
    let mut begun = 0;
    for hour in 0..30 {
        store.is_down.store(false, Ordering::Relaxed);
        while begun < brokers && begun * 24 < brokers * (hour + 1) {
            let skew = if begun == 7 { time::Duration::DAY } else { time::Duration::ZERO };
            let own: Arc<dyn Clock> = Arc::new(OwnClock(Arc::clone(&clock), skew));
            alive.push((begun, hour, Broker::start(&store, own).await));
            begun += 1;
        }
        // An outage of an hour.
        store.is_down.store(hour == 12, Ordering::Relaxed);
        let mut rest = Vec::new();
        for (number, since, mut broker) in alive {
            broker.call(3).await;
            let _ = broker.trail.deliver().await;
            broker.call(1).await;
            if hour % 2 == number % 2 {
                let _ = broker.trail.digest().await;
            }
            match hour - since {
                3 if number % 20 == 5 => {
                    killed.insert(broker.kill());
                }
                6.. if hour != 12 => told.extend(broker.end().await),
                _ => rest.push((number, since, broker)),
            }
        }
        alive = rest;
        *clock.0.lock().unwrap_or_else(PoisonError::into_inner) += time::Duration::HOUR;
    }
    assert!(alive.is_empty(), "all have ended");
    Day { store, killed, told, end: clock.now() }
}

async fn verified(day: &Day) -> (BTreeMap<String, Report>, crate::verify::BucketReport) {
    let reader = TrailReader::new(Arc::new(day.store.clone()), names(), None);
    let now = Some(day.end + time::Duration::days(3));
    let options =
        VerifyOptions { keys: vec![signer().public_key().clone()], now, ..VerifyOptions::default() };
    let mut reports = BTreeMap::new();
    let bucket = verify_all(&reader, "*", &options, 8, &mut |name, report, _| {
        reports.insert(name.to_owned(), report.clone());
    })
    .await;
    (reports, bucket)
}

#[tokio::test]
async fn trails_of_a_day_are_judged_together_and_each_object_is_read_once() {
    let brokers = std::env::var("KEY_BROKER_FLEET").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let day = Box::pin(day(brokers)).await;
    assert_eq!(day.store.puts.load(Ordering::Relaxed), day.store.objects.keys().len() as u64, "none twice");
    let began = SystemClock.instant();
    let (reports, bucket) = verified(&day).await;
    println!("{brokers} trails, {} records: {:?}", bucket.records, SystemClock.instant() - began);
    assert_eq!(reports.len(), brokers);
    for (name, report) in &reports {
        let expected = if day.killed.contains(name) {
            (Verdict::CannotTell, Some(TrailState::Abandoned))
        } else {
            (Verdict::Sound, Some(TrailState::Closed))
        };
        assert_eq!((report.verdict, report.state), expected, "{name}: {report:?}");
    }
    assert_eq!(
        (bucket.verdict, bucket.trails[&Verdict::Sound]),
        (Verdict::CannotTell, (brokers - day.killed.len()) as u64)
    );
    assert!(!bucket.trails.contains_key(&Verdict::Unsound), "{bucket:?}");
    let gets = day.store.gets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(gets.values().all(|times| *times == 1), "each once");
    assert!(gets.len() <= day.store.objects.keys().len() && day.store.lists.load(Ordering::Relaxed) == 2);

    // Every record that survived is there, once.
    let reader = TrailReader::new(Arc::new(day.store.objects.clone()), names(), None);
    let mut delivered = BTreeMap::<String, u32>::new();
    for key in reader.log_file_keys().await.expect("lists") {
        let json = reader.log_file(&key).await.expect("reads").expect("is there");
        for record in crate::reader::records(&json) {
            let id = ReadRecord::parse(record.expect("a record")).expect("a record").event_id.to_string();
            *delivered.entry(id).or_default() += 1;
        }
    }
    assert!(day.told.iter().all(|id| delivered.get(id) == Some(&1)), "each once");

    let summaries = trails(&reader, "key-broker", day.end + time::Duration::days(3)).await.expect("lists");
    let abandoned = summaries.iter().filter(|trail| trail.state == TrailState::Abandoned);
    assert_eq!(abandoned.map(|trail| trail.name.clone()).collect::<BTreeSet<_>>(), day.killed);
    assert_eq!(summaries.len(), brokers);
}

#[tokio::test]
async fn what_no_trail_names_and_what_two_name_is_found_in_the_bucket() {
    let mut day = Box::pin(day(6)).await;
    for name in std::mem::take(&mut day.killed) {
        day.store.objects.with(|objects| objects.retain(|key, _| !key.contains(&name)));
    }
    // A killed one may have left log files that nobody names.
    let unnamed: Vec<String> = {
        let (_, bucket) = verified(&day).await;
        bucket.findings.iter().map(|finding| finding.place.object.clone()).collect()
    };
    day.store.objects.with(|objects| objects.retain(|key, _| !unnamed.contains(key)));
    let (_, bucket) = verified(&day).await;
    assert_eq!((bucket.verdict, bucket.findings.len()), (Verdict::Sound, 0), "{bucket:?}");

    let planted = names().log_file(START + time::Duration::minutes(70), &[9; 32]);
    day.store.objects.insert(&planted, b"{\"Records\":[]}", BTreeMap::new());
    let (reports, bucket) = verified(&day).await;
    assert!(reports.values().all(|report| report.verdict == Verdict::Sound), "no trail is blamed");
    assert_eq!(bucket.verdict, Verdict::Unsound);
    assert_eq!(bucket.counts.keys().collect::<Vec<_>>(), [&FindingKind::LogFileUnreferenced]);
}
