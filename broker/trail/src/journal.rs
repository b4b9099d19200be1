//! The journal: where records become durable before a reply leaves.
//!
//! One thread owns the files. It takes every record that waits, chains them, writes them with one write, makes them durable
//! with one `fdatasync`, and only then answers the callers. If that fails, it cuts off what it half wrote, refuses the callers
//! that wait, and tries again by itself. Records of what has already happened (KMS has answered, a call was refused) form the
//! backlog: they stay in memory, within bounds, and are written first once the journal can commit again.

mod backlog;
pub(crate) mod follow;
mod handover;
pub(crate) mod hash_chain;
mod hold;
mod kept_room;
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

pub use self::{follow::Follower, notices::Taken, snapshot::JournalSnapshot};
use crate::notice::{Notice, Reloads};
use backlog::{Backlog, Untaken};
use hash_chain::Link;
pub(crate) use hold::Hold;
pub(crate) use notices::Notices;
use queue::{CommitAnswer, Queue};
pub(crate) use segments::{Begun, SegmentFile, damaged_name, files};
use segments::{Room, Segments, UndeliveredBytes};
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

/// Where and how the journal is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The directory; it is created if it is missing.
    pub dir: PathBuf,
    /// How durable a commit is.
    pub commit: Durability,
    /// How long a call waits for its commit before it is refused.
    pub wait: Duration,
    /// The maximum bytes of a file, which is then closed and delivered. Only a single commit that is longer may exceed it.
    pub max_segment_bytes: u64,
    /// The maximum bytes of all files that are not delivered; beyond it calls are refused.
    pub max_undelivered_bytes: u64,
}

impl JournalConfig {
    /// A journal in `dir` with the default bounds.
    #[must_use]
    pub fn new(dir: PathBuf, commit: Durability, wait: Duration) -> Self {
        let (max_segment_bytes, max_undelivered_bytes) = (MAX_SEGMENT_BYTES, MAX_UNDELIVERED_BYTES);
        Self { dir, commit, wait, max_segment_bytes, max_undelivered_bytes }
    }
}

/// A handle of the journal, cheap to clone. Records appended after the [`JournalThread`] is closed are refused.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    undelivered: UndeliveredBytes,
    hold: Arc<Hold>,
    wait: Duration,
}

/// What the handles and the thread share.
struct Shared {
    queue: Queue,
    health: watch::Sender<bool>,
    notices: Arc<Notices>,
    /// Notified when a file was closed because it was full.
    full: Notify,
    counts: Counts,
    /// Measures commits, if anybody reads the measurements.
    commits: OnceLock<Arc<CommitTimer>>,
    /// Cancelled when the thread has ended by a defect.
    dead: CancellationToken,
    /// The number of batches written, or to be written, other than the trail's own.
    asked_by_others: AtomicU64,
    /// The number of finished rounds of copying all records; 0 where nobody copies.
    copies: watch::Sender<u64>,
}

/// How long the end waits for a copy that nobody reads.
const COPY_PATIENCE: Duration = Duration::from_secs(1);

/// Called with the duration of each commit.
pub(crate) type CommitTimer = dyn Fn(Duration) + Send + Sync;

/// The thread behind a [`Journal`]. If this is dropped, the thread ends by itself, but nobody waits for it.
pub struct JournalThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Lost, Dead>>>,
}

/// The journal's thread has ended by a defect: unwritten records are lost, and their number is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dead;

/// Records that are lost with the process: those of the backlog that could not be written at the end, and those in a file that
/// was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The number of records.
    pub(crate) records: u64,
    /// Records of calls in the backlog: each call was refused, or abandoned by its caller.
    pub(crate) activity_records: u64,
    /// Records of KMS's answers in the backlog.
    pub(crate) kms_records: u64,
    /// The bytes of all records.
    pub(crate) bytes: u64,
}

/// The journal cannot commit, so nothing may leave the broker. Holds the records if it is certain that they are not written.
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
    /// Opens the journal in its directory and repairs what an earlier process left.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, in which its handover task runs.
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
        // It is set only once.
        let _ = shared.queue.thread.set(thread.thread().clone());
        tokio::spawn(handover::carry(Arc::clone(&shared), told));
        let journal = Self { shared: Arc::clone(&shared), undelivered, hold, wait: config.wait };
        Ok((journal, JournalThread { shared, thread: Some(thread) }))
    }

    /// Queues whole lines, which are written together or not at all. Never blocks.
    pub(crate) fn append(&self, records: Vec<u8>) -> Commit {
        self.append_of(None, records)
    }

    /// The same for records of a call. If the call has a principal, the records must fit in that principal's share of the journal.
    pub fn append_of(&self, principal: Option<&Principal>, records: Vec<u8>) -> Commit {
        self.append_within(Room::Calls, principal.cloned(), records)
    }

    /// The same for records of the calls to KMS that a start or a delivery makes. They may exceed the journal's bounds, so that a
    /// full journal can still be delivered.
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

    /// Has lines written as soon as the journal can, without anybody waiting: they record what has already happened.
    pub fn defer(&self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        self.shared.asked_by_others.fetch_add(1, Ordering::Relaxed);
        self.shared.defer(records);
    }

    /// Commits records of a start's or a delivery's calls to KMS, or adds them to the backlog. An error means that it is not known
    /// whether they were written.
    pub async fn commit_for_the_trail(&self, records: Vec<u8>) -> Result<(), JournalUnavailable> {
        match self.append_for_the_trail(records).wait().await {
            Err(JournalUnavailable(Some(records))) => {
                self.defer_for_the_trail(&records);
                Ok(())
            }
            other => other,
        }
    }

    /// The same as [`Self::defer`], for the calls to KMS that a start or a delivery makes.
    pub(crate) fn defer_for_the_trail(&self, records: &[u8]) {
        let untaken = self.shared.queue.defer(records, true);
        self.shared.count_untaken(untaken);
    }

    /// Whether the backlog might have no room for another answer of KMS: then KMS must not be called, either for workloads or,
    /// with `by_the_trail`, for a start or a delivery.
    #[must_use]
    pub fn is_overdrawn(&self, by_the_trail: bool) -> bool {
        let backlog = self.shared.queue.backlog();
        if by_the_trail { backlog.is_overdrawn_by_the_trail() } else { backlog.is_overdrawn() }
    }

    /// The bytes of records in the backlog.
    #[must_use]
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.shared.queue.backlog().all()
    }

    /// Closes the journal if its chain ends at `end` and nothing waits, so that no record follows. False if that is not so, or
    /// if the thread has ended.
    pub(crate) async fn close_at(&self, end: Link) -> bool {
        self.shared.queue.close_at(end).await.unwrap_or(false)
    }

    /// The counter of finished rounds, for the task that copies records.
    pub(crate) fn copies(&self) -> watch::Sender<u64> {
        self.shared.copies.clone()
    }

    /// A count that grows with every batch of records, except those of starts, deliveries and digests.
    pub(crate) fn asked_by_others(&self) -> u64 {
        self.shared.asked_by_others.load(Ordering::Relaxed)
    }

    /// Waits for a short while until every record present now is copied, if records are copied at all.
    pub(crate) async fn copied(&self) {
        let mut copies = self.shared.copies.subscribe();
        let before = *copies.borrow();
        // The round under way may already have passed the newest record.
        let is_copied = copies.wait_for(|rounds| before == 0 || *rounds == 0 || *rounds >= before + 2);
        let _ = tokio::time::timeout(COPY_PATIENCE, is_copied).await;
    }

    /// Whether the newest commit succeeded and no commit takes too long.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<bool> {
        self.shared.health.subscribe()
    }

    /// The bytes of all files.
    #[must_use]
    pub(crate) fn undelivered(&self) -> UndeliveredBytes {
        self.undelivered.clone()
    }

    /// The lock on the journal's directory.
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
    /// Has the commits measured from now on. Only the first call has an effect.
    pub fn time_commits(&self, commits: Arc<CommitTimer>) {
        let _ = self.shared.commits.set(commits);
    }

    /// Counts a call that was refused because its records could not be committed in time.
    pub fn refused_call(&self) {
        self.shared.counts.refused_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed delivery.
    pub(crate) fn failed_delivery(&self) {
        self.shared.counts.failed_deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the file that is being written, if it has records, and waits until it is.
    pub(crate) async fn rotate(&self) {
        // The answer is missing only when the broker stops.
        let _ = self.shared.queue.rotate().await;
    }

    /// Waits until a file was closed because it was full.
    pub(crate) async fn segment_closed(&self) {
        self.shared.full.notified().await;
    }

    /// Ends when the journal's thread has ended by a defect: only a new process can write again.
    pub(crate) async fn died(&self) {
        self.shared.dead.cancelled().await;
    }

    /// Counts refused calls and answers of KMS that have no record, so that the trail reports them.
    pub fn count_unrecorded(&self, refusals: u64, kms_answers: u64) {
        self.shared.count_untaken(Untaken { kms_answers, calls: refusals });
    }

    /// Has the next activity record report reloads. They are durable when this returns; after an error they are in memory only. Blocks.
    pub fn tell_reloads(&self, reloads: Reloads) -> io::Result<()> {
        self.shared.notices.tell_reloads(reloads)
    }

    /// The notice that the next activity record is to report.
    #[must_use]
    pub fn take_notice(&self) -> Option<Taken> {
        self.shared.notices.take()
    }

    /// What the broker has found out about its trail and has yet to report there.
    #[must_use]
    pub(crate) fn notices(&self) -> &Arc<Notices> {
        &self.shared.notices
    }
}

/// The thread's body. A panic ends it for good, and those who wait are notified.
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

    /// Reports in the trail what has no record.
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
    /// Writes everything that is queued, ends, and returns what could not be written. Blocks.
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

    /// Waits until the record is durable, for at most the configured time and `limit`. If the thread has not taken it by then, it
    /// is given back.
    pub async fn wait_at_most(self, limit: Duration) -> Result<(), JournalUnavailable> {
        let Self { id, done, wait, shared } = self;
        let done = done.map_err(|records| JournalUnavailable(Some(records)))?;
        match tokio::time::timeout(wait.min(limit), done).await {
            Ok(Ok(result)) => result.map_err(|records| JournalUnavailable(Some(records))),
            // The thread has ended.
            Ok(Err(_)) => Err(JournalUnavailable(None)),
            Err(_) => {
                if wait <= limit {
                    // What delays this commit delays the next one, too. The thread reports when it goes on.
                    shared.set_healthy(false);
                    shared.queue.wake();
                }
                Err(JournalUnavailable(shared.queue.withdraw(id)))
            }
        }
    }
}

/// The maximum bytes of a file, and so of its uncompressed log file, which is smaller. Readers that limit the size of one JSON value
/// accept it: `DuckDB`'s default is 16 MiB.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 10_000_000;
/// A million records: what a busy broker writes in the hours in which a store is down.
pub(crate) const MAX_UNDELIVERED_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests;
