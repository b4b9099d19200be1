//! Floods of refusals.
//!
//! Up to [`OWN_RECORDS`] refusals of a principal in a second each have a record of their own. Beyond that, one record counts all of one
//! principal, action and reason within a second: it is committed when the second ends, and only then do the callers get their answers.
//! So a flood costs a bounded number of bytes a second, and every refusal is in a record or in a count.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use key_broker_core::{Outcome, Principal};
use key_broker_trail::journal::Journal;
use key_broker_trail::record::{ActivityEventData, ActivityRecord, AwsCaller, RefusalCount, UserIdentity};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::identity::Peer;

/// Counts refusals and records the counts.
pub(crate) struct Refusals {
    journal: Journal,
    caller: Arc<AwsCaller>,
    second: Mutex<Second>,
    /// Notified by a principal's first refusal in a second.
    counted: Notify,
    hashes: RandomState,
}

/// A refusal to be recorded.
pub(super) struct Refusal<'a> {
    pub(super) peer: &'a Arc<Peer>,
    pub(super) event_name: &'static str,
    pub(super) outcome: Outcome,
    /// The reason: the record's `errorCode`.
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) request_id: Uuid,
    /// When the call came.
    pub(super) at: OffsetDateTime,
    /// The key, as the caller wrote it.
    pub(super) key_name: Option<&'a str>,
}

/// A refusal's place in a count.
pub(super) struct CountedRefusal {
    /// The eventID of the record that will count it.
    pub(super) event_id: Uuid,
    committed: watch::Receiver<Option<bool>>,
}

/// The counts of one second.
#[derive(Default)]
struct Second {
    own_records: HashMap<Principal, u32>,
    counts: HashMap<Kind, Count>,
}

/// What refusals that are counted together have in common.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    principal: Principal,
    event_name: &'static str,
    code: String,
}

struct Count {
    event_id: Uuid,
    peer: Arc<Peer>,
    outcome: Outcome,
    message: String,
    at: OffsetDateTime,
    refusals: RefusalCount<'static>,
    different_keys: HashSet<u64>,
    committed: watch::Sender<Option<bool>>,
}

impl Refusals {
    /// Starts without refusals.
    #[must_use]
    pub(crate) fn new(journal: Journal, caller: Arc<AwsCaller>) -> Arc<Self> {
        Arc::new(Self {
            journal,
            caller,
            second: Mutex::default(),
            counted: Notify::new(),
            hashes: RandomState::new(),
        })
    }

    /// Counts a refusal, unless it should have a record of its own.
    pub(super) fn count(&self, refusal: &Refusal<'_>) -> Option<CountedRefusal> {
        let principal = &refusal.peer.principal;
        let mut second = self.lock();
        let own = if let Some(own) = second.own_records.get_mut(principal) {
            own
        } else {
            // A principal's first refusal in this second makes sure that the second ends.
            self.counted.notify_one();
            second.own_records.entry(principal.clone()).or_default()
        };
        if *own < OWN_RECORDS {
            *own += 1;
            return None;
        }
        let kind = Kind {
            principal: principal.clone(),
            event_name: refusal.event_name,
            code: refusal.code.to_owned(),
        };
        if second.counts.len() >= MAX_COUNTS && !second.counts.contains_key(&kind) {
            // Only if the counts of many principals could not be recorded for a long time.
            return None;
        }
        let count = second.counts.entry(kind).or_insert_with(|| Count::begin(refusal));
        count.add(refusal, &self.hashes);
        Some(CountedRefusal { event_id: count.event_id, committed: count.committed.subscribe() })
    }

    /// Records the counts of each second and, when `stop` is cancelled, what is left.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.counted.notified() => {}
            }
            // The callers wait no longer than this.
            let _ = tokio::time::timeout(SECOND, stop.cancelled()).await;
            self.record().await;
        }
        self.record().await;
        self.give_up();
    }

    /// Records the counts. Those that cannot be recorded stay.
    async fn record(&self) {
        let Second { counts, .. } = std::mem::take(&mut *self.lock());
        let mut commits = Vec::with_capacity(counts.len());
        for (kind, count) in counts {
            let commit = self.journal.append_of(Some(&kind.principal), count.line(&kind, &self.caller));
            commits.push((kind, count, commit));
        }
        for (kind, count, commit) in commits {
            let is_committed = commit.wait().await.is_ok();
            count.committed.send_replace(Some(is_committed));
            if !is_committed {
                self.count_on(kind, count);
            }
        }
    }

    /// Counts left at the end get no records; only their total is reported.
    fn give_up(&self) {
        let Second { counts, .. } = std::mem::take(&mut *self.lock());
        let refusals = counts.values().map(|count| count.refusals.count).sum();
        if refusals > 0 {
            self.journal.count_unrecorded(refusals, 0);
        }
    }

    fn count_on(&self, kind: Kind, earlier: Count) {
        let mut second = self.lock();
        if let Some(count) = second.counts.get_mut(&kind) {
            count.join(earlier);
        } else {
            second.counts.insert(kind, Count { committed: watch::Sender::default(), ..earlier });
        }
        drop(second);
        self.counted.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Second> {
        // No panic can leave the counts half changed.
        self.second.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountedRefusal {
    /// Waits until the count is in the journal; false if it could not be written.
    pub(super) async fn committed(mut self) -> bool {
        // The sender is dropped only after the answer.
        self.committed.wait_for(Option::is_some).await.is_ok_and(|committed| *committed == Some(true))
    }
}

impl Count {
    fn begin(refusal: &Refusal<'_>) -> Self {
        Self {
            event_id: Uuid::new_v4(),
            peer: Arc::clone(refusal.peer),
            outcome: refusal.outcome,
            message: refusal.message.to_owned(),
            at: refusal.at,
            refusals: RefusalCount { first_request_id: refusal.request_id.into(), ..RefusalCount::default() },
            different_keys: HashSet::new(),
            committed: watch::Sender::default(),
        }
    }

    fn add(&mut self, refusal: &Refusal<'_>, hashes: &RandomState) {
        self.refusals.count += 1;
        self.refusals.last_request_id = refusal.request_id.into();
        let Some(name) = refusal.key_name else { return };
        if self.different_keys.len() < MAX_DIFFERENT_KEYS && self.different_keys.insert(hashes.hash_one(name))
        {
            self.refusals.different_key_names = self.different_keys.len() as u64;
            if self.refusals.key_names.len() < KEY_NAMES {
                let shown = name[..name.floor_char_boundary(KEY_NAME_BYTES)].to_owned();
                self.refusals.key_names.push(shown.into());
            }
        }
    }

    /// Adds `earlier`, which could not be recorded in time.
    fn join(&mut self, earlier: Self) {
        let newer = std::mem::replace(&mut self.refusals, earlier.refusals);
        self.at = earlier.at;
        self.refusals.count += newer.count;
        self.refusals.last_request_id = newer.last_request_id;
        self.different_keys.extend(earlier.different_keys.into_iter().take(MAX_DIFFERENT_KEYS));
        for name in newer.key_names {
            if self.refusals.key_names.len() < KEY_NAMES && !self.refusals.key_names.contains(&name) {
                self.refusals.key_names.push(name);
            }
        }
        self.refusals.different_key_names = self.different_keys.len() as u64;
    }

    fn line(&self, kind: &Kind, caller: &AwsCaller) -> Vec<u8> {
        let peer = &self.peer;
        let mut record = ActivityRecord::new(
            UserIdentity::workload(peer.kind, peer.principal.as_str(), &peer.details),
            self.at,
            kind.event_name,
            &caller.region,
            &caller.account_id,
            ActivityEventData { refusals: Some(self.refusals.clone()), ..self.outcome.into() },
        );
        record.source_ip_address = Some((&peer.source).into());
        record.user_agent = Some("".into());
        record.fail(&kind.code, &self.message);
        record.request_id = self.refusals.first_request_id.clone();
        record.event_id = self.event_id.into();
        let mut line = Vec::new();
        record.append_to(&mut line);
        line
    }
}

/// Refusals of a principal within a second that have records of their own.
const OWN_RECORDS: u32 = 100;
/// How long refusals wait for the record that counts them.
const SECOND: Duration = Duration::from_millis(900);
/// How many key names a count lists.
const KEY_NAMES: usize = 16;
/// The maximum length of each name.
const KEY_NAME_BYTES: usize = 256;
/// How many different keys a count distinguishes.
const MAX_DIFFERENT_KEYS: usize = 1_024;
/// Concurrent counts: more than all connected principals can cause within a second.
const MAX_COUNTS: usize = 4_096;

#[cfg(test)]
mod tests {
    //! A flood of refusals makes a bounded number of records, none is lost, and principals do not affect each other's counts.

    use std::fs;
    use std::path::Path;

    use key_broker_core::clock::{Clock as _, SystemClock};
    use key_broker_trail::journal::{Durability, Journal, JournalConfig};
    use serde_json::Value;

    use super::*;
    use crate::identity::Identities;

    fn caller() -> Arc<AwsCaller> {
        Arc::new(AwsCaller {
            account_id: "111122223333".into(),
            partition: "aws".into(),
            region: "us-west-2".into(),
            kms_host: "kms.us-west-2.amazonaws.com".into(),
            source_address: "127.0.0.1".into(),
        })
    }

    /// The records in a journal's files: `SEQUENCE HASH RECORD`.
    fn records(dir: &Path) -> Vec<Value> {
        let files = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let texts =
            files.filter(|path| path.extension().is_some_and(|kind| kind == "open" || kind == "closed"));
        let text: String = texts.map(|path| fs::read_to_string(path).expect("reads")).collect();
        let records = text.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
        records.filter_map(|record| serde_json::from_str(record).ok()).collect()
    }

    #[tokio::test]
    async fn above_a_hundred_they_are_counted_and_answered_when_the_count_is_committed() {
        let dir = tempfile::tempdir().expect("dir");
        let config = JournalConfig::new(dir.path().to_owned(), Durability::Fsync, Duration::from_secs(5));
        let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("opens");
        let refusals = Refusals::new(journal, caller());
        let [flooder, other] =
            [1_000, 1_001].map(|uid| Arc::new(Identities::default().unix_peer(uid, uid, Some(1))));
        let count = |peer: &Arc<Peer>, n: u32| {
            let key_name = format!("alias/{n}");
            let refusal = Refusal {
                peer,
                event_name: "Decrypt",
                outcome: Outcome::Denied,
                code: "AccessDenied",
                message: "no",
                request_id: Uuid::from_u128(n.into()),
                at: SystemClock.now(),
                key_name: Some(&key_name),
            };
            refusals.count(&refusal)
        };
        let counted: Vec<_> = (0..1_000).filter_map(|n| count(&flooder, n)).collect();
        assert_eq!(counted.len(), 900);
        assert!(count(&other, 1).is_none(), "it has a hundred of its own");
        let event_id = counted[0].event_id;
        refusals.record().await;
        for counted in counted {
            assert!(counted.committed().await);
        }
        assert!(count(&flooder, 1).is_none(), "another second");
        drop(thread);
        let written = records(dir.path());
        let [record] = &written[..] else { panic!("{written:?}") };
        let data = &record["additionalEventData"]["refusals"];
        assert_eq!((data["count"].as_u64(), data["differentKeyNames"].as_u64()), (Some(900), Some(900)));
        assert_eq!(data["keyNames"].as_array().map(Vec::len), Some(KEY_NAMES));
        assert_eq!(data["firstRequestID"], Uuid::from_u128(100).to_string());
        assert_eq!(data["lastRequestID"], Uuid::from_u128(999).to_string());
        assert_eq!(record["eventID"], event_id.to_string());
        assert_eq!(record["userIdentity"]["principalId"], "unix:uid/1000");
    }

    #[tokio::test]
    async fn a_count_that_cannot_be_committed_is_counted_on_and_its_callers_are_told() {
        let dir = tempfile::tempdir().expect("dir");
        let journal_dir = dir.path().join("journal");
        let config = JournalConfig::new(journal_dir.clone(), Durability::Fsync, Duration::from_secs(5));
        let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("opens");
        let refusals = Refusals::new(journal.clone(), caller());
        let peer = Arc::new(Identities::default().unix_peer(1_000, 1_000, Some(1)));
        let count = |n: u32| {
            refusals.count(&Refusal {
                peer: &peer,
                event_name: "Decrypt",
                outcome: Outcome::Denied,
                code: "AccessDenied",
                message: "no",
                request_id: Uuid::from_u128(n.into()),
                at: SystemClock.now(),
                key_name: None,
            })
        };
        let first = (0..150).filter_map(count).reduce(|_, last| last).expect("counted");
        fs::remove_dir_all(&journal_dir).expect("removes");
        refusals.record().await;
        assert!(!first.committed().await);
        fs::create_dir(&journal_dir).expect("returns");
        let mut health = journal.health();
        assert!(health.wait_for(|healthy| *healthy).await.is_ok());
        let second = (150..300).filter_map(count).reduce(|_, last| last).expect("counted");
        refusals.record().await;
        assert!(second.committed().await);
        drop(thread);
        let counts =
            records(&journal_dir).into_iter().map(|record| record["additionalEventData"]["refusals"].clone());
        let counts: Vec<_> = counts.map(|refusals| refusals["count"].as_u64()).collect();
        assert_eq!(counts, [Some(100)], "fifty of each second");
    }
}
