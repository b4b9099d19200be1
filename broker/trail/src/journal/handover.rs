//! The way between calls and the journal's thread.
//!
//! Waking a thread costs more than a record does. So a call wakes only this task of its own runtime, which has its turn
//! after the calls that are ready by then: it hands over what all of them appended with one wake-up. Only where that is a handful and
//! more, a call wakes the thread before. The thread in turn
//! wakes only the task, once for all that it wrote. The task tells the callers a few at a time: while their replies are on
//! their way, the next ones are made.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;

use super::Shared;
use super::queue::Entry;

/// What became of some entries.
pub(super) struct WrittenBatch {
    pub(super) entries: Vec<Entry>,
    pub(super) committed: bool,
}

/// Goes to and fro until the thread has ended.
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
    /// Tells the callers. A caller that has gone needs no answer, but what it was refused has happened.
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

/// Four to sixteen serve as well; all at once, 64 calls in flight are a fifth slower.
const AT_A_TIME: usize = 8;
