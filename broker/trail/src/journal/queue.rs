//! The bounded queue before the journal's thread. The [handover](super::handover) wakes the thread.

use std::mem;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use key_broker_core::Principal;
use tokio::sync::{Notify, oneshot};

use super::backlog::{Backlog, Kind, Sizes, Untaken};
use super::hash_chain::Link;
use super::segments::Room;

/// What waits for the thread.
#[derive(Default)]
pub(super) struct Queue {
    orders: Mutex<Orders>,
    /// Notified by the first entry since the thread last emptied the queue.
    pub(super) appended: Notify,
    /// The thread to wake.
    pub(super) thread: OnceLock<Thread>,
    /// The bytes of records in the backlog, both here and with the thread.
    backlog: Sizes,
}

/// What the thread takes at once.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) entries: Vec<Entry>,
    /// Records that nobody waits for.
    pub(super) backlog: Backlog,
    /// Requests to close the current file.
    pub(super) rotations: Vec<oneshot::Sender<()>>,
    /// Requests to close the journal if it is at its end.
    pub(super) ends: Vec<End>,
    /// Nothing follows these.
    pub(super) closed: bool,
    /// The number of the newest entry.
    newest: u64,
}

/// A request to close the journal if it is at its end.
pub(super) struct End {
    /// Where the chain should end.
    pub(super) at: Link,
    pub(super) closed: oneshot::Sender<bool>,
}

/// The records of one call.
pub(super) struct Entry {
    id: u64,
    pub(super) records: Vec<u8>,
    pub(super) room: Room,
    /// The principal whose share of the journal the records count against.
    pub(super) principal: Option<Principal>,
    pub(super) committed: oneshot::Sender<Result<(), Vec<u8>>>,
}

/// The outcome for the records of a call: an error gives them back unwritten.
pub(super) type CommitAnswer = oneshot::Receiver<Result<(), Vec<u8>>>;

impl Queue {
    /// Adds the records of a call and returns the number by which they can be withdrawn. If the queue is full or closed, they are
    /// given back.
    pub(super) fn append(
        &self,
        records: Vec<u8>,
        room: Room,
        principal: Option<Principal>,
    ) -> (u64, Result<CommitAnswer, Vec<u8>>) {
        let (committed, done) = oneshot::channel();
        let mut orders = self.lock();
        if orders.closed || orders.entries.len() >= QUEUE_ENTRIES {
            return (0, Err(records));
        }
        let first = orders.is_empty();
        orders.newest += 1;
        let id = orders.newest;
        orders.entries.push(Entry { id, records, room, principal, committed });
        let waiting = orders.entries.len();
        drop(orders);
        self.tell(first);
        if waiting.is_multiple_of(HANDFUL) {
            self.wake();
        }
        (id, Ok(done))
    }

    /// Withdraws the records of a call, unless the thread has taken them.
    pub(super) fn withdraw(&self, id: u64) -> Option<Vec<u8>> {
        let mut orders = self.lock();
        let place = orders.entries.iter().position(|entry| entry.id == id)?;
        Some(orders.entries.remove(place).records)
    }

    /// Adds records that nobody waits for. Returns how many found no room, or came after the queue was closed.
    pub(super) fn defer(&self, lines: &[u8], is_of_the_trail: bool) -> Untaken {
        let mut untaken = Untaken::default();
        let mut orders = self.lock();
        let first = orders.is_empty();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let kind = if is_of_the_trail { Kind::Trail } else { Kind::of(line) };
            if orders.closed || !self.backlog.add(kind, line.len()) {
                untaken.count(kind);
            } else {
                orders.backlog.lines(kind).extend_from_slice(line);
            }
        }
        let first = first && !orders.backlog.is_empty();
        drop(orders);
        self.tell(first);
        untaken
    }

    /// Bytes of the backlog.
    pub(super) fn backlog(&self) -> &Sizes {
        &self.backlog
    }

    /// The number of calls that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.lock().entries.len() as u64
    }

    /// Asks for the current file to be closed. The answer is dropped if the thread ends first.
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

    /// Asks for the journal to be closed if it ends at `at`. The answer is dropped if the thread ends first.
    pub(super) fn close_at(&self, at: Link) -> oneshot::Receiver<bool> {
        let (closed, done) = oneshot::channel();
        let mut orders = self.lock();
        if !orders.closed {
            let first = orders.is_empty();
            orders.ends.push(End { at, closed });
            drop(orders);
            self.tell(first);
        }
        done
    }

    /// Refuses whatever comes from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// The same, but only if nothing is queued; returns whether it closed the queue.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut orders = self.lock();
        orders.closed |= orders.is_empty();
        orders.closed
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Orders {
        let mut orders = self.lock();
        let Orders { closed, newest, .. } = *orders;
        mem::replace(&mut *orders, Orders { closed, newest, ..Orders::default() })
    }

    /// Wakes the thread if it sleeps.
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
        // Nothing that holds the lock can panic half way.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.backlog.is_empty()
            && self.rotations.is_empty()
            && self.ends.is_empty()
            && !self.closed
    }
}

/// This many entries are worth a write of their own: while it is on its way to the disk, further calls are served.
const HANDFUL: usize = 64;
/// More than all calls in flight, with their KMS records, can queue during one commit.
const QUEUE_ENTRIES: usize = 8_192;
