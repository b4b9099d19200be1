//! The journal's tail: records that are not delivered yet, and whether they continue where delivery ended.

mod chain;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::checker::Checker;
use super::finding::{FindingKind, Place, TrailState};
use super::{Verification, resumed};
use crate::digest::LogFile;
use crate::journal::{Begun, Notices, SegmentFile, files};
use crate::notice::Untold;
use crate::reader::DigestKey;
use crate::regular_file::open_regular;
use crate::state::State;
use chain::{Chain, Delivered, JournalTail};

impl Verification<'_> {
    /// Verifies what the journal has and delivery has not. Returns whether it tells which log files wait for a digest.
    pub(super) async fn tail(&mut self, listed: &[DigestKey]) -> bool {
        let Some(dir) = self.options.journal_dir.clone().filter(|_| self.options.to.is_none()) else {
            return false;
        };
        let shown = dir.display().to_string();
        let opened = tokio::task::spawn_blocking(move || Tail::open(&dir)).await;
        let opened = opened.unwrap_or_else(|_| Err(io::Error::other("the reading was cut off")));
        let tail = match opened {
            Ok(tail) => tail,
            Err(error) => {
                let place = Place::object(&shown);
                self.checker.findings.cannot_tell(FindingKind::JournalUnreadable, place, error.to_string());
                return false;
            }
        };
        if !self.is_own(&tail) {
            return false;
        }
        if let Some(state) = &tail.state {
            self.newer_digests(state, listed).await;
            let sealed = state.sealed.as_ref().map_or(&[][..], |sealed| &sealed.log_files);
            let waiting: Vec<LogFile> = sealed.iter().chain(&state.log_files).cloned().collect();
            // A digest delivered a moment ago may already name them.
            let waiting: Vec<LogFile> =
                waiting.into_iter().filter(|file| !self.known.contains(&file.s3_object)).collect();
            self.read_log_files(waiting).await;
        }
        let is_known = tail.state.is_some();
        let mut checker = std::mem::take(&mut self.checker);
        let work = tokio::task::spawn_blocking(move || {
            let undelivered = tail.check(&mut checker);
            (checker, undelivered)
        });
        let undelivered;
        (self.checker, undelivered) = resumed(work.await);
        self.report.journal_records = undelivered.records;
        let names = self.reader.names();
        self.known.extend(undelivered.closed.iter().map(|(at, hash)| names.log_file(*at, hash)));
        is_known
    }

    /// Whether it is this trail's journal, as far as its notes tell. Without them that is not known, nor what was delivered.
    fn is_own(&mut self, tail: &Tail) -> bool {
        let own = &self.reader.names().trail;
        let words = match &tail.state {
            Some(state) if state.trail == *own => return true,
            Some(state) => format!(
                "this is the journal of the trail {:?}: give this trail's journal, or leave the journal out with --no-journal",
                state.trail
            ),
            // Told already.
            None if tail.unread.iter().any(|(path, _)| path.ends_with(State::FILE)) => return true,
            None if tail.is_empty() && self.report.state == Some(TrailState::Closed) => return false,
            None => "it is not there, so it is not known what was delivered from this journal: if the trail's journal is elsewhere, \
                     leave it out with --no-journal"
                .to_owned(),
        };
        let place = Place::object(&tail.dir.join(State::FILE).display().to_string());
        self.checker.findings.cannot_tell(FindingKind::JournalUnreadable, place, words);
        tail.state.is_none()
    }
}

/// A journal's files and the trail's state at one moment.
struct Tail {
    /// `None` if it is not there, or cannot be read.
    state: Option<State>,
    files: Vec<(SegmentFile, io::Result<File>)>,
    /// The newest file, as its broker has noted.
    begun: Option<Begun>,
    evidence: Vec<PathBuf>,
    untold: Vec<Untold>,
    /// The broker's notes that cannot be read.
    unread: Vec<(PathBuf, io::Error)>,
    /// The directory of all of them.
    dir: PathBuf,
}

impl Tail {
    /// Opens a journal that a broker may be writing and delivering meanwhile: open files stay readable.
    fn open(dir: &Path) -> io::Result<Self> {
        for attempt in 1..=TRIES {
            // Before the files: the file that it names is there, or was delivered.
            let begun = Begun::load(dir);
            let state = State::load(dir);
            let files: Vec<_> = files(dir)?
                .into_iter()
                .map(|file| {
                    let opened = open_regular(&file.path);
                    (file, opened)
                })
                .collect();
            let newest = files.last().map_or(0, |(file, _)| file.number);
            let is_behind = |begun: &Begun| begun.number > newest;
            let is_missed = matches!(&begun, Ok(Some(begun)) if is_behind(begun));
            // Delivered or renamed meanwhile.
            let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            let is_moving = files.iter().any(|(_, opened)| opened.as_ref().is_err_and(is_gone));
            if is_moving || (is_missed && attempt < TRIES) {
                continue;
            }
            if State::load(dir).ok() == state.as_ref().ok().cloned() {
                let (evidence, mut unread) = (evidence(dir)?, Vec::new());
                let state = read_or_note(state, dir.join(State::FILE), &mut unread).flatten();
                let begun = read_or_note(begun, dir.join(Begun::FILE), &mut unread).flatten();
                let untold = read_or_note(Notices::read(dir), dir.join(Notices::FILE), &mut unread);
                let untold = untold.unwrap_or_default();
                return Ok(Self { state, files, begun, evidence, untold, unread, dir: dir.to_owned() });
            }
        }
        Err(io::Error::other("the broker delivers faster than its journal can be opened: try again"))
    }

    /// Whether there is nothing of a journal.
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.begun.is_none() && self.evidence.is_empty() && self.unread.is_empty()
    }

    /// Checks chain and records.
    fn check(self, checker: &mut Checker) -> JournalTail {
        for path in &self.evidence {
            checker.findings.unsound(
                FindingKind::JournalEvidence,
                Place::object(&path.display().to_string()),
                "what did not fit the journal's chain is kept here: its records were changed, and are not delivered",
            );
        }
        let delivered = match self.state {
            Some(State { delivered: Some(link), .. }) => Delivered::UpTo(link),
            Some(_) => Delivered::Nothing,
            None => Delivered::Unknown,
        };
        checker.begin_journal();
        let mut chain = Chain::new(checker, delivered);
        for (path, error) in &self.unread {
            chain.unreadable(path, error);
        }
        if delivered == Delivered::Unknown {
            chain.checker.doubt_failures();
        }
        let (has_files, newest) =
            (!self.files.is_empty(), self.files.last().map_or(0, |(file, _)| file.number));
        let segments = chain.open(self.files, self.begun.as_ref());
        chain.follow(segments);
        chain.end_of_journal(has_files);
        if let Some(begun) = self.begun.filter(|begun| begun.number > newest) {
            chain.newest_is_gone(&begun, &self.dir);
        }
        let undelivered = chain.undelivered;
        for untold in &self.untold {
            checker.untold(untold, &self.dir.join(Notices::FILE).display().to_string());
        }
        undelivered
    }
}

/// What was read, or `None` and a note that it was not.
fn read_or_note<T>(read: io::Result<T>, path: PathBuf, unread: &mut Vec<(PathBuf, io::Error)>) -> Option<T> {
    read.map_err(|error| unread.push((path, error))).ok()
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
