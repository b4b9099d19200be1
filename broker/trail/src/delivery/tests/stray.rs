//! A broker that has lost its journal's directory to another one neither writes nor delivers any more, whether it waits for its trail,
//! serves or ends, and even after the other one has ended: the other one's trail stays sound.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::{Clock, SystemClock};

use super::resume;
use crate::announcer::Announcer;
use crate::delivery::setup::SetupError;
use crate::delivery::{Trail, TrailError};
use crate::ending::close;
use crate::journal::{Durability, Journal, JournalConfig, JournalThread};
use crate::notice::Reloads;
use crate::origin::Origin;
use crate::reader::TrailReader;
use crate::remainder::Remainder;
use crate::verify::forge::{MemoryStore, caller, names, refusal, signer};
use crate::verify::{Verdict, VerifyOptions, verify};

/// How the directory is lost.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Removed,
    MovedAway,
    /// Only the lock is gone: the other broker continues with what is there.
    LockRemoved,
}

/// How far the losing broker has come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Its trail could not start yet.
    Waiting,
    Serving,
}

struct Broker {
    journal: Journal,
    thread: JournalThread,
    announcer: Announcer,
    store: MemoryStore,
    trail: Option<Trail>,
}

impl Broker {
    fn open(dir: &Path, store: &MemoryStore) -> Self {
        let config = JournalConfig::new(dir.to_owned(), Durability::Write, Duration::from_secs(10));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (journal, thread) = Journal::open(&config, Arc::clone(&clock)).expect("the journal opens");
        let (caller, journal_dir) = (Arc::new(caller()), dir.to_owned());
        let origin = Origin::default();
        let announcer = Announcer { journal: journal.clone(), journal_dir, caller, origin, clock };
        Self { journal, thread, announcer, store: store.clone(), trail: None }
    }

    fn start_trail(&mut self) -> Result<(), SetupError> {
        self.trail = Some(resume(Arc::new(self.store.clone()), None, &self.announcer)?);
        Ok(())
    }

    async fn call(&self) -> bool {
        let record = format!("{}\n", refusal(SystemClock.now())).into_bytes();
        self.journal.append(record).wait().await.is_ok()
    }

    /// Tries everything that a broker writes by itself or for others; all of it must fail.
    async fn tries_everything(&mut self) {
        assert!(!self.call().await, "no call is answered");
        self.journal.defer(format!("{}\n", refusal(SystemClock.now())).as_bytes());
        self.journal.rotate().await;
        assert!(self.journal.notices().tell_reloads(Reloads { policy: 1, ..Reloads::default() }).is_err());
        assert!(!self.announcer.announce().await);
        match &mut self.trail {
            None => {
                let error = self.start_trail().expect_err("not there");
                assert!(matches!(&error, SetupError::NotNow(why) if why.contains("another")), "{error}");
            }
            Some(trail) => {
                assert!(matches!(trail.deliver().await, Err(TrailError::Io(_))));
                assert!(matches!(trail.digest().await, Err(TrailError::Io(_))));
            }
        }
    }

    async fn end(self, within: Duration) -> Remainder {
        let names = self.trail.as_ref().map_or_else(names, |trail| trail.names().clone());
        if let Some(trail) = self.trail {
            trail.finish(within).await;
        }
        close(self.thread, &self.announcer, Some(&names))
    }
}

fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), fs::read(path).expect("reads"))).collect()
}

async fn loses(loss: Loss, stage: Stage) {
    let parent = tempfile::tempdir().expect("dir");
    let dir = parent.path().join("journal");
    let own_store = MemoryStore::default();
    let mut stray = Broker::open(&dir, &own_store);
    assert!(stray.call().await);
    if stage == Stage::Serving {
        stray.start_trail().expect("starts");
        let trail = stray.trail.as_mut().expect("started");
        trail.deliver().await.expect("delivers");
        trail.digest().await.expect("delivers a digest");
        assert!(stray.call().await);
    }
    let store = match loss {
        Loss::Removed => fs::remove_dir_all(&dir).map(|()| MemoryStore::default()),
        Loss::MovedAway => fs::rename(&dir, parent.path().join("aside")).map(|()| MemoryStore::default()),
        Loss::LockRemoved => fs::remove_file(dir.join("lock")).map(|()| own_store.clone()),
    };
    let store = store.expect("is lost");
    let mut other = Broker::open(&dir, &store);
    other.start_trail().expect("starts");
    for _ in 0..3 {
        assert!(other.call().await);
    }

    let (before, objects) = (content(&dir), own_store.with(|objects| objects.len()));
    stray.tries_everything().await;
    assert_eq!(content(&dir), before, "nothing was written");
    let remainder = other.end(Duration::from_secs(20)).await;
    assert!(remainder.is_nothing(), "{remainder}");
    let (before, all_objects) = (content(&dir), own_store.with(|objects| objects.len()));
    assert!(all_objects == objects || loss == Loss::LockRemoved);
    stray.tries_everything().await;
    let remainder = stray.end(Duration::from_millis(50)).await;
    assert!(remainder.unreadable.as_ref().is_some_and(|why| why.contains("another")), "{remainder}");
    assert_eq!(content(&dir), before, "nothing was written");
    assert_eq!(own_store.with(|objects| objects.len()), all_objects, "nothing was delivered");

    let mut next = Broker::open(&dir, &store);
    next.start_trail().expect("starts");
    let names = next.trail.as_ref().expect("started").names().clone();
    assert!(next.call().await && next.end(Duration::from_secs(20)).await.is_nothing());
    let reader = TrailReader::new(Arc::new(store), names, None);
    let keys = vec![signer().public_key().clone()];
    let report = verify(&reader, &VerifyOptions { keys, ..VerifyOptions::default() }, &mut |_| {}).await;
    assert_eq!(report.verdict, Verdict::Sound, "{report:?}");
}

#[tokio::test]
async fn a_broker_whose_directory_another_one_has_writes_nothing_there() {
    for loss in [Loss::Removed, Loss::MovedAway, Loss::LockRemoved] {
        for stage in [Stage::Waiting, Stage::Serving] {
            println!("{loss:?}, {stage:?}");
            Box::pin(loses(loss, stage)).await;
        }
    }
}
