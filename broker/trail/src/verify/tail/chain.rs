//! Follows the journal's chain from file to file. What cannot be read accuses nobody, and hides nothing of what can be.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use time::OffsetDateTime;

use super::super::checker::Checker;
use super::super::finding::{FindingKind, Place};
use super::super::log_file::Span;
use crate::journal::hash_chain::Link;
use crate::journal::segment_reader::{Flaw, ReadError, SegmentReader};
use crate::journal::{Begun, SegmentFile};

/// What is only in the journal.
#[derive(Default)]
pub(super) struct JournalTail {
    pub(super) records: u64,
    /// The times of the closed files and the hashes of their last records, which make the names of their log files: these may already be
    /// in the store.
    pub(super) closed: Vec<(OffsetDateTime, [u8; 32])>,
}

pub(super) struct Chain<'a> {
    pub(super) checker: &'a mut Checker,
    delivered: Delivered,
    end: End,
    /// The earliest place where a file behind the last one that was read can begin.
    begins: Link,
    pub(super) undelivered: JournalTail,
}

/// The last record that was delivered.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Delivered {
    /// The broker's notes cannot be read.
    Unknown,
    Nothing,
    UpTo(Link),
}

/// Where the files so far end.
enum End {
    /// There is none so far.
    Nowhere,
    At(Link),
    /// In a file that could not be read to its end, at this record or later.
    Unread(Link),
}

impl End {
    /// The last record that was read.
    fn known(&self) -> Link {
        match self {
            Self::Nowhere => Link::START,
            Self::At(link) | Self::Unread(link) => *link,
        }
    }
}

/// A file of the journal.
pub(super) struct Segment {
    file: SegmentFile,
    /// `None` if it cannot be read.
    reader: Option<SegmentReader<BufReader<File>>>,
    /// The last record before it, if that is known.
    before: Option<Link>,
}

/// The file after one.
#[derive(Clone, Copy)]
enum Next {
    None,
    Begins(Link),
    /// It is not known where it begins, but where the one behind it does, if there is one.
    Unread(Option<u64>),
}

impl Next {
    fn of(later: &[Segment]) -> Self {
        match later {
            [] => Self::None,
            [Segment { before: Some(before), .. }, ..] => Self::Begins(*before),
            [_, behind @ ..] => {
                Self::Unread(behind.iter().find_map(|segment| Some(segment.before?.sequence)))
            }
        }
    }

    /// The last record that can be committed in a file before it.
    fn until(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Begins(link) => Some(link.sequence),
            Self::Unread(until) => until,
        }
    }
}

impl<'a> Chain<'a> {
    pub(super) fn new(checker: &'a mut Checker, delivered: Delivered) -> Self {
        let undelivered = JournalTail::default();
        Self { checker, delivered, end: End::Nowhere, begins: Link::START, undelivered }
    }

    /// Reads the beginnings of all files. The broker notes where its newest file begins.
    pub(super) fn open(
        &mut self,
        files: Vec<(SegmentFile, io::Result<File>)>,
        begun: Option<&Begun>,
    ) -> Vec<Segment> {
        let (mut segments, newest) = (Vec::new(), files.len());
        for (place, (file, opened)) in files.into_iter().enumerate() {
            let read =
                opened.map_err(ReadError::Io).and_then(|file| SegmentReader::new(BufReader::new(file)));
            match read {
                Ok(reader) if reader.number() == file.number => {
                    let before = Some(reader.before());
                    segments.push(Segment { file, reader: Some(reader), before });
                }
                // Left by a crash at the very beginning of a file; the next start removes it.
                Err(ReadError::Flaw(Flaw::Torn)) if place + 1 == newest && file.closed_at.is_none() => {}
                Err(ReadError::Io(error)) => {
                    self.unreadable(&file.path, &error);
                    let noted = begun.filter(|begun| begun.number == file.number);
                    segments.push(Segment {
                        file,
                        reader: None,
                        before: noted.and_then(|begun| begun.after),
                    });
                }
                Ok(_) | Err(ReadError::Flaw(_)) => self.broken(&file, 1),
            }
        }
        segments
    }

    pub(super) fn follow(&mut self, segments: Vec<Segment>) {
        let mut segments = segments.into_iter();
        let mut last: Option<(u64, bool)> = None;
        while let Some(Segment { file, reader, before }) = segments.next() {
            // Read files tell by their places whether one is missing between them.
            let is_known = last.is_none_or(|(_, is_read)| is_read) && before.is_some();
            if let Some((number, _)) =
                last.filter(|(number, _)| number.saturating_add(1) < file.number && !is_known)
            {
                self.numbers_are_missing(&file, number);
            }
            last = Some((file.number, reader.is_some()));
            match (reader, before) {
                (Some(reader), _) => self.segment(&file, reader, Next::of(segments.as_slice())),
                (None, Some(before)) => {
                    self.joins(&file, before);
                    (self.begins, self.end) = (before, End::Unread(before));
                }
                (None, None) => self.end = End::Unread(self.end.known()),
            }
        }
    }

    /// Checks one file, up to where the next one begins: anything behind that was never committed.
    fn segment(&mut self, file: &SegmentFile, mut reader: SegmentReader<BufReader<File>>, next: Next) {
        self.joins(file, reader.before());
        self.begins = reader.before();
        let source = self.checker.begin(&file.path.display().to_string());
        if matches!(self.end, End::Unread(_)) {
            self.checker.doubt_from(source);
        }
        let mut span = Span::default();
        let mut line = 1;
        let mut is_whole = true;
        while next.until().is_none_or(|until| reader.link().sequence < until) {
            line += 1;
            let record = match reader.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                // A line that is still being written, or was when the broker died: no reply has left for it.
                Err(ReadError::Flaw(Flaw::Torn))
                    if matches!(next, Next::None) && file.closed_at.is_none() =>
                {
                    break;
                }
                // The next file may begin before this line.
                Err(ReadError::Flaw(Flaw::Torn)) if matches!(next, Next::Unread(_)) => break,
                Err(ReadError::Flaw(_)) => {
                    self.broken(file, line);
                    break;
                }
                Err(ReadError::Io(error)) => {
                    self.unreadable(&file.path, &error);
                    is_whole = false;
                    break;
                }
            };
            let text = std::str::from_utf8(record).map(str::to_owned);
            if self.is_delivered(reader.link(), file, line) {
                continue;
            }
            self.undelivered.records += 1;
            match text {
                Ok(text) => self.checker.record(source, line, &text, &mut span),
                Err(_) => self.broken(file, line),
            }
        }
        self.checker.end(span);
        self.end = if is_whole { End::At(reader.link()) } else { End::Unread(reader.link()) };
        if let Some(closed_at) = file.closed_at {
            self.undelivered.closed.push((closed_at, reader.link().hash));
        }
    }

    /// Whether a record was delivered, or may have been: then it is among those that were read already.
    fn is_delivered(&mut self, found: Link, file: &SegmentFile, line: usize) -> bool {
        let delivered = match self.delivered {
            Delivered::Unknown => return true,
            Delivered::Nothing => return false,
            Delivered::UpTo(delivered) => delivered,
        };
        if found.sequence == delivered.sequence {
            if found == delivered {
                // So it was committed, and the next file does not begin before it.
                self.begins = found;
            } else {
                self.broken(file, line);
            }
        }
        found.sequence <= delivered.sequence
    }

    /// Checks that a file continues where the previous one, or delivery, ends.
    fn joins(&mut self, file: &SegmentFile, before: Link) {
        let place = Place::object(&file.path.display().to_string());
        let findings = &mut self.checker.findings;
        match (&self.end, self.delivered) {
            (End::At(end) | End::Unread(end), _) if *end == before => {}
            (End::Unread(end), _) if end.sequence < before.sequence => {}
            // What was read of the file before the unread one may end with what a failed write left behind.
            (End::Unread(end), _) if self.begins.sequence < before.sequence || self.begins == before => {
                let words = format!(
                    "it begins after record {}, and what could be read of the files before it ends with record {}: whether that is right, \
                     the unread file between tells",
                    before.sequence, end.sequence
                );
                findings.cannot_tell(FindingKind::JournalGap, place, words);
            }
            (End::At(end) | End::Unread(end), _) => {
                let words = format!(
                    "it begins after record {}, but the file before it ends with record {} or another of that number",
                    before.sequence, end.sequence
                );
                findings.unsound(FindingKind::JournalGap, place, words);
            }
            (End::Nowhere, Delivered::UpTo(delivered)) => {
                let is_later = before.sequence > delivered.sequence;
                if is_later || (before.sequence == delivered.sequence && before != delivered) {
                    let words = format!(
                        "it begins after record {}, but what was delivered ends with record {}: records between are gone",
                        before.sequence, delivered.sequence
                    );
                    findings.unsound(FindingKind::JournalGap, place, words);
                }
            }
            (End::Nowhere, Delivered::Nothing) if before != Link::START => {
                let words =
                    format!("the {} records before it are neither here nor delivered", before.sequence);
                findings.cannot_tell(FindingKind::JournalGap, place, words);
            }
            (End::Nowhere, _) => {}
        }
    }

    /// Files are numbered in order. An empty one may have been removed by the broker, so only its neighbours could tell.
    fn numbers_are_missing(&mut self, file: &SegmentFile, last: u64) {
        let words = format!(
            "the file before it has the number {last}, so one or more between them are not there, and whether they had records cannot be \
             told, since not both neighbours could be read"
        );
        let place = Place::object(&file.path.display().to_string());
        self.checker.findings.cannot_tell(FindingKind::JournalGap, place, words);
    }

    pub(super) fn end_of_journal(&mut self, has_files: bool) {
        let Delivered::UpTo(delivered) = self.delivered else { return };
        if delivered == Link::START && has_files {
            // Nothing has been written yet.
            return;
        }
        let ends_before = match &self.end {
            End::Nowhere => true,
            End::At(end) => end.sequence < delivered.sequence,
            End::Unread(_) => false,
        };
        if ends_before {
            let words = format!(
                "the journal ends before record {}, where delivery has ended: its files were removed or cut",
                delivered.sequence
            );
            self.checker.findings.unsound(FindingKind::JournalGap, Place::object("the journal"), words);
        }
    }

    /// The newest file is always there while its records are not delivered.
    pub(super) fn newest_is_gone(&mut self, begun: &Begun, dir: &Path) {
        let after = begun.after.unwrap_or(Link::START);
        let words = format!(
            "the broker has noted that it began file {} after record {}: that file is not there, nor was anything of it delivered",
            begun.number, after.sequence
        );
        let (place, kind) =
            (Place::object(&dir.join(Begun::FILE).display().to_string()), FindingKind::JournalGap);
        match self.delivered {
            Delivered::UpTo(delivered) if delivered.sequence > after.sequence => {}
            Delivered::Unknown => {
                let words =
                    format!("file {} is not there, and whether it was delivered is not known", begun.number);
                self.checker.findings.cannot_tell(kind, place, words);
            }
            Delivered::Nothing | Delivered::UpTo(_) => self.checker.findings.unsound(kind, place, words),
        }
    }

    fn broken(&mut self, file: &SegmentFile, line: usize) {
        let place = Place { record: Some(line as u64), ..Place::object(&file.path.display().to_string()) };
        let words = "this line does not fit the chain: it was changed, or is not where it was written";
        self.checker.findings.unsound(FindingKind::JournalBroken, place, words);
    }

    pub(super) fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.checker.doubt_failures();
        let place = Place::object(&path.display().to_string());
        self.checker.findings.cannot_tell(FindingKind::JournalUnreadable, place, error.to_string());
    }
}
