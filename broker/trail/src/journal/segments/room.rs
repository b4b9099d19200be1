//! Room that is reserved from records of calls.
//!
//! While a store is down, its journal grows. If calls filled it, it could not be delivered once the store is back: before a file can be
//! removed, the next file, the trail's state and the records of the delivery's own calls to KMS must be written.

use std::io;

use super::Segments;

/// The bound up to which records may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::journal) enum Room {
    /// `max_undelivered_bytes`, with part of the disk left free.
    Calls,
    /// More, for the records of a start and a delivery, and for the backlog at the end, for which room is kept on the disk as well.
    Reserve,
}

impl Segments {
    /// How many bytes may be added now. The free space of the disk is read only now and then, so this may be a little too much.
    pub(in crate::journal) fn room(&mut self, room: Room) -> io::Result<u64> {
        let reserve = if room == Room::Reserve { RESERVE } else { 0 };
        let allowed = self.max_undelivered.saturating_add(reserve).saturating_sub(self.undelivered.bytes());
        if self.unchecked >= CHECK_EVERY {
            let disk = self.hold.disk()?;
            self.disk_free = disk.f_bavail * disk.f_frsize;
            self.disk_kept = KEPT.min(disk.f_blocks * disk.f_frsize / KEPT_SHARE);
            self.keep_room();
            self.unchecked = 0;
        }
        let kept = if room == Room::Reserve { self.disk_kept / RESERVED_SHARE } else { self.disk_kept };
        Ok(allowed.min(self.disk_free.saturating_sub(kept + self.unchecked)))
    }

    /// Allocates room for the end, at a start and after trouble. Where the disk has none, the journal goes on without it.
    fn keep_room(&mut self) {
        if self.unchecked < u64::MAX || self.is_ending || self.disk_free < self.disk_kept {
            return;
        }
        let kept = self.hold.confirm().and_then(|()| self.hold.kept_room().keep(self.disk_kept));
        if let Err(error) = kept {
            tracing::debug!(%error, "the journal's disk has no room to keep for the end");
        }
        if let Ok(disk) = self.hold.disk() {
            self.disk_free = disk.f_bavail * disk.f_frsize;
        }
    }

    /// Makes room for what is written at the end, also on a disk that others have filled.
    pub(in crate::journal) fn give_back_room(&mut self) {
        self.is_ending = true;
        if let Err(error) = self.hold.keep().and_then(|()| self.hold.kept_room().give_back()) {
            tracing::warn!(%error, "cannot use the room kept on the journal's disk");
        }
        self.look_at_disk();
    }

    /// Has the disk's free space read again the next time.
    pub(in crate::journal) fn look_at_disk(&mut self) {
        self.unchecked = u64::MAX;
    }

    /// The error that there is no more room.
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

    /// The least room with which calls are admitted again.
    pub(in crate::journal) fn least_room(&self) -> u64 {
        LEAST.min(self.max_undelivered / 8)
    }
}

/// For the records of starts and deliveries: a data key for each log file and each start, and a signature for each digest, of some
/// 1.5 KB each. Repeated attempts reuse a data key. This is enough for some five thousand restarts while nothing at all can be delivered;
/// after that, records stay in memory.
pub(in crate::journal) const RESERVE: u64 = 16 << 20;
/// For the beginning of a file, and `trail.json` with a digest's log files, of some 550 bytes each.
const KEPT: u64 = 1 << 20;
/// On a small disk, a share instead.
const KEPT_SHARE: u64 = 8;
/// The share of this that even the reserve leaves free.
const RESERVED_SHARE: u64 = 4;
/// Reading the free space takes a microsecond.
const CHECK_EVERY: u64 = 64 << 10;
/// The longest record.
const LEAST: u64 = 64 << 10;
