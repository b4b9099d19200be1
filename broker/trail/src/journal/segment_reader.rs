//! Reads one file of the journal in order and checks each record against the hash chain.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::hash_chain::{Link, newer_version, parse_header, parse_line};
use crate::format_version::newer;
use crate::notice::Notice;
use crate::regular_file::open_regular;

/// Reads the records of one file, and stops at the first that does not fit the chain.
pub(crate) struct SegmentReader<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    before: Link,
    link: Link,
    /// Bytes of whole, fitting lines so far.
    good_bytes: u64,
}

/// Why the valid records end before the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The last line is unfinished, so its commit never ended.
    Torn,
    /// A line was changed or moved.
    Broken,
}

/// Why a record could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file's content is not what was written.
    Flaw(Flaw),
    /// The file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl SegmentReader<BufReader<File>> {
    /// Opens a file of the journal.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(BufReader::with_capacity(BUFFER_BYTES, open_regular(path)?))
    }
}

impl<R: BufRead> SegmentReader<R> {
    /// Reads the header.
    pub(crate) fn new(reader: R) -> Result<Self, ReadError> {
        let mut segment = Self {
            reader,
            line: Vec::new(),
            number: 0,
            before: Link::START,
            link: Link::START,
            good_bytes: 0,
        };
        if !segment.read_line()? {
            return Err(ReadError::Flaw(Flaw::Torn));
        }
        if let Some(version) = newer_version(&segment.line) {
            // A file of a later format is not damaged, and is never cut.
            return Err(ReadError::Io(io::Error::new(io::ErrorKind::Unsupported, newer(version))));
        }
        let (number, before) = parse_header(&segment.line).ok_or(ReadError::Flaw(Flaw::Broken))?;
        segment.advance();
        (segment.number, segment.before, segment.link) = (number, before, before);
        Ok(segment)
    }

    /// The number in the header.
    #[must_use]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The last record before this file.
    #[must_use]
    pub(crate) fn before(&self) -> Link {
        self.before
    }

    /// The last record that was read.
    #[must_use]
    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// The next record; `None` at the end of the file.
    pub(crate) fn next_record(&mut self) -> Result<Option<&[u8]>, ReadError> {
        if !self.read_line()? {
            return Ok(None);
        }
        let said = parse_line(&self.line).and_then(|(said, record)| {
            let link = self.link.next(record);
            (said == link).then_some((link, record.len()))
        });
        let Some((link, length)) = said else { return Err(ReadError::Flaw(Flaw::Broken)) };
        self.advance();
        self.link = link;
        Ok(Some(&self.line[self.line.len() - length..]))
    }

    /// Reads one line without its line feed into `self.line`; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, ReadError> {
        self.line.clear();
        let limit = MAX_LINE_BYTES + 1;
        self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
        match self.line.pop() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) if self.line.len() as u64 + 1 < limit => Err(ReadError::Flaw(Flaw::Torn)),
            Some(_) => Err(ReadError::Flaw(Flaw::Broken)),
        }
    }

    fn advance(&mut self) {
        self.good_bytes += self.line.len() as u64 + 1;
    }
}

/// What a repaired file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The last record before the file.
    pub(crate) before: Link,
    /// The last record in it.
    pub(crate) end: Link,
    /// What was cut off its end.
    pub(crate) cut: Option<Cut>,
}

impl Contents {
    /// The number of records.
    #[must_use]
    pub(crate) fn records(&self) -> u64 {
        self.end.sequence - self.before.sequence
    }
}

/// What is cut off the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The reason.
    pub(crate) flaw: Flaw,
    /// The offset of the first byte that is cut off.
    pub(crate) at: u64,
    /// The number of bytes.
    pub(crate) bytes: u64,
}

impl Notice {
    /// Adds a cut to the notice.
    pub(crate) fn add_cut(&mut self, flaw: Flaw, bytes: u64) {
        match flaw {
            Flaw::Torn => self.torn_bytes += bytes,
            Flaw::Broken => self.damaged_bytes += bytes,
        }
    }
}

/// Reads a file to its end and cuts off whatever follows the last record that fits. An unfinished line is dropped, since no reply
/// left for it; anything else is evidence and is copied to `evidence` first.
///
/// Returns `None` if even the header does not fit: then the whole file is moved to the evidence.
///
/// `note` is called before anything is cut off; if it fails, the file stays as it is.
pub(crate) fn repair(
    path: &Path,
    evidence: &Path,
    note: &dyn Fn(&Cut) -> io::Result<()>,
) -> io::Result<Option<Contents>> {
    let mut segment = match SegmentReader::open(path) {
        Ok(segment) => segment,
        Err(ReadError::Io(error)) => return Err(error),
        Err(ReadError::Flaw(_)) => {
            let bytes = path.metadata()?.len();
            if bytes > 0 {
                cut_off(path, &Cut { flaw: Flaw::Broken, at: 0, bytes }, evidence, note)?;
            }
            return Ok(None);
        }
    };
    let flaw = loop {
        match segment.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(ReadError::Flaw(flaw)) => break Some(flaw),
            Err(ReadError::Io(error)) => return Err(error),
        }
    };
    let cut = match flaw {
        None => None,
        Some(flaw) => {
            let at = segment.good_bytes;
            let cut = Cut { flaw, at, bytes: path.metadata()?.len().saturating_sub(at) };
            cut_off(path, &cut, evidence, note)?;
            Some(cut)
        }
    };
    Ok(Some(Contents { before: segment.before, end: segment.link, cut }))
}

fn cut_off(path: &Path, cut: &Cut, evidence: &Path, note: &dyn Fn(&Cut) -> io::Result<()>) -> io::Result<()> {
    note(cut)?;
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    if cut.flaw == Flaw::Broken {
        file.seek(SeekFrom::Start(cut.at))?;
        let mut kept = OpenOptions::new().append(true).create(true).mode(0o600).open(evidence)?;
        io::copy(&mut file, &mut kept)?;
        kept.flush()?;
        kept.sync_all()?;
    }
    file.set_len(cut.at)?;
    file.sync_all()
}

/// Far more than any record has: CloudTrail allows 256 KB, and both encryption contexts and all other text are bounded.
pub(super) const MAX_LINE_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 64 << 10;
