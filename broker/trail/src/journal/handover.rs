//! The task between calls and the journal's thread.
//!
//! Waking a thread costs more than writing a record. So a call wakes only this task of its own runtime, which runs after the
//! calls that are ready by then and wakes the thread once for all of them; only when many records wait does a call wake the
//! thread itself. The thread in turn wakes only this task, once for each write, and the task answers the callers a few at a
//! time: while their replies are on their way, the next ones are made.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;

use super::Shared;
use super::queue::Entry;

/// Entries of one batch, and whether they were committed.
pub(super) struct WrittenBatch {
    pub(super) entries: Vec<Entry>,
    pub(super) committed: bool,
}

/// Passes wake-ups to the thread and answers to the callers until the thread has ended.
pub(super) async fn carry(shared: Arc<Shared>, mut written: UnboundedReceiver<WrittenBatch>) {
    let to = async {
        loop {
            shared.queue.appended.notified().await;
            shared.queue.wake();
        }
    };
    let fro = async {
        while let Some(written) = written.recv().await {
            written.tell(&shared).await;
        }
    };
    tokio::select! {
        () = to => {}
        () = fro => {}
    }
}

impl WrittenBatch {
    /// Answers the callers. If a refused caller has gone away, its records join the backlog, since the refusal has happened.
    async fn tell(self, shared: &Shared) {
        for (told, Entry { committed, records, .. }) in self.entries.into_iter().enumerate() {
            if told > 0 && told % AT_A_TIME == 0 {
                yield_now().await;
            }
            if self.committed {
                let _ = committed.send(Ok(()));
            } else if let Err(Err(records)) = committed.send(Err(records)) {
                shared.defer(&records);
            }
        }
    }
}

/// Any number from four to sixteen is as fast; with all at once, 64 calls in flight are a fifth slower.
const AT_A_TIME: usize = 8;
