//! A fleet of brokers with one store and one KMS over a day of simulated time. Brokers come and go, some are killed and lose their
//! journals, the store is down for an hour, and one clock is a day ahead. Store and KMS log every request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use key_broker_core::clock::{Clock, SystemClock};
use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, KeyId, Plaintext};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::config_of_the_trail;
use super::plan::{Encrypted, Plan};
use crate::announcer::Announcer;
use crate::delivery::encryption::Encryption;
use crate::delivery::schedule::Pace;
use crate::delivery::setup::{Means, state_in_journal};
use crate::delivery::{Trail, TrailConfig};
use crate::journal::{Durability, Journal, JournalConfig, JournalThread};
use crate::keys::{DataKey, Decrypter, KeysError, KmsPublicKey, TrailKeys};
use crate::names::TrailNames;
use crate::origin::Origin;
use crate::reader::TrailReader;
use crate::record::ReadRecord;
use crate::signature::{PublicKey, Signer};
use crate::store::{Object, Store, StoreError};
use crate::verify::forge::{MemoryStore, START, caller, key_arn, names, refusal};

/// A store that logs its requests, and from whom they come.
#[derive(Clone)]
pub(super) struct LoggingStore {
    objects: Arc<dyn Store>,
    is_down: Arc<AtomicBool>,
    pub(super) log: Arc<Mutex<Vec<Asked>>>,
    whose: usize,
}

/// One line of a store's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Put { by: usize, key: String },
    Get(String),
    List,
}

impl LoggingStore {
    pub(super) fn new(objects: Arc<dyn Store>) -> Self {
        Self { objects, is_down: Arc::default(), log: Arc::default(), whose: usize::MAX }
    }

    pub(super) fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, asked: Asked) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }
}

#[async_trait]
impl Store for LoggingStore {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreError("it is down".into()));
        }
        self.note(Asked::Put { by: self.whose, key: object.key.clone() });
        self.objects.put(object).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.note(Asked::Get(key.to_owned()));
        self.objects.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.note(Asked::List);
        self.objects.list(prefix).await
    }
}

/// KMS, with a log of one broker's requests.
#[derive(Default)]
struct Kms {
    data_keys: AtomicU64,
    signatures: AtomicU64,
}

fn signing_key() -> &'static KeyPair {
    static PAIR: OnceLock<KeyPair> = OnceLock::new();
    PAIR.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"))
}

pub(super) fn public_key() -> PublicKey {
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(signing_key().public_key()).expect("encodes");
    PublicKey::from_spki(der.as_ref()).expect("reads")
}

#[async_trait]
impl TrailKeys for Kms {
    async fn data_key(&self, _: &KeyId, _: &EncryptionContext) -> Result<DataKey, KeysError> {
        self.data_keys.fetch_add(1, Ordering::Relaxed);
        let ciphertext = CiphertextBlob::parse(vec![7; 100].into()).expect("a ciphertext");
        Ok(DataKey { key: key_arn(), plaintext: Plaintext::new(vec![7; 32]), ciphertext, request_id: None })
    }

    async fn sign(&self, _: &KeyId, digest: [u8; 32]) -> Result<(Vec<u8>, Option<String>), KeysError> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        let mut signature = vec![0; signing_key().public_modulus_len()];
        let digest = Digest::import_less_safe(&digest, &SHA256).expect("a digest");
        signing_key().sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature).expect("signs");
        Ok((signature, None))
    }

    async fn public_key(&self, _: &KeyId) -> Result<KmsPublicKey, KeysError> {
        unreachable!("it is known")
    }
}

#[async_trait]
impl Decrypter for Kms {
    async fn decrypt(
        &self,
        _: CiphertextBlob,
        _: &KeyArn,
        _: EncryptionContext,
    ) -> Result<Plaintext, KeysError> {
        Ok(Plaintext::new(vec![7; 32]))
    }
}

/// The common time, and how far a broker's own clock is off.
struct OwnClock(Arc<Mutex<Duration>>, Instant, time::Duration);

impl OwnClock {
    fn since(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for OwnClock {
    fn now(&self) -> OffsetDateTime {
        START + self.since() + self.2
    }

    fn instant(&self) -> Instant {
        self.1 + self.since()
    }
}

/// A broker's trail and everything that it works with.
struct Broker {
    number: usize,
    began: Duration,
    trail: Trail,
    pace: Pace,
    announcer: Announcer,
    thread: JournalThread,
    kms: Arc<Kms>,
    /// The eventIDs of committed records.
    told: BTreeSet<String>,
    saw_outage: bool,
    _dir: TempDir,
}

impl Broker {
    async fn start(number: usize, began: Duration, store: &LoggingStore, clock: Arc<dyn Clock>) -> Self {
        let temp = tempfile::tempdir().expect("dir");
        let dir = temp.path().join("journal");
        let config = JournalConfig::new(dir.clone(), Durability::Write, Duration::from_secs(10));
        let (journal, thread) = Journal::open(&config, Arc::clone(&clock)).expect("the journal opens");
        let (caller, origin) = (Arc::new(caller()), Origin::default());
        let announcer = Announcer { journal, journal_dir: dir, caller, origin, clock };
        let config =
            TrailConfig { delivery_interval: DELIVERY, digest_interval: DIGEST, ..config_of_the_trail() };
        let state = state_in_journal(&config, &announcer, None).expect("starts");
        let kms = Arc::new(Kms::default());
        let keys: Arc<dyn TrailKeys> = Arc::<Kms>::clone(&kms);
        let means = Means {
            names: TrailNames { trail: state.trail.clone(), ..names() },
            store: Arc::new(LoggingStore { whose: number, ..store.clone() }),
            signer: Signer::kms(Arc::clone(&keys), &key_arn(), public_key()),
            encryption: Some(Encryption::new(keys, key_arn())),
        };
        let mut trail = Trail::resume(&config, means, announcer.clone(), state);
        trail.digest().await.expect("opens");
        let (pace, told) = (trail.begin(), BTreeSet::new());
        Self { number, began, trail, pace, announcer, thread, kms, told, saw_outage: false, _dir: temp }
    }

    async fn call(&mut self) {
        let record = refusal(self.announcer.clock.now());
        self.told.insert(ReadRecord::parse(&record).expect("a record").event_id.to_string());
        let line = format!("{record}\n").into_bytes();
        self.announcer.journal.append(line).wait().await.expect("commits");
    }

    /// Ends the broker. Of a killed one only what it has delivered is left.
    async fn end(self, is_killed: bool) -> Ended {
        let Self { number, trail, thread, kms, told, saw_outage, .. } = self;
        let name = trail.names().trail.clone();
        if is_killed {
            drop(trail);
        } else {
            trail.finish(Duration::from_secs(20)).await;
        }
        thread.close().expect("no defect");
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (data_keys, signatures) = (count(&kms.data_keys), count(&kms.signatures));
        Ended { number, name, is_killed, saw_outage, told, data_keys, signatures }
    }
}

/// A broker that has ended.
pub(super) struct Ended {
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) is_killed: bool,
    /// Whether the store was down during its life.
    pub(super) saw_outage: bool,
    /// The eventIDs of its committed records.
    pub(super) told: BTreeSet<String>,
    /// The number of its calls to KMS for data keys.
    pub(super) data_keys: u64,
    pub(super) signatures: u64,
}

/// The outcome of a day.
pub(super) struct Day {
    pub(super) store: LoggingStore,
    pub(super) brokers: Vec<Ended>,
    pub(super) end: OffsetDateTime,
}

/// `brokers` start over a day and live for six hours each, on their own schedules; one in a hundred is killed half way.
pub(super) async fn day(brokers: usize, objects: Arc<dyn Store>) -> Day {
    let store = LoggingStore::new(objects);
    let (since, base) = (Arc::new(Mutex::new(Duration::ZERO)), SystemClock.instant());
    let (mut alive, mut ended, mut begun) = (Vec::<Broker>::new(), Vec::new(), 0_usize);
    while ended.len() < brokers {
        let now = *since.lock().unwrap_or_else(PoisonError::into_inner);
        let is_down = OUTAGE.contains(&now.as_secs());
        store.is_down.store(is_down, Ordering::Relaxed);
        let due = usize::try_from(now.as_secs()).expect("fits") * brokers / 86_400;
        while !is_down && begun < brokers && begun <= due {
            let skew = if begun == 7 { time::Duration::DAY } else { time::Duration::ZERO };
            let own: Arc<dyn Clock> = Arc::new(OwnClock(Arc::clone(&since), base, skew));
            alive.push(Broker::start(begun, now, &store, own).await);
            begun += 1;
        }
        let mut rest = Vec::new();
        for mut broker in alive {
            broker.saw_outage |= is_down;
            if now > broker.began {
                broker.trail.turn(&mut broker.pace).await;
            }
            broker.call().await;
            let (age, is_killed) = (now.saturating_sub(broker.began), broker.number % 100 == 5);
            match () {
                () if is_killed && age >= LIFE / 2 => ended.push(broker.end(true).await),
                () if age >= LIFE && !is_down => ended.push(broker.end(false).await),
                () => rest.push(broker),
            }
        }
        alive = rest;
        *since.lock().unwrap_or_else(PoisonError::into_inner) += STEP;
    }
    let end = START + *since.lock().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by_key(|broker| broker.number);
    Day { store, brokers: ended, end }
}

/// When a new broker makes its first delivery and its next digest, from its start.
pub(super) async fn first_due() -> (Duration, Duration) {
    let (since, base) = (Arc::new(Mutex::new(Duration::ZERO)), SystemClock.instant());
    let clock: Arc<dyn Clock> = Arc::new(OwnClock(since, base, time::Duration::ZERO));
    let store = LoggingStore::new(Arc::new(MemoryStore::default()));
    let broker = Broker::start(0, Duration::ZERO, &store, clock).await;
    let due = (broker.pace.next - base, broker.trail.next_digest - base);
    broker.end(true).await;
    due
}

impl Day {
    pub(super) fn killed(&self) -> BTreeSet<String> {
        self.brokers.iter().filter(|broker| broker.is_killed).map(|broker| broker.name.clone()).collect()
    }

    /// An auditor's reader, whose requests are in the store's log, too.
    pub(super) fn reader(&self) -> TrailReader {
        TrailReader::new(Arc::new(self.store.clone()), names(), Some(Arc::new(Kms::default())))
    }

    /// The log files and digests that each broker has stored, by its number.
    pub(super) fn puts(&self) -> BTreeMap<usize, (u64, u64)> {
        let mut puts = BTreeMap::<usize, (u64, u64)>::new();
        for asked in self.store.log() {
            let Asked::Put { by, key } = asked else { continue };
            let (log_files, digests) = puts.entry(by).or_default();
            if key.contains("CloudTrail-Digest") { *digests += 1 } else { *log_files += 1 }
        }
        puts
    }
}

/// The forecast of `audit cost` for these numbers.
pub(super) fn plan(brokers: u64, trails: u64) -> Plan {
    Plan {
        delivery_interval: DELIVERY,
        digest_interval: DIGEST,
        encrypted: Encrypted::LogFiles,
        kms_signs: true,
        brokers,
        trails,
    }
}

/// The life of a broker.
pub(super) const LIFE: Duration = Duration::from_hours(6);
/// A step of simulated time, with calls in each.
pub(super) const STEP: Duration = Duration::from_mins(5);
/// Steps of an outage, each with an attempt to deliver, which closes a file of the journal.
pub(super) const STEPS_OF_AN_OUTAGE: u64 = 12;
const OUTAGE: std::ops::Range<u64> = 12 * 3_600..13 * 3_600;
const DELIVERY: Duration = Duration::from_mins(15);
const DIGEST: Duration = Duration::from_hours(1);
