//! What waits for the journal's thread, within bounds. The [handover](super::handover) tells the thread.

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
    /// Something waits, for the first time since the thread took all.
    pub(super) appended: Notify,
    /// Whom to wake.
    pub(super) thread: OnceLock<Thread>,
    /// Bytes of records in the backlog, whoever holds them.
    backlog: Sizes,
}

/// What the thread takes at a time.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) entries: Vec<Entry>,
    /// Records that nobody waits for.
    pub(super) backlog: Backlog,
    /// Who waits for the file to be closed.
    pub(super) rotations: Vec<oneshot::Sender<()>>,
    /// Who asks for the journal to be closed, if it is at its end.
    pub(super) ends: Vec<End>,
    /// Nothing comes after these.
    pub(super) closed: bool,
    /// The number of the newest entry.
    newest: u64,
}

/// A question whether the journal is at its end, which closes it if it is.
pub(super) struct End {
    /// Where it should end.
    pub(super) at: Link,
    pub(super) closed: oneshot::Sender<bool>,
}

/// The records of one call.
pub(super) struct Entry {
    id: u64,
    pub(super) records: Vec<u8>,
    pub(super) room: Room,
    /// Whose share of the journal they take.
    pub(super) principal: Option<Principal>,
    pub(super) committed: oneshot::Sender<Result<(), Vec<u8>>>,
}

/// What becomes of the records of a call: they are given back where they are not written.
pub(super) type CommitAnswer = oneshot::Receiver<Result<(), Vec<u8>>>;

impl Queue {
    /// Adds the records of a call, unless the queue is full or closed: then they are given back. With the number by which they can be
    /// withdrawn.
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

    /// Takes the records of a call back. None if the thread has them.
    pub(super) fn withdraw(&self, id: u64) -> Option<Vec<u8>> {
        let mut orders = self.lock();
        let place = orders.entries.iter().position(|entry| entry.id == id)?;
        Some(orders.entries.remove(place).records)
    }

    /// Adds records that nobody waits for. Returns how many are not taken, for want of memory or since nothing is written any more.
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

    /// Asks for the journal to be closed if it ends there. The answer is dropped when there will be none.
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

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// The same, unless something has come that is not done yet. False if it has.
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
        self.entries.is_empty()
            && self.backlog.is_empty()
            && self.rotations.is_empty()
            && self.ends.is_empty()
            && !self.closed
    }
}

/// So many are worth a write of their own: while they are on their way to the disk, the next calls have their turn.
const HANDFUL: usize = 64;
/// More than all calls in flight, each with its KMS records, can queue while one commit is under way.
const QUEUE_ENTRIES: usize = 8_192;
