//! Room that records must not take.
//!
//! A journal whose store is down grows. If it took all of its disk, nothing could be delivered from it any more when the store is
//! back: the next file and the note of what is delivered have to be written before a file can be removed.

use std::io;

use rustix::fs::fstatvfs;

use super::Segments;

impl Segments {
    /// Whether so many bytes may be added.
    pub(super) fn check_room(&mut self, bytes: u64) -> io::Result<()> {
        let held = self.undelivered.bytes();
        if held + bytes > self.max_undelivered {
            return Err(io::Error::other(format!(
                "the journal holds {held} bytes that are not delivered, of {} allowed: look at the trail's store",
                self.max_undelivered
            )));
        }
        self.unchecked = self.unchecked.saturating_add(bytes);
        // No bytes are the question whether the journal can commit again.
        if self.unchecked < CHECK_EVERY && bytes > 0 {
            return Ok(());
        }
        let disk = fstatvfs(&self.lock)?;
        let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let kept = KEPT.min(all / KEPT_SHARE);
        if free < bytes + kept {
            self.unchecked = u64::MAX;
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "the disk has {free} bytes left; the last {kept} are kept for the delivery: look at the trail's store, or \
                     make room"
                ),
            ));
        }
        self.unchecked = 0;
        Ok(())
    }
}

/// The beginning of a file, and `trail.json` with all log files of a digest, some 300 bytes each.
const KEPT: u64 = 1 << 20;
/// Of a small disk, a part.
const KEPT_SHARE: u64 = 8;
/// Asking takes a microsecond. Records that are written meanwhile leave most of what is kept.
const CHECK_EVERY: u64 = 64 << 10;
