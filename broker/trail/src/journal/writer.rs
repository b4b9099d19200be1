//! The thread that owns the journal's files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use key_broker_core::clock::Clock;
use tokio::sync::mpsc::UnboundedSender;

use super::backlog::{Backlog, Kind};
use super::handover::WrittenBatch;
use super::queue::{End, Entry, Orders};
use super::segments::{Committed, Room, Segments};
use super::{Lost, Shared};
use crate::notice::Notice;

/// The thread's state.
pub(super) struct Writer {
    pub(super) segments: Segments,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<Shared>,
    pub(super) written: UnboundedSender<WrittenBatch>,
    /// Taken from the queue, and not written yet.
    pub(super) backlog: Backlog,
    /// The lines of one write.
    pub(super) lines: Vec<u8>,
    /// The pause after failed writes.
    pub(super) rest: Rest,
    /// Calls refused since the log last mentioned refusals.
    pub(super) refused: Option<usize>,
    /// When the log last mentioned them.
    pub(super) told: Option<Instant>,
}

impl Writer {
    pub(super) fn write_until_closed(mut self) -> Lost {
        loop {
            let Orders { entries, backlog, rotations, ends, closed, .. } = self.next();
            self.backlog.extend(backlog);
            self.commit(entries);
            if !rotations.is_empty() {
                self.segments.rotate(self.clock.now());
            }
            for rotated in rotations {
                // The caller may have gone away.
                let _ = rotated.send(());
            }
            let is_closed = self.is_closed_at_its_end(ends);
            if closed || is_closed {
                return self.end();
            }
        }
    }

    /// Writes the backlog into the room that was reserved for it. Returns what is lost nevertheless.
    fn end(mut self) -> Lost {
        self.segments.give_back_room();
        if let Err(error) = self.write_backlog(|_| Room::Reserve) {
            tracing::error!(%error, "the journal cannot commit");
        }
        let mut lost = Lost::of(&self.backlog.all());
        if lost.records > 0 {
            tracing::error!(
                bytes = lost.bytes,
                "the journal cannot commit: records of refused calls and of answers of KMS are lost with this process"
            );
        }
        let (records, bytes) = self.segments.unplaced();
        if records > 0 {
            tracing::error!(
                records,
                "the journal's file was removed and cannot be written again: its records are lost"
            );
            (lost.records, lost.bytes) = (lost.records + records, lost.bytes + bytes);
        }
        self.note_for_the_next_start(lost);
        lost
    }

    /// Notes the loss while the directory is still locked, so that the next start reports it.
    fn note_for_the_next_start(&self, lost: Lost) {
        let notices = &self.shared.notices;
        notices.tell(Notice {
            unrecorded_refusals: lost.activity_records,
            unrecorded_kms_answers: lost.kms_records,
            ..Notice::default()
        });
        if let Err(error) = notices.save() {
            tracing::error!(%error, "cannot save what the trail has to report");
        }
    }

    /// Closes the queue if that was asked for and the backlog is written, the chain ends where it should, and nothing waits.
    fn is_closed_at_its_end(&self, ends: Vec<End>) -> bool {
        let mut is_closed = false;
        for End { at, closed } in ends {
            is_closed |=
                self.backlog.is_empty() && self.segments.link() == at && self.shared.queue.close_if_empty();
            // The caller may have gone away.
            let _ = closed.send(is_closed);
        }
        is_closed
    }

    /// Waits for the next orders; while the journal cannot commit, no longer than until the next attempt.
    fn next(&self) -> Orders {
        loop {
            let orders = self.shared.queue.take();
            if !orders.is_empty() {
                return orders;
            }
            if self.shared.is_healthy() && self.backlog.is_empty() {
                std::thread::park();
            } else {
                std::thread::park_timeout(RETRY);
                return self.shared.queue.take();
            }
        }
    }

    /// Writes the backlog, then commits the entries in batches. What cannot be committed is refused.
    fn commit(&mut self, mut entries: Vec<Entry>) {
        if entries.is_empty() && self.backlog.is_empty() && self.shared.is_healthy() {
            return;
        }
        if self.rest.holds(self.clock.instant()) {
            self.refused = self.refused.map(|refused| refused + entries.len());
            self.tell(entries, false);
            return;
        }
        let mut written = self.write_backlog(|kind| match kind {
            Kind::Trail => Room::Reserve,
            Kind::Kms | Kind::Call => Room::Calls,
        });
        loop {
            let later = entries.split_off(batch(&entries, self.segments.most_together()));
            let admission = match written.and_then(|()| self.rooms()) {
                Ok(rooms) => Ok(self.admit(entries, rooms)),
                Err(error) => Err((error, entries)),
            };
            written = match admission {
                Ok(Admission { admitted, refused, has_room }) => {
                    let result = self.write(admitted.iter().map(|entry| &*entry.records));
                    let result = result.map(|committed| {
                        self.attribute(committed.file, &admitted);
                        self.close_if_full(&committed);
                    });
                    let has_room = has_room && self.has_room_again();
                    self.report(result.as_ref().err(), has_room, refused.len() + admitted.len());
                    self.tell(admitted, result.is_ok());
                    self.tell(refused, false);
                    result
                }
                Err((error, refused)) => {
                    self.report(Some(&error), false, refused.len());
                    self.tell(refused, false);
                    Err(error)
                }
            };
            entries = later;
            if entries.is_empty() {
                break;
            }
        }
    }

    /// Answers the callers.
    fn tell(&self, entries: Vec<Entry>, committed: bool) {
        if !entries.is_empty() {
            // Without a receiver the runtime has ended, and the callers with it.
            let _ = self.written.send(WrittenBatch { entries, committed });
        }
    }

    /// Admits the entries for which there is room, within the shares of their principals.
    fn admit(&self, entries: Vec<Entry>, [calls, reserve]: [u64; 2]) -> Admission {
        let undelivered = self.segments.undelivered();
        let (mut taken, mut has_room) = (0, true);
        let (admitted, refused) = entries.into_iter().partition(|entry| {
            let bytes = entry.room_taken();
            if entry.principal.as_ref().is_some_and(|who| !undelivered.admits(who, bytes)) {
                return false;
            }
            let fits = taken + bytes <= if entry.room == Room::Reserve { reserve } else { calls };
            has_room &= fits;
            taken += if fits { bytes } else { 0 };
            fits
        });
        Admission { admitted, refused, has_room }
    }

    /// The room for calls, and for the records of a start or a delivery.
    fn rooms(&mut self) -> io::Result<[u64; 2]> {
        Ok([self.segments.room(Room::Calls)?, self.segments.room(Room::Reserve)?])
    }

    /// Whether the backlog is written and there is room: after there was none, room for more than one record.
    fn has_room_again(&mut self) -> bool {
        let least = if self.shared.is_healthy() { 0 } else { self.segments.least_room() };
        self.backlog.is_empty() && self.segments.room(Room::Calls).is_ok_and(|room| room >= least)
    }

    /// Updates the health before the callers are answered, so that a refused caller finds the broker not ready.
    fn report(&mut self, error: Option<&io::Error>, has_room: bool, calls: usize) {
        let is_healthy = error.is_none() && has_room;
        self.shared.set_healthy(is_healthy);
        if is_healthy {
            if let Some(refused) = self.refused.take() {
                tracing::info!(refused, "the journal commits again");
            }
            return;
        }
        self.segments.look_at_disk();
        self.shared.counts.failed_commits.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.instant();
        // Not for every refusal, since refused callers try again.
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL) {
            self.told = Some(now);
            let refused = self.refused.insert(self.refused.unwrap_or_default() + calls);
            let no_room = self.segments.no_room();
            let error = error.unwrap_or(&no_room);
            tracing::error!(%error, dir = %self.segments.dir().display(), refused, "journal cannot commit: calls are refused");
        } else {
            self.refused = self.refused.map(|refused| refused + calls);
        }
    }

    /// Writes as much of the backlog as there is room for, record by record: once that is delivered, there is room for the rest. An
    /// error is the disk's.
    fn write_backlog(&mut self, room: impl Fn(Kind) -> Room) -> io::Result<()> {
        for kind in Kind::ALL {
            let lines = self.backlog.take(kind);
            let mut at = 0;
            let mut left = Vec::new();
            let mut written = Ok(());
            while at < lines.len() && written.is_ok() {
                let Piece { passed, taken } = match self.segments.room(room(kind)) {
                    Ok(room) => Piece::of(&lines[at..], room),
                    Err(error) => {
                        written = Err(error);
                        break;
                    }
                };
                left.extend_from_slice(&lines[at..at + passed]);
                at += passed;
                if taken > 0 {
                    let result = self.write([&lines[at..at + taken]].into_iter());
                    written = result.map(|committed| self.close_if_full(&committed));
                }
                if written.is_ok() {
                    self.shared.queue.backlog().remove(kind, taken);
                    at += taken;
                }
            }
            left.extend_from_slice(&lines[at..]);
            *self.backlog.lines(kind) = left;
            written?;
        }
        Ok(())
    }

    /// Counts lines in the file of this number against the shares of their principals: once for consecutive entries of one principal.
    fn attribute(&self, file: u64, entries: &[Entry]) {
        for entries in entries.chunk_by(|one, next| one.principal == next.principal) {
            if let Some(principal) = entries.first().and_then(|entry| entry.principal.as_ref()) {
                let bytes = entries.iter().map(|entry| entry.records.len() as u64).sum();
                self.segments.undelivered().attribute(file, principal, bytes);
            }
        }
    }

    fn close_if_full(&mut self, committed: &Committed) {
        if committed.is_full && self.segments.rotate(self.clock.now()) {
            self.shared.full.notify_one();
        }
    }

    fn write<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) -> io::Result<Committed> {
        self.lines.clear();
        let mut link = self.segments.link();
        for records in records {
            link.append_all(records, &mut self.lines);
        }
        if !self.segments.has_room_in_file(self.lines.len()) && self.segments.rotate(self.clock.now()) {
            self.shared.full.notify_one();
        }
        let timed = self.shared.commits.get().map(|commits| (commits, self.clock.instant()));
        let committed = self.segments.commit(&self.lines, link, self.clock.now());
        self.rest.note(self.segments.given_up(), self.clock.instant());
        let committed = committed?;
        if let Some((commits, began)) = timed {
            commits(self.clock.instant().saturating_duration_since(began));
        }
        self.shared.counts.written(&self.lines);
        Ok(committed)
    }
}

impl Drop for Writer {
    /// However the thread ends, nobody waits for it any longer.
    fn drop(&mut self) {
        self.shared.queue.close();
        drop(self.shared.queue.take());
    }
}

/// How many of the entries, at least one, go into one write of at most this many bytes.
fn batch(entries: &[Entry], most: u64) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += entry.room_taken();
        bytes <= MAX_BATCH_BYTES.min(most)
    });
    fits.count().max(entries.len().min(1))
}

/// Waiting calls, divided by whether there is room for them.
struct Admission {
    admitted: Vec<Entry>,
    /// Refused for want of room, or of room in a principal's share.
    refused: Vec<Entry>,
    /// Whether no call was refused because the journal as a whole is full.
    has_room: bool,
}

/// A part of the backlog that is written at once.
struct Piece {
    /// Bytes of the records before it, for which there is no room.
    passed: usize,
    /// Bytes of its whole lines: 0 where no record has room.
    taken: usize,
}

impl Piece {
    fn of(lines: &[u8], room: u64) -> Self {
        let (mut passed, mut taken, mut room_taken) = (0, 0, 0);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let more = room_taken + line.len() as u64 + CHAIN_BYTES;
            match (more <= room, taken) {
                (true, 0) => {}
                (true, _) if more <= PIECE_BYTES => {}
                (false, 0) => {
                    passed += line.len();
                    continue;
                }
                _ => break,
            }
            (taken, room_taken) = (taken + line.len(), more);
        }
        Self { passed, taken }
    }
}

impl Entry {
    /// The most that its lines can take in the journal.
    fn room_taken(&self) -> u64 {
        self.records.len() as u64 + LINES * CHAIN_BYTES
    }
}

/// A pause after failed writes in which calls are refused at once, because every failed write ends a file, and each file costs a
/// log file and a data key.
#[derive(Default)]
pub(super) struct Rest {
    pause: Duration,
    began: Option<Instant>,
    given_up: u64,
}

impl Rest {
    fn holds(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| now.saturating_duration_since(began) < self.pause)
    }

    /// Takes the number of files given up so far. The first one costs no pause.
    fn note(&mut self, given_up: u64, now: Instant) {
        let is_calm = self.began.is_none_or(|began| now.saturating_duration_since(began) >= TELL);
        if given_up > self.given_up {
            self.pause = if is_calm { Duration::ZERO } else { (self.pause * 2).clamp(FIRST_PAUSE, RETRY) };
            (self.began, self.given_up) = (Some(now), given_up);
        }
    }
}

/// Bounds one write, and so how long the calls behind it wait.
const MAX_BATCH_BYTES: u64 = 4 << 20;
/// Some fifty records.
const PIECE_BYTES: u64 = 64 << 10;
/// What the chain adds to a record: a number, a hash and two spaces.
const CHAIN_BYTES: u64 = 20 + 64 + 2;
/// The most records of one call: its own, and those of three attempts at KMS.
const LINES: u64 = 4;
/// The pause after two failed writes within [`TELL`]; it doubles with further failures.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How often a journal that cannot commit tries again by itself.
const RETRY: Duration = Duration::from_millis(250);
/// How often the log mentions that the journal cannot commit.
const TELL: Duration = Duration::from_secs(5);
