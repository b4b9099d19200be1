//! The lock on the journal's directory, held by the one process that has locked the file `lock` in it.
//!
//! The directory can be removed, moved or restored under a running broker, and another broker can be started on what is there
//! then. Two brokers in one directory would each break the other's chain, so the writer checks before every write that the
//! file it has locked is still the one of that name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{StatVfs, fstatvfs};

use super::kept_room::KeptRoom;

/// A directory locked by this process.
pub(crate) struct Hold {
    dir: PathBuf,
    /// Of the file that is locked.
    path: PathBuf,
    lock: Mutex<Lock>,
    kept_room: KeptRoom,
}

struct Lock {
    /// `None` once the lock is released.
    file: Option<File>,
    id: FileId,
}

/// The device and inode of a file, the same as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    pub(super) fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

impl Hold {
    /// Locks `dir`, if no other process has.
    pub(super) fn take(dir: &Path) -> io::Result<Self> {
        let path = dir.join(LOCK);
        let file = options().create(true).truncate(false).open(&path)?;
        let lock = Mutex::new(Lock::of(file, dir)?);
        Ok(Self { dir: dir.to_owned(), path, lock, kept_room: KeptRoom::of(dir) })
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Checks that this process still holds the directory, before anything is written to or removed from it. If the lock file is
    /// gone, it is made and locked again. Blocks.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let mut lock = self.lock();
        match id_at(&self.path)? {
            Some(id) if id == lock.id && lock.file.is_some() => Ok(()),
            None if lock.file.is_some() => {
                // The process that creates the file has the directory; a lock file left by another broker is never taken over.
                let file = options().create_new(true).open(&self.path)?;
                *lock = Lock::of(file, &self.dir)?;
                tracing::warn!(dir = %self.dir.display(), "the journal's lock file was gone: it is made and held again");
                Ok(())
            }
            Some(_) | None => Err(not_ours(&self.dir)),
        }
    }

    /// Checks that the directory is this process's, also after the lock is released.
    pub(crate) fn confirm(&self) -> io::Result<()> {
        let is_ours = id_at(&self.path)? == Some(self.lock().id);
        if is_ours { Ok(()) } else { Err(not_ours(&self.dir)) }
    }

    /// Releases the lock, so that another process can take it.
    pub(super) fn release(&self) {
        self.lock().file = None;
    }

    /// The state of the disk that holds the directory.
    pub(super) fn disk(&self) -> io::Result<StatVfs> {
        match &self.lock().file {
            Some(file) => Ok(fstatvfs(file)?),
            None => Err(not_ours(&self.dir)),
        }
    }

    /// The room on that disk that nobody else can take.
    pub(super) fn kept_room(&self) -> &KeptRoom {
        &self.kept_room
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        // The value is replaced whole.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lock {
    fn of(file: File, dir: &Path) -> io::Result<Self> {
        file.try_lock().map_err(|_| {
            io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "another process writes the journal in {}: stop it or choose another directory",
                    dir.display()
                ),
            )
        })?;
        let id = FileId::of(&file.metadata()?);
        Ok(Self { file: Some(file), id })
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(FileId::of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn not_ours(dir: &Path) -> io::Error {
    let lock = dir.join(LOCK);
    io::Error::new(
        io::ErrorKind::AddrInUse,
        format!(
            "{} is not the file that this process has locked: another broker has the journal's directory, or had it; this one writes nothing there",
            lock.display()
        ),
    )
}

const LOCK: &str = "lock";

#[cfg(test)]
mod tests;
