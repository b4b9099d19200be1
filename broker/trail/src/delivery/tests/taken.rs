//! Nothing in the store is overwritten: what a broker finds under one of its names is its own, from an attempt whose answer was lost, or
//! somebody else's, and stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use key_broker_core::clock::{Clock, SystemClock};
use tempfile::TempDir;

use super::resume;
use crate::announcer::Announcer;
use crate::delivery::{Trail, TrailError};
use crate::digest::{Position, SIGNATURE_METADATA};
use crate::journal::{Durability, Journal, JournalConfig, JournalThread};
use crate::log_file::compress;
use crate::origin::Origin;
use crate::reader::{TrailReader, gunzip};
use crate::store::{Object, Store, StoreError};
use crate::verify::forge::{MemoryStore, caller, refusal, signer};
use crate::verify::{TrailState, Verdict, VerifyOptions, verify};

struct Broker {
    trail: Trail,
    announcer: Announcer,
    thread: JournalThread,
}

impl Broker {
    fn start(dir: &TempDir, store: &MemoryStore) -> Self {
        Self::before(dir, store)
    }

    fn before<S: Store + Clone>(dir: &TempDir, store: &S) -> Self {
        let dir = dir.path().join("journal");
        let config = JournalConfig::new(dir.clone(), Durability::Write, Duration::from_secs(10));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (journal, thread) = Journal::open(&config, Arc::clone(&clock)).expect("the journal opens");
        let (caller, origin) = (Arc::new(caller()), Origin::default());
        let announcer = Announcer { journal, journal_dir: dir, caller, origin, clock };
        let trail = resume(Arc::new(store.clone()), None, &announcer).expect("it starts");
        Self { trail, announcer, thread }
    }

    async fn call(&self) {
        let record = format!("{}\n", refusal(SystemClock.now())).into_bytes();
        self.announcer.journal.append(record).wait().await.expect("commits");
    }

    /// Like a kill: only what is noted stays.
    fn kill(self) {
        drop(self.trail);
        self.thread.close().expect("no defect");
    }

    async fn end(self, store: &MemoryStore) -> (Verdict, Option<TrailState>) {
        let names = self.trail.names().clone();
        self.trail.finish(Duration::from_secs(20)).await;
        self.thread.close().expect("no defect");
        let reader = TrailReader::new(Arc::new(store.clone()), names, None);
        let keys = vec![signer().public_key().clone()];
        let report = verify(&reader, &VerifyOptions { keys, ..VerifyOptions::default() }, &mut |_| {}).await;
        (report.verdict, report.state)
    }
}

/// A store that may store an object and still report a failure.
#[derive(Clone, Default)]
struct LossyStore {
    objects: MemoryStore,
    loses: Arc<AtomicBool>,
}

#[async_trait]
impl Store for LossyStore {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        let is_new = self.objects.put(object).await?;
        if self.loses.load(Ordering::Relaxed) {
            return Err(StoreError("the answer is lost".into()));
        }
        Ok(is_new)
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.objects.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.objects.list(prefix).await
    }
}

#[tokio::test]
async fn what_an_earlier_attempt_has_put_is_found_and_not_put_again() {
    for is_killed in [false, true] {
        let (dir, store) = (tempfile::tempdir().expect("dir"), LossyStore::default());
        store.loses.store(true, Ordering::Relaxed);
        let mut broker = Broker::before(&dir, &store);
        assert!(broker.trail.digest().await.is_err());
        if is_killed {
            broker.kill();
            broker = Broker::before(&dir, &store);
        }
        store.loses.store(false, Ordering::Relaxed);
        broker.trail.digest().await.expect("it is there");
        assert_eq!(store.objects.keys().len(), 1);
        broker.call().await;
        store.loses.store(true, Ordering::Relaxed);
        assert!(broker.trail.deliver().await.is_err());
        if is_killed {
            broker.kill();
            broker = Broker::before(&dir, &store);
        }
        store.loses.store(false, Ordering::Relaxed);
        broker.trail.deliver().await.expect("it is there");
        assert_eq!(store.objects.keys().len(), 2);
        assert_eq!(broker.end(&store.objects).await, (Verdict::Sound, Some(TrailState::Closed)));
    }
}

#[tokio::test]
async fn the_same_records_otherwise_compressed_are_the_same_log_file() {
    let (dir, store) = (tempfile::tempdir().expect("dir"), LossyStore::default());
    let mut broker = Broker::before(&dir, &store);
    broker.trail.digest().await.expect("opens");
    broker.call().await;
    store.loses.store(true, Ordering::Relaxed);
    assert!(broker.trail.deliver().await.is_err());
    store.loses.store(false, Ordering::Relaxed);
    // As another version of this program compresses it.
    store.objects.with(|objects| {
        let log_file = objects.values_mut().find(|object| !object.key.contains("Digest")).expect("one");
        let bytes = compress(&gunzip(&log_file.bytes).expect("gzip")).expect("compresses");
        assert_ne!(bytes, log_file.bytes);
        log_file.bytes = bytes;
    });
    broker.trail.deliver().await.expect("it is the same");
    assert_eq!(broker.end(&store.objects).await.0, Verdict::Sound);
}

#[tokio::test]
async fn somebody_elses_object_stays_and_a_digest_takes_the_next_second() {
    let (dir, store) = (tempfile::tempdir().expect("dir"), MemoryStore::default());
    let mut broker = Broker::start(&dir, &store);
    broker.trail.digest().await.expect("opens");
    // Under the name of any second.
    let (names, now) = (broker.trail.names().clone(), SystemClock.now());
    let taken: Vec<String> =
        (0..3).map(|second| names.digest(now + time::Duration::seconds(second))).collect();
    for key in &taken {
        if !store.keys().contains(key) {
            store.insert(key, b"{}", BTreeMap::from([(SIGNATURE_METADATA.to_owned(), "00".to_owned())]));
        }
    }
    let before = store.copy();
    let mut tries = 0;
    while let Err(error) = broker.trail.digest().await {
        assert!(matches!(&error, TrailError::Occupied(key) if taken.contains(key)), "{error}");
        tries += 1;
        assert!(tries < 5, "it goes on");
    }
    assert!(tries > 0, "it met one");
    before.with(|kept| {
        for (key, object) in kept.iter() {
            assert_eq!(store.with(|objects| objects.get(key).cloned()).as_ref(), Some(object), "{key} stays");
        }
    });
    // Verification finds what is under this trail's names.
    assert_eq!(broker.end(&store).await.0, Verdict::Unsound);
}

#[tokio::test]
async fn a_trail_opens_closes_and_goes_on_where_its_journal_is_kept() {
    let (dir, store) = (tempfile::tempdir().expect("dir"), MemoryStore::default());
    let mut names = None;
    for _ in 0..3 {
        let mut broker = Broker::start(&dir, &store);
        assert!(!broker.trail.is_open(), "the store does not know that it goes on");
        broker.trail.digest().await.expect("opens");
        assert!(broker.trail.is_open());
        names = Some(broker.trail.names().clone());
        broker.call().await;
        assert_eq!(broker.end(&store).await, (Verdict::Sound, Some(TrailState::Closed)));
    }
    let reader = TrailReader::new(Arc::new(store.clone()), names.expect("its names"), None);
    let mut positions = Vec::new();
    for key in reader.digest_keys().await.expect("lists").own {
        let digest = reader.digest(&key.key).await.expect("reads").expect("is there");
        positions.push(digest.key_broker.expect("ours").position);
    }
    let closing = Some(Position::Closing);
    assert_eq!(positions, [Some(Position::Opening), closing, None, closing, None, closing]);
}
