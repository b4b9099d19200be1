//! Room on the journal's disk that nobody else can take: blocks allocated to a file in the journal's directory.
//!
//! Leaving part of the disk free does not help where others write on it, too. At the end, most of this room is given back to the disk, for
//! records of what has already happened. The rest is for the notices of what is lost all the same: their file is made of blocks that
//! are there already, so that it takes no new ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

/// The room of a journal's directory.
pub(super) struct KeptRoom {
    path: PathBuf,
}

impl KeptRoom {
    pub(super) fn of(dir: &Path) -> Self {
        Self { path: dir.join(FILE) }
    }

    /// Allocates `bytes`, unless it has them. Where the disk has no room for all, it stays as it was. Blocks.
    pub(super) fn keep(&self, bytes: u64) -> io::Result<()> {
        let file = self.open()?;
        let kept = file.metadata()?.len();
        if kept >= bytes {
            return Ok(());
        }
        let allocated = allocate(&file, bytes);
        if allocated.is_err() {
            file.set_len(kept)?;
        }
        allocated
    }

    /// Gives it back to the disk, but for what notices take. Blocks.
    pub(super) fn give_back(&self) -> io::Result<()> {
        let file = self.open()?;
        file.set_len(NOTICES.min(file.metadata()?.len() / NOTICES_SHARE))?;
        file.sync_all()
    }

    /// Makes a file of the room that is left, durably, where the disk has none for another one. Blocks.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.open()?;
        let kept = file.metadata()?.len();
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        fs::rename(&self.path, path)?;
        // For the next time, of what was just given back: the file's new blocks are missing from it.
        let _ = self.keep(kept / 2);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o640);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&self.path)
    }
}

fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // A filesystem that can only write.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            (0..bytes.div_ceil(ZEROS.len() as u64)).try_for_each(|_| file.write_all(&ZEROS))
        }
        allocated => Ok(allocated?),
    }
}

const FILE: &str = "kept-room";
/// What notices take at the most, and the share of a small room.
const NOTICES: u64 = 64 << 10;
const NOTICES_SHARE: u64 = 4;
const ZEROS: [u8; 4_096] = [0; 4_096];

#[cfg(test)]
mod tests {
    //! The room is there while others fill the disk; given back, it takes records; and a file is made of its rest when the disk has
    //! nothing left.

    use super::*;

    #[test]
    fn room_is_kept_given_back_and_used_in_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let room = KeptRoom::of(dir.path());
        let kept = || fs::metadata(dir.path().join(FILE)).map_or(0, |file| file.len());
        room.keep(1 << 20).expect("allocates");
        room.keep(1 << 20).expect("has it");
        assert_eq!(kept(), 1 << 20);
        room.give_back().expect("cuts");
        assert_eq!(kept(), 64 << 10);
        let path = dir.path().join("notices.json");
        for (text, left) in [("a longer one", 32 << 10), ("short", 16 << 10)] {
            room.write(&path, text.as_bytes()).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("reads"), text);
            assert_eq!(kept(), left);
        }
        // More than any disk has; every filesystem refuses it at once.
        room.keep(u64::MAX).expect_err("no room");
        assert_eq!(kept(), 16 << 10, "what it has stays");
        fs::remove_dir_all(dir.path()).expect("removes");
        assert!(room.keep(1).is_err() && room.write(&path, b"").is_err());
    }
}
