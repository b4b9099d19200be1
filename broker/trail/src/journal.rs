//! The journal: where records become durable before a reply leaves.
//!
//! One thread owns the files. It takes every record that waits, chains them, writes them with one write, makes them durable
//! with one `fdatasync`, and only then tells the callers. Where that fails it cuts off what it half wrote, refuses what waited,
//! and tries again by itself. Records of what has happened all the same (KMS has answered, a call was refused) are the
//! backlog: they are kept in memory, within bounds, and are the first to be written when the journal can.

mod backlog;
pub(crate) mod follow;
mod handover;
pub(crate) mod hash_chain;
mod hold;
mod notices;
mod queue;
pub(crate) mod segment_reader;
mod segments;
mod snapshot;
mod totals;
mod writer;

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use key_broker_core::Principal;
use key_broker_core::clock::Clock;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    follow::Follower,
    notices::{Notices, Taken},
    snapshot::JournalSnapshot,
};
use crate::notice::Notice;
use backlog::{Backlog, Untaken};
use hash_chain::Link;
pub(crate) use hold::Hold;
use queue::{CommitAnswer, Queue};
use segments::{Room, Segments, UndeliveredBytes};
pub(crate) use segments::{SegmentFile, damaged_name, files};
use totals::Counts;
pub(crate) use totals::Totals;
use writer::{Rest, Writer};

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
    /// The bytes of a file at most; then it is closed, to be delivered. Only one commit that is longer makes it longer.
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
    undelivered: UndeliveredBytes,
    hold: Arc<Hold>,
    wait: Duration,
}

/// Between the handles and the thread.
struct Shared {
    queue: Queue,
    health: watch::Sender<bool>,
    notices: Arc<Notices>,
    /// A file was closed because it was full.
    full: Notify,
    counts: Counts,
    /// Times commits, if anybody reads that.
    commits: OnceLock<Arc<CommitTimer>>,
    /// Cancelled when the thread has ended in a defect.
    dead: CancellationToken,
    /// Records that others than the trail itself have had written, or will have: a count of batches.
    asked_by_others: AtomicU64,
    /// How often a copy has been made of all that was there; 0 where nobody copies.
    copies: watch::Sender<u64>,
}

/// Who does not read a copy holds up the end for so long.
const COPY_PATIENCE: Duration = Duration::from_secs(1);

/// Is told how long each commit took.
pub(crate) type CommitTimer = dyn Fn(Duration) + Send + Sync;

/// The thread behind a [`Journal`]. Dropped, it ends by itself, but is not waited for.
pub struct JournalThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Lost, Dead>>>,
}

/// The journal's thread has ended in a defect: what it had taken and not written is lost, and nobody knows how much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dead;

/// Records of the backlog that could not be written when the journal ended, or that were in a file that was removed: lost with the
/// process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// How many.
    pub(crate) records: u64,
    /// Of those of the backlog, records of calls: each was refused, or left by its caller.
    pub(crate) activity_records: u64,
    /// Of those of the backlog, answers of KMS.
    pub(crate) kms_records: u64,
    /// Bytes of all.
    pub(crate) bytes: u64,
}

/// The journal cannot commit: nothing may leave the broker. With the records, if it is known that they are not written.
#[derive(Debug, PartialEq, Eq)]
pub struct JournalUnavailable(pub Option<Vec<u8>>);

/// A commit under way.
#[must_use = "a record is durable only once its commit has been waited for"]
pub struct Commit {
    id: u64,
    done: Result<CommitAnswer, Vec<u8>>,
    wait: Duration,
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the journal in its directory and makes whole what an earlier process left.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, in which its handover runs.
    pub fn open(config: &JournalConfig, clock: Arc<dyn Clock>) -> io::Result<(Self, JournalThread)> {
        let (segments, notices) = Segments::open(config, clock.now())?;
        let (undelivered, hold) = (segments.undelivered(), segments.hold());
        let shared = Arc::new(Shared::new(notices));
        let (written, told) = mpsc::unbounded_channel();
        let writer = Writer {
            segments,
            clock,
            shared: Arc::clone(&shared),
            written,
            backlog: Backlog::default(),
            lines: Vec::new(),
            rest: Rest::default(),
            refused: None,
            told: None,
        };
        let on_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(move || write(writer, &on_thread))?;
        // It is set once.
        let _ = shared.queue.thread.set(thread.thread().clone());
        tokio::spawn(handover::carry(Arc::clone(&shared), told));
        let journal = Self { shared: Arc::clone(&shared), undelivered, hold, wait: config.wait };
        Ok((journal, JournalThread { shared, thread: Some(thread) }))
    }

    /// Queues whole lines, which are written together or not at all. Never blocks.
    pub(crate) fn append(&self, records: Vec<u8>) -> Commit {
        self.append_of(None, records)
    }

    /// The same, for records of a call by this principal, if it is one's, who may fill its share of the journal only.
    pub fn append_of(&self, principal: Option<&Principal>, records: Vec<u8>) -> Commit {
        self.append_within(Room::Calls, principal.cloned(), records)
    }

    /// The same, for records of the calls to KMS that a start and a delivery make: they may go beyond the journal's bounds, so that a
    /// full journal can be delivered.
    pub(crate) fn append_for_the_trail(&self, records: Vec<u8>) -> Commit {
        self.append_within(Room::Reserve, None, records)
    }

    fn append_within(&self, room: Room, principal: Option<Principal>, records: Vec<u8>) -> Commit {
        debug_assert_eq!(records.last(), Some(&b'\n'), "the journal takes whole lines");
        if matches!(room, Room::Calls) {
            self.shared.asked_by_others.fetch_add(1, Ordering::Relaxed);
        }
        let (id, done) = self.shared.queue.append(records, room, principal);
        Commit { id, done, wait: self.wait, shared: Arc::clone(&self.shared) }
    }

    /// Has lines written as soon as the journal can: nobody waits for them, but what they tell has happened.
    pub fn defer(&self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        self.shared.asked_by_others.fetch_add(1, Ordering::Relaxed);
        self.shared.defer(records);
    }

    /// Commits such records, or adds them to the backlog: what they tell has happened, and is needed to make room. An error if it is not
    /// known what became of them.
    pub async fn commit_for_the_trail(&self, records: Vec<u8>) -> Result<(), JournalUnavailable> {
        match self.append_for_the_trail(records).wait().await {
            Err(JournalUnavailable(Some(records))) => {
                self.defer_for_the_trail(&records);
                Ok(())
            }
            other => other,
        }
    }

    /// The same, for records of the calls to KMS that a start and a delivery make.
    pub(crate) fn defer_for_the_trail(&self, records: &[u8]) {
        let untaken = self.shared.queue.defer(records, true);
        self.shared.count_untaken(untaken);
    }

    /// Whether the backlog might not take another answer of KMS: then nothing may be asked of it, for workloads, or for what a start and
    /// a delivery ask (`by_the_trail`).
    #[must_use]
    pub fn is_overdrawn(&self, by_the_trail: bool) -> bool {
        let backlog = self.shared.queue.backlog();
        if by_the_trail { backlog.is_overdrawn_by_the_trail() } else { backlog.is_overdrawn() }
    }

    /// Bytes of records that nobody waits for, and that are not written yet.
    #[must_use]
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.shared.queue.backlog().all()
    }

    /// Closes the journal if its chain ends at `end` and nothing waits: then nothing comes after it. False if that is not
    /// so, or nothing is written any more.
    pub(crate) async fn close_at(&self, end: Link) -> bool {
        self.shared.queue.close_at(end).await.unwrap_or(false)
    }

    /// Where who copies the records counts the rounds.
    pub(crate) fn copies(&self) -> watch::Sender<u64> {
        self.shared.copies.clone()
    }

    /// Grows with everything that is written but for what starts, deliveries and digests leave themselves.
    pub(crate) fn asked_by_others(&self) -> u64 {
        self.shared.asked_by_others.load(Ordering::Relaxed)
    }

    /// Waits until all that is there now is copied, where somebody copies it and can, but not for long.
    pub(crate) async fn copied(&self) {
        let mut copies = self.shared.copies.subscribe();
        let before = *copies.borrow();
        // The round that is under way may have been here before.
        let is_copied = copies.wait_for(|rounds| before == 0 || *rounds == 0 || *rounds >= before + 2);
        let _ = tokio::time::timeout(COPY_PATIENCE, is_copied).await;
    }

    /// Whether the newest commit succeeded, and none takes too long.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<bool> {
        self.shared.health.subscribe()
    }

    /// The bytes of all files.
    #[must_use]
    pub(crate) fn undelivered(&self) -> UndeliveredBytes {
        self.undelivered.clone()
    }

    /// Whose its directory is.
    #[must_use]
    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    /// What was written since the start, and what was not.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (waiting, undelivered_bytes) = (self.shared.queue.waiting(), self.undelivered.bytes());
        Totals { waiting, undelivered_bytes, ..self.shared.counts.totals() }
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

    /// Ends when the journal's thread has ended in a defect: nothing is written any more, and only a new process mends that.
    pub(crate) async fn died(&self) {
        self.shared.dead.cancelled().await;
    }

    /// So many refused calls, and answers of KMS, have no record: the trail tells it.
    pub fn count_unrecorded(&self, refusals: u64, kms_answers: u64) {
        self.shared.count_untaken(Untaken { kms_answers, calls: refusals });
    }

    /// What the broker has found out about its trail, and is to be told there.
    #[must_use]
    pub fn notices(&self) -> &Arc<Notices> {
        &self.shared.notices
    }
}

/// What the thread does. A defect ends it for good: whoever waits for it is told.
fn write(writer: Writer, shared: &Shared) -> Result<Lost, Dead> {
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| writer.write_until_closed()));
    ended.map_err(|_| {
        shared.set_healthy(false);
        shared.dead.cancel();
        Dead
    })
}

impl Shared {
    fn new(notices: Notices) -> Self {
        Self {
            queue: Queue::default(),
            health: watch::Sender::new(true),
            notices: Arc::new(notices),
            full: Notify::default(),
            counts: Counts::default(),
            commits: OnceLock::default(),
            dead: CancellationToken::new(),
            asked_by_others: AtomicU64::new(0),
            copies: watch::Sender::new(0),
        }
    }

    fn defer(&self, records: &[u8]) {
        if !records.is_empty() {
            self.count_untaken(self.queue.defer(records, false));
        }
    }

    /// What has no record is told in the trail.
    fn count_untaken(&self, Untaken { kms_answers, calls }: Untaken) {
        if (kms_answers, calls) == (0, 0) {
            return;
        }
        self.counts.unrecorded_kms_answers.fetch_add(kms_answers, Ordering::Relaxed);
        self.notices.tell(Notice {
            unrecorded_refusals: calls,
            unrecorded_kms_answers: kms_answers,
            ..Notice::default()
        });
        if kms_answers > 0 {
            tracing::error!(
                kms_answers,
                "answers of KMS have no record, since the journal cannot commit, or since they had no requestID: the trail is not \
                 sound"
            );
        }
    }

    fn is_healthy(&self) -> bool {
        *self.health.borrow()
    }

    fn set_healthy(&self, is_healthy: bool) {
        self.health.send_if_modified(|was| std::mem::replace(was, is_healthy) != is_healthy);
    }
}

impl JournalThread {
    /// Writes everything that is queued, and ends. Returns what could not be written. Blocks.
    pub(crate) fn close(mut self) -> Result<Lost, Dead> {
        let Some(thread) = self.end() else { return Ok(Lost::default()) };
        thread.join().unwrap_or(Err(Dead))
    }

    fn end(&mut self) -> Option<JoinHandle<Result<Lost, Dead>>> {
        let thread = self.thread.take()?;
        self.shared.queue.close();
        self.shared.queue.wake();
        Some(thread)
    }
}

impl Lost {
    fn of(lines: &[u8]) -> Self {
        let Untaken { kms_answers, calls } = Untaken::of(lines);
        Self {
            records: kms_answers + calls,
            activity_records: calls,
            kms_records: kms_answers,
            bytes: lines.len() as u64,
        }
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
        self.wait_at_most(Duration::MAX).await
    }

    /// Waits until the record is durable, for at most the configured time and `limit`. What the thread has not taken by then is given
    /// back.
    pub async fn wait_at_most(self, limit: Duration) -> Result<(), JournalUnavailable> {
        let Self { id, done, wait, shared } = self;
        let done = done.map_err(|records| JournalUnavailable(Some(records)))?;
        match tokio::time::timeout(wait.min(limit), done).await {
            Ok(Ok(result)) => result.map_err(|records| JournalUnavailable(Some(records))),
            // The thread is gone.
            Ok(Err(_)) => Err(JournalUnavailable(None)),
            Err(_) => {
                if wait <= limit {
                    // Whatever holds it up, the next call is held up, too. The thread says when it goes on.
                    shared.set_healthy(false);
                    shared.queue.wake();
                }
                Err(JournalUnavailable(shared.queue.withdraw(id)))
            }
        }
    }
}

/// Of a file of the journal, and so of its log file, uncompressed: what the chain adds is more than what a log file does. Readers that
/// bound one value of JSON read it: `DuckDB`'s default is 16 MiB.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 10_000_000;
/// A million records: hours of a busy broker, with a store that is down.
pub(crate) const MAX_UNDELIVERED_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests;
