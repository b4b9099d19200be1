//! The journal's tail: records that are not delivered yet, and whether they continue where delivery ended.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::checker::Checker;
use super::finding::{FindingKind, Place};
use super::log_file::Span;
use crate::journal::hash_chain::Link;
use crate::journal::segment_reader::{Flaw, ReadError, SegmentReader};
use crate::journal::{Notices, SegmentFile, files};
use crate::notice::Untold;
use crate::regular_file::open_regular;
use crate::state::State;

/// A journal's files and the trail's state at one moment.
pub(super) struct Tail {
    pub(super) state: Option<State>,
    files: Vec<(SegmentFile, File)>,
    evidence: Vec<PathBuf>,
    untold: Vec<Untold>,
    /// The directory of both.
    dir: PathBuf,
}

impl Tail {
    /// Opens a journal that a broker may be writing and delivering meanwhile: open files stay readable.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let state = State::load(dir)?;
            let listed = files(dir)?;
            let opened: io::Result<Vec<_>> =
                listed.iter().map(|file| Ok((file.clone(), open_regular(&file.path)?))).collect();
            // Delivered or renamed meanwhile.
            if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                continue;
            }
            let files = opened?;
            if State::load(dir)? == state {
                let (evidence, untold) = (evidence(dir)?, Notices::read(dir)?);
                return Ok(Self { state, files, evidence, untold, dir: dir.to_owned() });
            }
        }
        Err(io::Error::other("the broker delivers faster than its journal can be opened: try again"))
    }

    /// Checks chain and records.
    pub(super) fn check(self, checker: &mut Checker) -> JournalTail {
        for path in &self.evidence {
            checker.findings.unsound(
                FindingKind::JournalEvidence,
                Place::object(&path.display().to_string()),
                "what did not fit the journal's chain is kept here: its records were changed, and are not delivered",
            );
        }
        let delivered = self.state.and_then(|state| state.delivered);
        let mut chain = Chain { checker, delivered, end: End::Nowhere, undelivered: JournalTail::default() };
        let mut segments = Vec::new();
        let newest = self.files.len();
        for (place, (file, opened)) in self.files.into_iter().enumerate() {
            match SegmentReader::new(BufReader::new(opened)) {
                Ok(reader) if reader.number() == file.number => segments.push((file, Some(reader))),
                // Left by a crash at the very beginning of a file; the next start removes it.
                Err(ReadError::Flaw(Flaw::Torn)) if place + 1 == newest && file.closed_at.is_none() => {}
                Err(ReadError::Io(error)) => {
                    chain.unreadable(&file, &error);
                    segments.push((file, None));
                }
                Ok(_) | Err(ReadError::Flaw(_)) => chain.broken(&file, 1),
            }
        }
        let begins: Vec<_> =
            segments.iter().map(|(_, reader)| reader.as_ref().map(SegmentReader::before)).collect();
        for (place, (file, reader)) in segments.into_iter().enumerate() {
            let next = match begins.get(place + 1) {
                None => Next::None,
                Some(None) => Next::Unread,
                Some(Some(begin)) => Next::Begins(*begin),
            };
            match reader {
                Some(reader) => chain.segment(&file, reader, next),
                None => chain.end = End::Unread(chain.end.known()),
            }
        }
        chain.end_of_journal(newest > 0);
        let undelivered = chain.undelivered;
        for untold in &self.untold {
            checker.untold(untold, &self.dir.join("notices.json").display().to_string());
        }
        undelivered
    }
}

/// What is only in the journal.
#[derive(Default)]
pub(super) struct JournalTail {
    pub(super) records: u64,
    /// The times of the closed files and the hashes of their last records, which make the names of their log files: these may already be
    /// in the store.
    pub(super) closed: Vec<(OffsetDateTime, [u8; 32])>,
}

struct Chain<'a> {
    checker: &'a mut Checker,
    delivered: Option<Link>,
    end: End,
    undelivered: JournalTail,
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

/// The file after one.
#[derive(Clone, Copy)]
enum Next {
    None,
    Begins(Link),
    Unread,
}

impl Chain<'_> {
    /// Checks one file, up to where the next one begins: anything behind that was never committed.
    fn segment(&mut self, file: &SegmentFile, mut reader: SegmentReader<BufReader<File>>, next: Next) {
        self.joins(file, reader.before());
        let source = self.checker.begin(&file.path.display().to_string());
        if matches!(self.end, End::Unread(_)) {
            self.checker.doubt_from(source);
        }
        let mut span = Span::default();
        let mut line = 1;
        let mut is_whole = true;
        loop {
            if let Next::Begins(next) = next
                && reader.link().sequence >= next.sequence
            {
                break;
            }
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
                Err(ReadError::Flaw(Flaw::Torn)) if matches!(next, Next::Unread) => break,
                Err(ReadError::Flaw(_)) => {
                    self.broken(file, line);
                    break;
                }
                Err(ReadError::Io(error)) => {
                    self.unreadable(file, &error);
                    is_whole = false;
                    break;
                }
            };
            let text = std::str::from_utf8(record).map(str::to_owned);
            let found = reader.link();
            match self.delivered {
                Some(delivered) if found.sequence < delivered.sequence => continue,
                Some(delivered) if found.sequence == delivered.sequence => {
                    if found != delivered {
                        self.broken(file, line);
                    }
                    continue;
                }
                _ => {}
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

    /// Checks that a file continues where the previous one, or delivery, ends.
    fn joins(&mut self, file: &SegmentFile, before: Link) {
        let place = Place::object(&file.path.display().to_string());
        let findings = &mut self.checker.findings;
        match (&self.end, self.delivered) {
            (End::At(end), _) if *end == before => {}
            (End::Unread(end), _) if end.sequence < before.sequence || *end == before => {}
            (End::At(end) | End::Unread(end), _) => {
                let words = format!(
                    "it begins after record {}, but the file before it ends with record {} or another of that number",
                    before.sequence, end.sequence
                );
                findings.unsound(FindingKind::JournalGap, place, words);
            }
            (End::Nowhere, Some(delivered)) => {
                let is_later = before.sequence > delivered.sequence;
                if is_later || (before.sequence == delivered.sequence && before != delivered) {
                    let words = format!(
                        "it begins after record {}, but what was delivered ends with record {}: records between are gone",
                        before.sequence, delivered.sequence
                    );
                    findings.unsound(FindingKind::JournalGap, place, words);
                }
            }
            (End::Nowhere, None) if before == Link::START => {}
            (End::Nowhere, None) => {
                let words =
                    format!("the {} records before it are neither here nor delivered", before.sequence);
                findings.cannot_tell(FindingKind::JournalGap, place, words);
            }
        }
    }

    fn end_of_journal(&mut self, has_files: bool) {
        let Some(delivered) = self.delivered else { return };
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

    fn broken(&mut self, file: &SegmentFile, line: usize) {
        let place = Place { record: Some(line as u64), ..Place::object(&file.path.display().to_string()) };
        let words = "this line does not fit the chain: it was changed, or is not where it was written";
        self.checker.findings.unsound(FindingKind::JournalBroken, place, words);
    }

    fn unreadable(&mut self, file: &SegmentFile, error: &io::Error) {
        self.checker.doubt_failures();
        let place = Place::object(&file.path.display().to_string());
        self.checker.findings.cannot_tell(FindingKind::JournalUnreadable, place, error.to_string());
    }
}

/// The files with lines that did not fit the chain.
fn evidence(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "damaged") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A broker delivers at most every second.
const TRIES: usize = 10;
