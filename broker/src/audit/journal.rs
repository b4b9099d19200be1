//! The journal: where records become durable before a reply leaves.
//!
//! One thread owns the files. It takes every record that waits, chains them, writes them with one write, makes them durable
//! with one `fdatasync`, and only then tells the callers. Where that fails it cuts off what it half wrote, refuses what waited,
//! and tries again by itself. Records of what has happened all the same (KMS has answered, a call was refused) are owed: they
//! are kept in memory, within a bound, and are the first to be written when the journal can.

pub mod chain;
pub mod follow;
pub mod segment;
mod segments;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::Clock;
use segment::Flaw;
use segments::Segments;
pub use segments::{SegmentFile, Undelivered, damaged_name, files};

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

/// The handle of the journal: cheap to clone. What is appended after [`JournalThread::close`] is refused.
#[derive(Clone)]
pub struct Journal {
    queue: SyncSender<Order>,
    shared: Arc<Shared>,
    healthy: watch::Receiver<bool>,
    undelivered: Undelivered,
    wait: Duration,
}

/// What the thread tells beside its answers.
struct Shared {
    /// More is owed than may be.
    overdrawn: AtomicBool,
    /// Something is to be told in the next activity record.
    has_notice: AtomicBool,
    notice: Mutex<Notice>,
    /// A file was closed because it was full.
    closed: Notify,
}

/// The thread behind a [`Journal`].
pub struct JournalThread {
    queue: SyncSender<Order>,
    thread: JoinHandle<()>,
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

/// What became of the journal itself, for the next activity record: an auditor is to learn of it from the trail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notice {
    /// Bytes of an unfinished commit that were cut off at a start: no reply went out for it.
    #[serde(skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
    /// Bytes that did not fit the chain, kept as evidence in a file named `damaged`.
    #[serde(skip_serializing_if = "is_zero")]
    pub damaged_bytes: u64,
    /// Records whose files were gone before they were delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing_records: u64,
    /// Refused calls that have no record, because more was owed than memory may hold.
    #[serde(skip_serializing_if = "is_zero")]
    pub unrecorded_refusals: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Notice {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, other: Self) {
        self.torn_bytes += other.torn_bytes;
        self.damaged_bytes += other.damaged_bytes;
        self.missing_records += other.missing_records;
        self.unrecorded_refusals += other.unrecorded_refusals;
    }

    /// Notes what was cut off a file.
    pub fn add_cut(&mut self, flaw: Flaw, bytes: u64) {
        match flaw {
            Flaw::Torn => self.torn_bytes += bytes,
            Flaw::Broken => self.damaged_bytes += bytes,
        }
    }
}

impl Journal {
    /// Opens the journal in its directory and makes whole what an earlier process left.
    pub fn open(config: &JournalConfig, clock: Arc<dyn Clock>) -> io::Result<(Self, JournalThread)> {
        let (segments, notice) = Segments::open(config, clock.now())?;
        let undelivered = segments.undelivered();
        let (queue, orders) = sync_channel(QUEUE_ENTRIES);
        let (health, healthy) = watch::channel(true);
        let shared = Arc::new(Shared {
            overdrawn: AtomicBool::new(false),
            has_notice: AtomicBool::new(false),
            notice: Mutex::default(),
            closed: Notify::new(),
        });
        shared.tell(notice);
        let writer = Writer {
            segments,
            clock,
            health,
            shared: Arc::clone(&shared),
            owed: Vec::new(),
            lines: Vec::new(),
            waiting: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.write_until_closed(&orders))?;
        let journal = Self { queue: queue.clone(), shared, healthy, undelivered, wait: config.wait };
        Ok((journal, JournalThread { queue, thread }))
    }

    /// Queues whole lines, which are written together or not at all. Never blocks.
    pub fn append(&self, records: Vec<u8>) -> Commit {
        debug_assert_eq!(records.last(), Some(&b'\n'), "the journal takes whole lines");
        let (committed, done) = oneshot::channel();
        let queued = self.queue.try_send(Order::Write(Entry { records, committed }));
        let done = match queued {
            Ok(()) => Ok(done),
            Err(refused) => Err(match refused.into_order() {
                Order::Write(entry) => entry.records,
                Order::Owe(_) | Order::Rotate(_) | Order::Close => Vec::new(),
            }),
        };
        Commit { done, wait: self.wait }
    }

    /// Has lines written as soon as the journal can: nobody waits for them, but what they tell has happened.
    pub fn owe(&self, records: Vec<u8>) {
        if !records.is_empty() && self.queue.try_send(Order::Owe(records)).is_err() {
            self.shared.tell(Notice { unrecorded_refusals: 1, ..Notice::default() });
        }
    }

    /// Whether more is owed than may be: then nothing may happen that would have to be recorded.
    #[must_use]
    pub fn is_overdrawn(&self) -> bool {
        self.shared.overdrawn.load(Ordering::Relaxed)
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

    /// Closes the file that is being written, if it has records, and waits until it is.
    pub async fn rotate(&self) {
        let (rotated, done) = oneshot::channel();
        if self.queue.try_send(Order::Rotate(rotated)).is_ok() {
            // The thread is gone only when the broker stops.
            let _ = done.await;
        }
    }

    /// Waits until a file was closed because it was full.
    pub async fn segment_closed(&self) {
        self.shared.closed.notified().await;
    }

    /// Adds to what the next activity record tells of the journal.
    pub fn tell(&self, notice: Notice) {
        self.shared.tell(notice);
    }

    /// Takes what is to be told.
    #[must_use]
    pub fn take_notice(&self) -> Option<Notice> {
        if !self.shared.has_notice.load(Ordering::Relaxed) {
            return None;
        }
        let mut notice = self.shared.notice.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.has_notice.store(false, Ordering::Relaxed);
        Some(std::mem::take(&mut *notice)).filter(|notice| !notice.is_empty())
    }
}

impl Shared {
    fn tell(&self, notice: Notice) {
        if notice.is_empty() {
            return;
        }
        self.notice.lock().unwrap_or_else(PoisonError::into_inner).add(notice);
        self.has_notice.store(true, Ordering::Relaxed);
    }
}

impl JournalThread {
    /// Writes everything that is queued, and ends. Blocks.
    pub fn close(self) {
        // Refused only by a thread that is gone.
        let _ = self.queue.send(Order::Close);
        if self.thread.join().is_err() {
            tracing::error!("the journal thread panicked");
        }
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

enum Order {
    Write(Entry),
    Owe(Vec<u8>),
    Rotate(oneshot::Sender<()>),
    Close,
}

trait Refused {
    fn into_order(self) -> Order;
}

impl Refused for std::sync::mpsc::TrySendError<Order> {
    fn into_order(self) -> Order {
        match self {
            Self::Full(order) | Self::Disconnected(order) => order,
        }
    }
}

struct Entry {
    records: Vec<u8>,
    committed: oneshot::Sender<Result<(), Vec<u8>>>,
}

/// What the thread works with.
struct Writer {
    segments: Segments,
    clock: Arc<dyn Clock>,
    health: watch::Sender<bool>,
    shared: Arc<Shared>,
    owed: Vec<u8>,
    lines: Vec<u8>,
    waiting: Vec<Entry>,
}

impl Writer {
    fn write_until_closed(mut self, orders: &Receiver<Order>) {
        let mut open = true;
        while open {
            let mut next = match self.next(orders) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                // The end of the last handle.
                Err(RecvTimeoutError::Disconnected) => Some(Order::Close),
            };
            let mut rotated = None;
            let mut bytes = 0;
            while let Some(order) = next.take() {
                match order {
                    Order::Write(entry) => {
                        bytes += entry.records.len();
                        self.waiting.push(entry);
                    }
                    Order::Owe(records) => {
                        bytes += records.len();
                        self.owe(&records);
                    }
                    Order::Rotate(done) => rotated = Some(done),
                    Order::Close => open = false,
                }
                if open && rotated.is_none() && bytes < MAX_BATCH_BYTES {
                    next = orders.try_recv().ok();
                }
            }
            self.commit();
            if let Some(done) = rotated {
                self.segments.rotate(self.clock.now());
                // Who asked may be gone.
                let _ = done.send(());
            }
        }
        if !self.owed.is_empty() {
            tracing::error!(
                bytes = self.owed.len(),
                "the journal cannot commit: records of refused calls and of answers of KMS are lost with this process"
            );
        }
    }

    /// The next order; while the journal cannot commit, a time to try again in, too.
    fn next(&self, orders: &Receiver<Order>) -> Result<Order, RecvTimeoutError> {
        if *self.health.borrow() && self.owed.is_empty() {
            return orders.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        orders.recv_timeout(RETRY)
    }

    fn commit(&mut self) {
        let healthy = *self.health.borrow();
        if self.waiting.is_empty() && self.owed.is_empty() && healthy {
            return;
        }
        self.lines.clear();
        let mut link = self.segments.link();
        link.append_all(&self.owed, &mut self.lines);
        for entry in &self.waiting {
            link.append_all(&entry.records, &mut self.lines);
        }
        let result = self.segments.commit(&self.lines, link, self.clock.now());
        match &result {
            Ok(closed) => {
                self.owed.clear();
                self.shared.overdrawn.store(false, Ordering::Relaxed);
                if *closed {
                    self.shared.closed.notify_one();
                }
            }
            Err(error) if healthy || !self.waiting.is_empty() => {
                tracing::error!(%error, dir = %self.segments.dir().display(), calls = self.waiting.len(), "journal cannot commit: the calls are refused");
            }
            Err(_) => {}
        }
        let committed = result.is_ok();
        if !healthy && committed {
            tracing::info!("the journal commits again");
        }
        self.health.send_if_modified(|healthy| std::mem::replace(healthy, committed) != committed);
        let mut waiting = std::mem::take(&mut self.waiting);
        for entry in waiting.drain(..) {
            if committed {
                // A caller that has gone needs no answer.
                let _ = entry.committed.send(Ok(()));
            } else if let Err(Err(records)) = entry.committed.send(Err(entry.records)) {
                self.owe(&records);
            }
        }
        self.waiting = waiting;
    }

    fn owe(&mut self, records: &[u8]) {
        if self.owed.len() + records.len() > MAX_OWED_BYTES {
            self.shared.overdrawn.store(true, Ordering::Relaxed);
            self.shared.tell(Notice { unrecorded_refusals: 1, ..Notice::default() });
            return;
        }
        self.owed.extend_from_slice(records);
        if self.owed.len() > OVERDRAWN_BYTES {
            self.shared.overdrawn.store(true, Ordering::Relaxed);
        }
    }
}

/// CloudTrail's log files have 50 MB at most, uncompressed; of a file of the journal, some 6 % are no record.
pub const MAX_SEGMENT_BYTES: u64 = 50_000_000;
/// A million records: hours of a busy broker, with a store that is down.
pub const MAX_UNDELIVERED_BYTES: u64 = 1 << 30;
/// More than all calls in flight, each with its KMS records, can queue while one commit is under way.
const QUEUE_ENTRIES: usize = 8_192;
/// Bounds one write, and so the time the calls behind it wait.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// How often a journal that cannot commit tries again by itself.
const RETRY: Duration = Duration::from_millis(250);
/// From here on nothing more is asked of KMS, since its answers would have to be owed, too.
const OVERDRAWN_BYTES: usize = 4 << 20;
/// With room for the answers of the calls to KMS that were under way: 1,024 calls in flight of 4 KiB each.
const MAX_OWED_BYTES: usize = OVERDRAWN_BYTES + (4 << 20);

#[cfg(test)]
mod tests;
