//! What waits for the journal's thread, within bounds. The [courier](super::courier) tells the thread.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use tokio::sync::{Notify, oneshot};

/// What waits for the thread.
#[derive(Default)]
pub(super) struct Queue {
    orders: Mutex<Orders>,
    /// Something waits, for the first time since the thread took all.
    pub(super) appended: Notify,
    /// Whom to wake.
    pub(super) thread: OnceLock<Thread>,
    /// Bytes of records that are owed, whoever holds them.
    owed: AtomicUsize,
}

/// What the thread takes at a time.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) entries: Vec<Entry>,
    /// Records that nobody waits for.
    pub(super) owed: Vec<u8>,
    /// Who waits for the file to be closed.
    pub(super) rotations: Vec<oneshot::Sender<()>>,
    /// Nothing comes after these.
    pub(super) closed: bool,
}

/// The records of one call.
pub(super) struct Entry {
    pub(super) records: Vec<u8>,
    pub(super) committed: oneshot::Sender<Result<(), Vec<u8>>>,
}

impl Queue {
    /// Adds the records of a call, unless the queue is full or closed: then they are given back.
    pub(super) fn append(&self, records: Vec<u8>) -> Result<oneshot::Receiver<Result<(), Vec<u8>>>, Vec<u8>> {
        let (committed, done) = oneshot::channel();
        let mut orders = self.lock();
        if orders.closed || orders.entries.len() >= QUEUE_ENTRIES {
            return Err(records);
        }
        let first = orders.is_empty();
        orders.entries.push(Entry { records, committed });
        let waiting = orders.entries.len();
        drop(orders);
        self.tell(first);
        if waiting.is_multiple_of(HANDFUL) {
            self.wake();
        }
        Ok(done)
    }

    /// Adds records that nobody waits for. False if more would be owed than may be, or nothing is written any more.
    pub(super) fn owe(&self, records: &[u8]) -> bool {
        let more = |owed: usize| owed.checked_add(records.len()).filter(|owed| *owed <= MAX_OWED_BYTES);
        if self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        let mut orders = self.lock();
        if orders.closed {
            self.paid(records.len());
            return false;
        }
        let first = orders.is_empty();
        orders.owed.extend_from_slice(records);
        drop(orders);
        self.tell(first);
        true
    }

    /// So many bytes are no longer owed.
    pub(super) fn paid(&self, bytes: usize) {
        self.owed.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether more is owed than leaves room for answers of KMS that are under way.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > OVERDRAWN_BYTES
    }

    /// The number of calls that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.lock().entries.len() as u64
    }

    /// Asks for the file to be closed. The answer comes when it is, or is dropped when there will be none.
    pub(super) fn rotate(&self) -> oneshot::Receiver<()> {
        let (rotated, done) = oneshot::channel();
        let mut orders = self.lock();
        if !orders.closed {
            let first = orders.is_empty();
            orders.rotations.push(rotated);
            drop(orders);
            self.tell(first);
        }
        done
    }

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Orders {
        let mut orders = self.lock();
        let closed = orders.closed;
        mem::replace(&mut *orders, Orders { closed, ..Orders::default() })
    }

    /// Wakes the thread, if it sleeps.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn tell(&self, first: bool) {
        if first {
            self.appended.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        // Nothing that holds it can panic half way.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.owed.is_empty() && self.rotations.is_empty() && !self.closed
    }
}

/// So many are worth a write of their own: while they are on their way to the disk, the next calls have their turn.
const HANDFUL: usize = 64;
/// More than all calls in flight, each with its KMS records, can queue while one commit is under way.
const QUEUE_ENTRIES: usize = 8_192;
/// From here on nothing more is asked of KMS, since its answers would have to be owed, too.
const OVERDRAWN_BYTES: usize = 4 << 20;
/// With room for the answers of the calls to KMS that were under way: 1,024 calls in flight of 4 KiB each.
const MAX_OWED_BYTES: usize = OVERDRAWN_BYTES + (4 << 20);
