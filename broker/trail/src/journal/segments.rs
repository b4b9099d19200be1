//! The journal's directory: the file that is being written, and closed files that wait to be delivered.
//!
//! | file | is |
//! |---|---|
//! | `journal-NUMBER.open` | being written |
//! | `journal-NUMBER-TIME.closed` | complete; TIME is when it was closed |
//! | `journal-NUMBER.damaged` | evidence: what did not fit the chain, never written again |
//! | `begun.json` | the number of the newest file |
//! | `lock` | locked by the one process that writes here |

mod mark;
mod recovery;
mod room;
mod undelivered;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::OffsetDateTime;

use super::hash_chain::{Link, header};
use super::hold::{FileId, Hold};
use super::{Durability, JournalConfig, Notices};
use crate::names::{compact_time, parse_compact_time};
pub(crate) use mark::Begun;
pub(super) use room::Room;
pub(crate) use undelivered::UndeliveredBytes;

/// The files of one journal, and the end of its chain.
pub(super) struct Segments {
    /// Keeps a second broker out of the directory.
    hold: Arc<Hold>,
    dir: PathBuf,
    durability: Durability,
    max_undelivered: u64,
    max_segment: u64,
    current: Option<Segment>,
    /// The next file, if it could not be begun yet.
    begun: Option<Segment>,
    link: Link,
    newest: u64,
    undelivered: UndeliveredBytes,
    /// Bytes written since the disk's free space was last read.
    unchecked: u64,
    /// The number of files closed after a failed write.
    given_up: u64,
    /// The disk's free space when it was last read, and how much of it is to stay free.
    disk_free: u64,
    disk_kept: u64,
    /// Whether the room that was kept is given back.
    is_ending: bool,
}

/// Where committed lines are.
pub(super) struct Committed {
    /// The number of the file.
    pub(super) file: u64,
    /// The file is to be closed.
    pub(super) is_full: bool,
}

struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    id: FileId,
    /// Bytes of committed lines, header included.
    bytes: u64,
    records: u64,
    /// Whether a failed commit may have left bytes behind them.
    has_rest: bool,
}

/// A file of a journal, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentFile {
    /// Numbers count up, also across restarts.
    pub number: u64,
    /// When it was closed; `None` for the file that is being written.
    pub closed_at: Option<OffsetDateTime>,
    /// Where it is.
    pub path: PathBuf,
}

impl Segments {
    pub(super) fn open(config: &JournalConfig, now: OffsetDateTime) -> io::Result<(Self, Notices)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
        let hold = Arc::new(Hold::take(&config.dir)?);
        let (undelivered, notices) =
            (UndeliveredBytes::new(config.max_undelivered_bytes), Notices::load(&hold)?);
        let mut segments = Self {
            hold,
            dir: config.dir.clone(),
            durability: config.commit,
            max_undelivered: config.max_undelivered_bytes,
            max_segment: config.max_segment_bytes,
            current: None,
            begun: None,
            link: Link::START,
            newest: 0,
            undelivered,
            unchecked: u64::MAX,
            given_up: 0,
            disk_free: 0,
            disk_kept: 0,
            is_ending: false,
        };
        segments.recover(now, &notices)?;
        segments.undelivered.add(bytes_in(&config.dir)?);
        if segments.current.is_none() {
            segments.current = match segments.begin() {
                Ok(segment) => Some(segment),
                // Delivering the files that are there makes room.
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, "cannot begin a journal file yet");
                    None
                }
                Err(error) => return Err(error),
            };
        }
        Ok((segments, notices))
    }

    pub(super) fn undelivered(&self) -> UndeliveredBytes {
        self.undelivered.clone()
    }

    pub(super) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The end of the chain.
    pub(super) fn link(&self) -> Link {
        self.link
    }

    /// Records, and their bytes, in a file that was removed and could not be written again.
    pub(super) fn unplaced(&self) -> (u64, u64) {
        let unplaced = self.current.as_ref().filter(|segment| !segment.is_in_place());
        unplaced.map_or((0, 0), |segment| (segment.records, segment.bytes))
    }

    /// Makes all of `lines` durable, or none. They must fit in the [room](Self::room), and end the chain at `link`.
    pub(super) fn commit(&mut self, lines: &[u8], link: Link, now: OffsetDateTime) -> io::Result<Committed> {
        let mut segment = self.writable()?;
        if let Err(error) = segment.append(lines, self.durability) {
            self.give_up(segment, now);
            return Err(error);
        }
        segment.records += link.sequence - self.link.sequence;
        self.link = link;
        self.undelivered.add(lines.len() as u64);
        self.unchecked = self.unchecked.saturating_add(lines.len() as u64);
        let is_full = segment.bytes >= self.max_segment;
        let file = segment.number;
        self.current = Some(segment);
        Ok(Committed { file, is_full })
    }

    /// After a failed commit: closes the file, whose earlier commits are safe, so that the next records go to another one. A file
    /// without records, or one that cannot be closed, is used again.
    fn give_up(&mut self, mut segment: Segment, now: OffsetDateTime) {
        if let Err(error) = segment.cut_back() {
            tracing::warn!(%error, "cannot cut a failed commit off the journal yet");
        }
        if segment.records == 0 || !self.close(&segment, now) {
            self.current = Some(segment);
        } else {
            self.given_up += 1;
        }
    }

    /// How many files were closed after a failed write.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether the current file has room for this many more bytes; a file without records takes any.
    pub(super) fn has_room_in_file(&self, bytes: usize) -> bool {
        self.current.as_ref().is_none_or(|segment| {
            segment.records == 0 || segment.bytes.saturating_add(bytes as u64) <= self.max_segment
        })
    }

    /// The maximum bytes of one write.
    pub(super) fn most_together(&self) -> u64 {
        self.max_segment.saturating_sub(HEADER_BYTES)
    }

    /// Closes the current file if it has records, and returns whether it did. A removed file is written again first, and a missing
    /// one is begun, so that delivery finds the end of the journal.
    pub(super) fn rotate(&mut self, now: OffsetDateTime) -> bool {
        let segment = match self.writable() {
            Ok(segment) => segment,
            Err(error) => {
                tracing::warn!(%error, "the journal has no file to close");
                return false;
            }
        };
        if segment.records == 0 || !self.close(&segment, now) {
            self.current = Some(segment);
            return false;
        }
        match self.begin() {
            Ok(segment) => self.current = Some(segment),
            Err(error) => tracing::warn!(%error, "cannot begin a journal file: the next record tries again"),
        }
        true
    }

    /// Renames a file to a closed one. Beginning the next file makes that durable, before anything is delivered.
    fn close(&self, segment: &Segment, now: OffsetDateTime) -> bool {
        let closed = fs::rename(&segment.path, self.dir.join(closed_name(segment.number, now)));
        if let Err(error) = &closed {
            tracing::warn!(%error, file = %segment.path.display(), "cannot close a journal segment: writing to it continues");
        }
        closed.is_ok()
    }

    /// The file to write to: the current one, if it is still in its place.
    fn writable(&mut self) -> io::Result<Segment> {
        self.hold.keep()?;
        match self.current.take() {
            Some(segment) if segment.is_in_place() => Ok(segment),
            // The file was removed or moved, so no delivery would find its records; they can still be read through the open file.
            Some(lost) => {
                let rescued = self.rescue(&lost);
                if rescued.is_err() {
                    self.current = Some(lost);
                }
                rescued
            }
            None => self.begin(),
        }
    }

    fn rescue(&self, lost: &Segment) -> io::Result<Segment> {
        let path = self.dir.join(open_name(lost.number));
        if path.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is not ours", path.display()),
            ));
        }
        let unfinished = path.with_extension("unfinished");
        let mut file = options().create(true).truncate(true).open(&unfinished)?;
        (&lost.file).seek(SeekFrom::Start(0))?;
        if io::copy(&mut (&lost.file).take(lost.bytes), &mut file)? != lost.bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the journal's file was cut"));
        }
        file.sync_all()?;
        let &Segment { number, bytes, records, .. } = lost;
        let segment = Segment { bytes, records, ..Segment::new(number, path.clone(), file)? };
        fs::rename(&unfinished, &path)?;
        tracing::warn!(file = %path.display(), records, "the journal's file was removed: its records are written again");
        if let Err(error) = self.sync_dir() {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(segment)
    }

    fn begin(&mut self) -> io::Result<Segment> {
        let begun = self.begun.take().filter(Segment::is_in_place);
        let mut segment = match begun {
            Some(segment) => segment,
            None => self.create()?,
        };
        let header = header(segment.number, &self.link);
        if let Err(error) = segment.append(header.as_bytes(), self.durability).and_then(|()| self.sync_dir())
        {
            // The next attempt uses this file, so that a full disk does not also fill with empty ones.
            (segment.bytes, segment.has_rest) = (0, true);
            self.begun = Some(segment);
            return Err(error);
        }
        self.undelivered.add(segment.bytes);
        self.mark(&segment);
        Ok(segment)
    }

    /// Notes which file was begun, after that file is durable: the note is never ahead of it.
    fn mark(&self, segment: &Segment) {
        let marked = Begun::new(segment.number, self.link).save(&self.dir).and_then(|()| self.sync_dir());
        if let Err(error) = marked {
            tracing::warn!(%error, file = %segment.path.display(), "cannot note which journal segment was begun: its removal would go unnoticed");
        }
    }

    fn create(&mut self) -> io::Result<Segment> {
        self.hold.keep()?;
        let newest = files(&self.dir)?.last().map_or(0, |file| file.number);
        let number = self.newest.max(newest) + 1;
        let path = self.dir.join(open_name(number));
        let file = options().create_new(true).open(&path)?;
        self.newest = number;
        Segment::new(number, path, file)
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.durability {
            Durability::Fsync => File::open(&self.dir)?.sync_all(),
            Durability::Write => Ok(()),
        }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.hold.release();
    }
}

impl Segment {
    fn new(number: u64, path: PathBuf, file: File) -> io::Result<Self> {
        let id = FileId::of(&file.metadata()?);
        Ok(Self { number, path, file, id, bytes: 0, records: 0, has_rest: false })
    }

    /// Whether the file's path still names it.
    fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|named| FileId::of(&named) == self.id)
    }

    fn append(&mut self, lines: &[u8], durability: Durability) -> io::Result<()> {
        if self.has_rest {
            self.cut_back()?;
        }
        self.has_rest = true;
        self.file.write_all_at(lines, self.bytes)?;
        if durability == Durability::Fsync {
            self.file.sync_data()?;
        }
        self.has_rest = false;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed commit wrote, so that a refused call leaves no record of an answer.
    fn cut_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.has_rest = false;
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Whether the disk, or what may be used of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The files of the journal in `dir`, in the order of their numbers.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.extend(parse_name(&entry?.path()));
    }
    files.sort();
    Ok(files)
}

fn parse_name(path: &Path) -> Option<SegmentFile> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let (number, closed_at) = if let Some(number) = name.strip_suffix(OPEN) {
        (number, None)
    } else {
        let (number, time) = name.strip_suffix(CLOSED)?.split_once('-')?;
        (number, Some(parse_compact_time(time)?))
    };
    Some(SegmentFile { number: number.parse().ok()?, closed_at, path: path.to_owned() })
}

fn open_name(number: u64) -> String {
    format!("{PREFIX}{number:08}{OPEN}")
}

fn closed_name(number: u64, at: OffsetDateTime) -> String {
    format!("{PREFIX}{number:08}-{}{CLOSED}", compact_time(at))
}

/// The name of the file for what does not fit the chain of file `number`.
#[must_use]
pub(crate) fn damaged_name(number: u64) -> String {
    format!("{PREFIX}{number:08}.damaged")
}

fn bytes_in(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// The maximum bytes of a file's first line.
const HEADER_BYTES: u64 = 160;
const PREFIX: &str = "journal-";
const OPEN: &str = ".open";
const CLOSED: &str = ".closed";
