//! Room that records of calls must not take.
//!
//! A journal whose store is down grows. If calls filled it, nothing could be delivered from it any more when the store is back: the next
//! file, the note of what is delivered and the records of the delivery's own calls to KMS have to be written before a file can be removed.

use std::io;

use super::Segments;

/// Up to which bound records may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::journal) enum Room {
    /// `max_undelivered_bytes`, and a part of the disk is left free.
    Calls,
    /// More: for what a start and a delivery record, and for the backlog at the end.
    Reserve,
}

impl Segments {
    /// How many bytes may be added now. Asks the disk now and then, so that a little more may be added than is left.
    pub(in crate::journal) fn room(&mut self, room: Room) -> io::Result<u64> {
        let reserve = if room == Room::Reserve { RESERVE } else { 0 };
        let allowed = self.max_undelivered.saturating_add(reserve).saturating_sub(self.undelivered.bytes());
        if self.unchecked >= CHECK_EVERY {
            let disk = self.hold.disk()?;
            self.disk_free = disk.f_bavail * disk.f_frsize;
            self.disk_kept = KEPT.min(disk.f_blocks * disk.f_frsize / KEPT_SHARE);
            self.unchecked = 0;
        }
        let kept = if room == Room::Reserve { self.disk_kept / RESERVED_SHARE } else { self.disk_kept };
        Ok(allowed.min(self.disk_free.saturating_sub(kept + self.unchecked)))
    }

    /// Asks the disk the next time.
    pub(in crate::journal) fn look_at_disk(&mut self) {
        self.unchecked = u64::MAX;
    }

    /// Why there is no room for more.
    pub(in crate::journal) fn no_room(&self) -> io::Error {
        let held = self.undelivered.bytes();
        if held.saturating_add(CHECK_EVERY) >= self.max_undelivered {
            return io::Error::other(format!(
                "the journal holds {held} bytes that are not delivered, of {} allowed: look at the trail's store",
                self.max_undelivered
            ));
        }
        let why = format!(
            "the disk has {} bytes left; the last {} are reserved for the delivery: check the trail's store, or make room",
            self.disk_free, self.disk_kept
        );
        io::Error::new(io::ErrorKind::StorageFull, why)
    }

    /// The least room with which calls are taken.
    pub(in crate::journal) fn least_room(&self) -> u64 {
        LEAST.min(self.max_undelivered / 8)
    }
}

/// What start and delivery record: a data key for each log file and each start, a signature for each digest, of some 1.5 KB each. An
/// attempt that fails uses its data key again. So this is for some five thousand restarts while nothing at all can be delivered; then
/// the records are kept in memory.
pub(in crate::journal) const RESERVE: u64 = 16 << 20;
/// The beginning of a file, and `trail.json` with all log files of a digest, some 550 bytes each.
const KEPT: u64 = 1 << 20;
/// Of a small disk, a part.
const KEPT_SHARE: u64 = 8;
/// A part of that is kept even from the reserve.
const RESERVED_SHARE: u64 = 4;
/// Asking takes a microsecond.
const CHECK_EVERY: u64 = 64 << 10;
/// The longest record.
const LEAST: u64 = 64 << 10;
