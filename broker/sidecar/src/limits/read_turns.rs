//! Turns at being read: however many connections a principal has, only a few reads of them happen before every other principal has had
//! its turn.
//!
//! The runtime polls its tasks in the order in which they became ready. A principal with 256 readable connections would have 256 turns for
//! another's one, and the resulting requests, about thirty from each, would all come before the other's next request. So each principal
//! has [`READS`] for all its connections together in one pass of the runtime through its tasks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// The turns of all principals.
#[derive(Default)]
pub(crate) struct ReadTurns {
    /// Those that have read since the last pass.
    used: Mutex<Vec<Arc<Reads>>>,
    first: Notify,
}

/// What one principal may still read in this pass.
struct Reads {
    left: Arc<Semaphore>,
    is_used: AtomicBool,
}

/// The turns of one principal, over all its connections.
#[derive(Clone)]
pub(crate) struct Reader {
    turns: Arc<ReadTurns>,
    reads: Arc<Reads>,
}

/// One connection of a principal.
pub(crate) struct ReadTurn {
    reader: Reader,
    waiting: PollSemaphore,
}

impl ReadTurns {
    /// A principal that has not read yet.
    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        let reads = Reads { left: Arc::new(Semaphore::new(READS)), is_used: AtomicBool::new(false) };
        Reader { turns: Arc::clone(self), reads: Arc::new(reads) }
    }

    /// Gives everybody its turns back, pass after pass.
    pub(crate) async fn run(&self) {
        loop {
            self.first.notified().await;
            loop {
                pass().await;
                let used = std::mem::take(&mut *self.used());
                if used.is_empty() {
                    break;
                }
                for reads in used {
                    reads.is_used.store(false, Ordering::Release);
                    reads.left.add_permits(READS.saturating_sub(reads.left.available_permits()));
                }
            }
        }
    }

    fn used(&self) -> MutexGuard<'_, Vec<Arc<Reads>>> {
        // Between any two statements it is whole.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Another connection of the principal.
    pub(crate) fn turn(&self) -> ReadTurn {
        ReadTurn { reader: self.clone(), waiting: PollSemaphore::new(Arc::clone(&self.reads.left)) }
    }

    fn use_up(&self, permit: OwnedSemaphorePermit) {
        permit.forget();
        if !self.reads.is_used.swap(true, Ordering::AcqRel) {
            self.turns.used().push(Arc::clone(&self.reads));
            self.turns.first.notify_one();
        }
    }
}

impl ReadTurn {
    /// Reads by `read` once it is the connection's turn. One that finds nothing to read leaves its turn to others of the principal.
    pub(crate) fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Nobody closes the semaphore: without a permit there is no bound, and no loss.
        let permit = std::task::ready!(self.waiting.poll_acquire(cx));
        let outcome = read(cx);
        if let (Poll::Ready(_), Some(permit)) = (&outcome, permit) {
            self.reader.use_up(permit);
        }
        outcome
    }

    /// Leaves its turn, or its place among those who wait for one, to others of the principal: a connection that has to write before it
    /// reads would keep it for as long as its peer takes nothing.
    pub(crate) fn leave(&mut self) {
        self.waiting = PollSemaphore::new(Arc::clone(&self.reader.reads.left));
    }
}

/// Ends after every task that is ready now was polled: the runtime puts a task that wakes itself behind all others.
async fn pass() {
    let mut is_over = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Of a few KiB each.
const READS: usize = 2;

#[cfg(test)]
mod tests {
    //! Reading on many connections gives no more turns than reading on one, and nobody waits without reason.

    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn a_principal_with_many_connections_reads_no_more_than_one_with_one() {
        let turns = Arc::<ReadTurns>::default();
        let log = Rc::<RefCell<Vec<char>>>::default();
        let spawn = |name: char, reader: &Reader| {
            let (mut turn, log) = (reader.turn(), Rc::clone(&log));
            tokio::task::spawn_local(async move {
                for _ in 0..20 {
                    std::future::poll_fn(|cx| turn.poll_read(cx, |_| Poll::Ready(()))).await;
                    log.borrow_mut().push(name);
                    pass().await;
                }
            })
        };
        let all = LocalSet::new();
        let ticking = Arc::clone(&turns);
        all.spawn_local(async move { ticking.run().await });
        all.run_until(async {
            let (many, one) = (turns.reader(), turns.reader());
            let crowd: Vec<_> = (0..50).map(|_| spawn('m', &many)).collect();
            spawn('o', &one).await.expect("no panic");
            let before = log.borrow().iter().filter(|name| **name == 'm').count();
            assert!((20..=20 * READS * 2).contains(&before), "{before} beside 20 of the one");
            for connection in crowd {
                connection.await.expect("no panic");
            }
        })
        .await;
        assert_eq!(log.borrow().len(), 51 * 20);
    }

    /// The turns of a pass, given to connections that have stopped reading meanwhile, are not lost to the principal.
    #[tokio::test]
    async fn a_connection_that_has_to_write_first_leaves_its_turn() {
        let turns = Arc::<ReadTurns>::default();
        let reader = turns.reader();
        let poll = async |turn: &mut ReadTurn| {
            std::future::poll_fn(|cx| Poll::Ready(turn.poll_read(cx, |_| Poll::Ready(())).is_ready())).await
        };
        let mut first = reader.turn();
        for _ in 0..READS {
            assert!(poll(&mut first).await);
        }
        let mut stuck: Vec<_> = (0..READS).map(|_| reader.turn()).collect();
        for turn in &mut stuck {
            assert!(!poll(turn).await, "they wait");
        }
        let run = Arc::clone(&turns);
        let running = tokio::spawn(async move { run.run().await });
        for _ in 0..4 {
            pass().await;
        }
        assert!(!poll(&mut first).await, "the turns of the next pass are theirs");
        stuck.iter_mut().for_each(ReadTurn::leave);
        std::future::poll_fn(|cx| first.poll_read(cx, |_| Poll::Ready(()))).await;
        running.abort();
    }

    #[tokio::test]
    async fn a_connection_without_anything_to_read_holds_up_no_other() {
        let turns = Arc::<ReadTurns>::default();
        let reader = turns.reader();
        let (mut idle, mut busy) = (Vec::new(), reader.turn());
        for _ in 0..10 {
            let mut turn = reader.turn();
            assert!(
                std::future::poll_fn(|cx| Poll::Ready(turn.poll_read(cx, |_| Poll::<()>::Pending)))
                    .await
                    .is_pending()
            );
            idle.push(turn);
        }
        for _ in 0..READS {
            std::future::poll_fn(|cx| busy.poll_read(cx, |_| Poll::Ready(()))).await;
        }
        let next = std::future::poll_fn(|cx| Poll::Ready(busy.poll_read(cx, |_| Poll::Ready(())))).await;
        assert!(next.is_pending(), "its turns of this pass are used up");
        let run = Arc::clone(&turns);
        let running = tokio::spawn(async move { run.run().await });
        std::future::poll_fn(|cx| busy.poll_read(cx, |_| Poll::Ready(()))).await;
        running.abort();
    }
}
