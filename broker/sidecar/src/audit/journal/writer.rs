//! The thread that owns the journal's files.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use key_broker_core::clock::Clock;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::Shared;
use super::courier::Written;
use super::queue::{Entry, Orders};
use super::segments::Segments;

/// What the thread works with.
pub(super) struct Writer {
    pub(super) segments: Segments,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: watch::Sender<bool>,
    pub(super) shared: Arc<Shared>,
    pub(super) written: UnboundedSender<Written>,
    /// Taken from the queue, and not written yet.
    pub(super) owed: Vec<u8>,
    /// The lines of one write.
    pub(super) lines: Vec<u8>,
    /// Calls that were refused since the log was told that they are.
    pub(super) refused: Option<usize>,
    /// When the log was told last that it cannot.
    pub(super) told: Option<Instant>,
}

impl Writer {
    pub(super) fn write_until_closed(mut self) {
        loop {
            let Orders { entries, owed, rotations, closed } = self.next();
            self.owed.extend_from_slice(&owed);
            self.commit(entries);
            if !rotations.is_empty() {
                self.segments.rotate(self.clock.now());
            }
            for rotated in rotations {
                // Who asked may be gone.
                let _ = rotated.send(());
            }
            if closed {
                break;
            }
        }
        if !self.owed.is_empty() {
            tracing::error!(
                bytes = self.owed.len(),
                "the journal cannot commit: records of refused calls and of answers of KMS are lost with this process"
            );
        }
    }

    /// Waits for what is to be done next; while the journal cannot commit, for a time to try again in, too.
    fn next(&self) -> Orders {
        loop {
            let orders = self.shared.queue.take();
            if !orders.is_empty() {
                return orders;
            }
            if *self.health.borrow() && self.owed.is_empty() {
                std::thread::park();
            } else {
                std::thread::park_timeout(RETRY);
                return self.shared.queue.take();
            }
        }
    }

    /// Pays what is owed, then commits what waits, in batches. What cannot be committed is refused.
    fn commit(&mut self, mut entries: Vec<Entry>) {
        if entries.is_empty() && self.owed.is_empty() && *self.health.borrow() {
            return;
        }
        let mut result = self.pay();
        loop {
            let rest = entries.split_off(batch(&entries));
            if result.is_ok() {
                // No entries are the question whether the journal can commit again.
                result = self.write(entries.iter().map(|entry| &*entry.records));
            }
            self.report(&result, entries.len());
            if !entries.is_empty() {
                // The courier is gone when the runtime is: so are the callers.
                let _ = self.written.send(Written { entries, committed: result.is_ok() });
            }
            entries = rest;
            if entries.is_empty() {
                break;
            }
        }
    }

    /// Before the callers are told: who is refused finds the broker not ready.
    fn report(&mut self, result: &io::Result<()>, calls: usize) {
        let committed = result.is_ok();
        self.health.send_if_modified(|healthy| mem::replace(healthy, committed) != committed);
        let now = self.clock.instant();
        if !committed {
            self.shared.counts.failed_commits.fetch_add(1, Ordering::Relaxed);
        }
        match result {
            Ok(()) => {
                if let Some(refused) = self.refused.take() {
                    tracing::info!(refused, "the journal commits again");
                }
            }
            // Once in a while: whoever was refused calls again.
            Err(error) if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL) => {
                self.told = Some(now);
                let refused = self.refused.insert(self.refused.unwrap_or_default() + calls);
                tracing::error!(%error, dir = %self.segments.dir().display(), refused, "journal cannot commit: calls are refused");
            }
            Err(_) => self.refused = self.refused.map(|refused| refused + calls),
        }
    }

    /// Writes what is owed, piece by piece: a disk with less room than all of it takes what it can, and what it took is delivered
    /// and makes room.
    fn pay(&mut self) -> io::Result<()> {
        let owed = mem::take(&mut self.owed);
        let mut rest = &*owed;
        let mut result = Ok(());
        while !rest.is_empty() {
            let (records, later) = rest.split_at(piece(rest));
            result = self.write([records].into_iter());
            if result.is_err() {
                break;
            }
            self.shared.queue.paid(records.len());
            rest = later;
        }
        self.owed = if rest.len() == owed.len() { owed } else { rest.to_vec() };
        result
    }

    fn write<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        self.lines.clear();
        let mut link = self.segments.link();
        for records in records {
            link.append_all(records, &mut self.lines);
        }
        let timed = self.shared.commits.get().map(|commits| (commits, self.clock.instant()));
        let is_full = self.segments.commit(&self.lines, link, self.clock.now())?;
        if let Some((commits, began)) = timed {
            commits.record(self.clock.instant().saturating_duration_since(began));
        }
        self.shared.counts.written(&self.lines);
        if is_full {
            self.shared.full.notify_one();
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// However the thread ends, nobody waits for it.
    fn drop(&mut self) {
        self.shared.queue.close();
        drop(self.shared.queue.take());
    }
}

/// How many of the entries are written together: at least one.
fn batch(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += entry.records.len();
        bytes <= MAX_BATCH_BYTES
    });
    fits.count().max(entries.len().min(1))
}

/// How many of the bytes are written together: whole lines, at least one.
fn piece(owed: &[u8]) -> usize {
    let end = |part: &[u8]| memchr::memrchr(b'\n', part).map(|at| at + 1);
    let first = || memchr::memchr(b'\n', owed).map(|at| at + 1);
    end(&owed[..owed.len().min(PIECE_BYTES)]).or_else(first).unwrap_or(owed.len())
}

/// Bounds one write, and so the time the calls behind it wait.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Some fifty records.
const PIECE_BYTES: usize = 64 << 10;
/// How often a journal that cannot commit tries again by itself.
const RETRY: Duration = Duration::from_millis(250);
/// How often the log says that it cannot.
const TELL: Duration = Duration::from_secs(5);
