//! The journal: where records become durable before a reply leaves.
//!
//! One thread owns the files. It takes every record that waits, chains them, writes them with one write, makes them durable
//! with one `fdatasync`, and only then tells the callers. Where that fails it cuts off what it half wrote, refuses what waited,
//! and tries again by itself. Records of what has happened all the same (KMS has answered, a call was refused) are owed: they
//! are kept in memory, within a bound, and are the first to be written when the journal can.

pub(crate) mod chain;
mod courier;
pub(crate) mod follow;
mod notices;
mod queue;
pub(crate) mod segment;
mod segments;
mod totals;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use key_broker_core::clock::Clock;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::notice::Notice;
use crate::record::ACTIVITY_END;
use chain::Link;
pub use follow::Follower;
pub use notices::{Notices, Taken};
use queue::Queue;
use segments::Segments;
pub use segments::Undelivered;
pub(crate) use segments::damaged_name;
pub(crate) use segments::{SegmentFile, files};
use totals::Counts;
pub(crate) use totals::Totals;
use writer::Writer;

/// How durable a record is before its reply leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written and synced: survives power loss.
    #[default]
    Fsync,
    /// Written: survives the death of the process, not that of the machine.
    Write,
}

/// Where and how the journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The directory; made if it is missing.
    pub dir: PathBuf,
    /// How durable a commit is.
    pub commit: Durability,
    /// How long a call waits for its commit before it is refused.
    pub wait: Duration,
    /// A file of so many bytes is closed, to be delivered.
    pub max_segment_bytes: u64,
    /// What all files may hold; then calls are refused.
    pub max_undelivered_bytes: u64,
}

impl JournalConfig {
    /// A journal in `dir` with the usual bounds.
    #[must_use]
    pub fn new(dir: PathBuf, commit: Durability, wait: Duration) -> Self {
        let (max_segment_bytes, max_undelivered_bytes) = (MAX_SEGMENT_BYTES, MAX_UNDELIVERED_BYTES);
        Self { dir, commit, wait, max_segment_bytes, max_undelivered_bytes }
    }
}

/// The handle of the journal: cheap to clone. What is appended after the [`JournalThread`] is closed is refused.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    healthy: watch::Receiver<bool>,
    undelivered: Undelivered,
    is_begun_anew: bool,
    wait: Duration,
}

/// Between the handles and the thread.
#[derive(Default)]
struct Shared {
    queue: Queue,
    notices: Arc<Notices>,
    /// A file was closed because it was full.
    full: Notify,
    counts: Counts,
    /// Times commits, if anybody reads that.
    commits: OnceLock<Arc<CommitTimer>>,
}

/// Is told how long each commit took.
pub(crate) type CommitTimer = dyn Fn(Duration) + Send + Sync;

/// The thread behind a [`Journal`]. Dropped, it ends by itself, but is not waited for.
pub struct JournalThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Lost>>,
}

/// Records that were owed when the journal ended, or in a file that was removed, and are lost with the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub(crate) records: u64,
    /// Of those that were owed, records of calls: each was refused.
    pub(crate) activity_records: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// The journal cannot commit: nothing may leave the broker. With the records, if it is known that they are not written.
#[derive(Debug, PartialEq, Eq)]
pub struct JournalUnavailable(pub Option<Vec<u8>>);

/// A commit under way.
#[must_use = "a record is durable only once its commit has been waited for"]
pub struct Commit {
    done: Result<oneshot::Receiver<Result<(), Vec<u8>>>, Vec<u8>>,
    wait: Duration,
}

impl Journal {
    /// Opens the journal in its directory and makes whole what an earlier process left.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, in which its courier runs.
    pub fn open(config: &JournalConfig, clock: Arc<dyn Clock>) -> io::Result<(Self, JournalThread)> {
        let (segments, notices) = Segments::open(config, clock.now())?;
        let (undelivered, is_begun_anew) = (segments.undelivered(), segments.is_begun_anew());
        let (health, healthy) = watch::channel(true);
        let shared = Arc::new(Shared { notices: Arc::new(notices), ..Shared::default() });
        let (written, told) = mpsc::unbounded_channel();
        let writer = Writer {
            segments,
            clock,
            health,
            shared: Arc::clone(&shared),
            written,
            owed: Vec::new(),
            lines: Vec::new(),
            refused: None,
            told: None,
        };
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(|| writer.write_until_closed())?;
        // It is set once.
        let _ = shared.queue.thread.set(thread.thread().clone());
        tokio::spawn(courier::carry(Arc::clone(&shared), told));
        let journal =
            Self { shared: Arc::clone(&shared), healthy, undelivered, is_begun_anew, wait: config.wait };
        Ok((journal, JournalThread { shared, thread: Some(thread) }))
    }

    /// Queues whole lines, which are written together or not at all. Never blocks.
    pub fn append(&self, records: Vec<u8>) -> Commit {
        debug_assert_eq!(records.last(), Some(&b'\n'), "the journal takes whole lines");
        Commit { done: self.shared.queue.append(records), wait: self.wait }
    }

    /// Has lines written as soon as the journal can: nobody waits for them, but what they tell has happened.
    pub fn owe(&self, records: &[u8]) {
        if !records.is_empty() {
            self.shared.owe(records);
        }
    }

    /// Whether there was no file at the start. A journal that was used before has one, whatever was delivered of it.
    #[must_use]
    pub(crate) fn is_begun_anew(&self) -> bool {
        self.is_begun_anew
    }

    /// Whether more is owed than may be: then nothing may happen that would have to be recorded.
    #[must_use]
    pub fn is_overdrawn(&self) -> bool {
        self.shared.queue.is_overdrawn()
    }

    /// Bytes of records that are owed, and not written yet.
    #[must_use]
    pub(crate) fn owed_bytes(&self) -> usize {
        self.shared.queue.owed()
    }

    /// Closes the journal if its chain ends at `end` and nothing waits or is owed: then nothing comes after it. False if that is not
    /// so, or nothing is written any more.
    pub(crate) async fn close_at(&self, end: Link) -> bool {
        self.shared.queue.close_at(end).await.unwrap_or(false)
    }

    /// Whether the newest commit succeeded.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }

    /// The bytes of all files.
    #[must_use]
    pub fn undelivered(&self) -> Undelivered {
        self.undelivered.clone()
    }

    /// What was written since the start, and what was not.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.counts.totals()
    }

    /// The number of calls whose records wait for a commit.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.queue.waiting()
    }

    /// Has the commits timed from now on. The first to ask is heard.
    pub fn time_commits(&self, commits: Arc<CommitTimer>) {
        let _ = self.shared.commits.set(commits);
    }

    /// A call was refused, since its records could not be committed in time.
    pub fn refused_call(&self) {
        self.shared.counts.refused_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A delivery failed.
    pub(crate) fn failed_delivery(&self) {
        self.shared.counts.failed_deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the file that is being written, if it has records, and waits until it is.
    pub(crate) async fn rotate(&self) {
        // There is no answer only when the broker stops.
        let _ = self.shared.queue.rotate().await;
    }

    /// Waits until a file was closed because it was full.
    pub(crate) async fn segment_closed(&self) {
        self.shared.full.notified().await;
    }

    /// What the broker has found out about its trail, and is to be told there.
    #[must_use]
    pub fn notices(&self) -> &Arc<Notices> {
        &self.shared.notices
    }
}

impl Shared {
    fn owe(&self, records: &[u8]) {
        if !self.queue.owe(records) {
            self.notices.tell(Notice { unrecorded_refusals: 1, ..Notice::default() });
        }
    }
}

impl JournalThread {
    /// Writes everything that is queued, and ends. Returns what could not be written. Blocks.
    #[expect(
        clippy::must_use_candidate,
        reason = "the journal is closed whether or not anybody counts what is lost"
    )]
    pub fn close(mut self) -> Lost {
        let Some(thread) = self.end() else { return Lost::default() };
        thread.join().unwrap_or_else(|_| {
            tracing::error!("the journal thread panicked");
            Lost::default()
        })
    }

    fn end(&mut self) -> Option<JoinHandle<Lost>> {
        let thread = self.thread.take()?;
        self.shared.queue.close();
        self.shared.queue.wake();
        Some(thread)
    }
}

impl Lost {
    fn of(lines: &[u8]) -> Self {
        let (mut records, mut activity_records, mut start) = (0, 0, 0);
        for end in memchr::memchr_iter(b'\n', lines) {
            records += 1;
            activity_records += u64::from(lines[start..end].ends_with(ACTIVITY_END));
            start = end + 1;
        }
        Self { records, activity_records, bytes: lines.len() as u64 }
    }
}

impl Drop for JournalThread {
    fn drop(&mut self) {
        self.end();
    }
}

impl Commit {
    /// Waits until the record is durable, for at most the configured time.
    pub async fn wait(self) -> Result<(), JournalUnavailable> {
        let wait = self.wait;
        // Too long: what the thread has of this may still be written.
        tokio::time::timeout(wait, self.end()).await.unwrap_or(Err(JournalUnavailable(None)))
    }

    /// Waits until it is known what became of it, however long that takes.
    pub(super) async fn end(self) -> Result<(), JournalUnavailable> {
        let done = self.done.map_err(|records| JournalUnavailable(Some(records)))?;
        match done.await {
            Ok(result) => result.map_err(|records| JournalUnavailable(Some(records))),
            // The thread is gone.
            Err(_) => Err(JournalUnavailable(None)),
        }
    }
}

/// CloudTrail's log files have 50 MB at most, uncompressed; of a file of the journal, some 6 % are no record.
pub const MAX_SEGMENT_BYTES: u64 = 50_000_000;
/// A million records: hours of a busy broker, with a store that is down.
pub const MAX_UNDELIVERED_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests;
