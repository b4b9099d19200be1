//! Reads one log file by itself, so that several can be read at a time; [`Checker`](super::checker::Checker) then compares their
//! contents in order.

use std::hash::RandomState;
use std::sync::{Arc, Mutex};

use super::ids;
use super::record::{self, CheckedRecord, InvalidRecord};
use super::uses::UseCounts;
use crate::digest::{ChainSpan, LogFile, sha256_hex};
use crate::journal::hash_chain::Link;
use crate::reader::pieces::{Pieces, ReadWhole};
use crate::reader::records::records;
use crate::reader::{FetchedLogFile, ReadFailure, gunzip};
use crate::record::MalformedRecord;

/// The contents of a log file.
#[derive(Default)]
pub(super) struct ReadLogFile {
    pub(super) records: ReadRecords,
    /// Where its JSON is malformed, after these records.
    pub(super) broken: Option<MalformedRecord>,
    /// What contradicts its digest.
    pub(super) flaws: Flaws,
    /// How KMS's answers in it were used, if that is requested.
    pub(super) uses: UseCounts,
}

/// The records of a log file, in memory that is reused for the next one: an allocator would return so large a block to the thread that
/// freed it, where no other thread can use it.
#[derive(Default)]
pub(super) struct ReadRecords {
    records: Vec<ReadRecord>,
    room: Room,
}

type ReadRecord = Result<CheckedRecord, InvalidRecord>;

/// Memory that is free for reuse.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Vec<Vec<ReadRecord>>>>);

impl ReadRecords {
    /// Memory for this many records.
    fn new(room: &Room, count: usize) -> Self {
        let free = room.0.lock().ok().and_then(|mut free| free.pop());
        let mut records = free.unwrap_or_default();
        records.reserve_exact(count);
        Self { records, room: room.clone() }
    }

    /// In their order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = ReadRecord> {
        self.records.drain(..)
    }
}

impl Drop for ReadRecords {
    fn drop(&mut self) {
        self.records.clear();
        if let Ok(mut free) = self.room.0.lock() {
            free.push(std::mem::take(&mut self.records));
        }
    }
}

/// The times of the oldest and newest record of one source; unknown if a record is malformed.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) times: Option<(i64, i64)>,
    pub(super) has_malformed: bool,
}

impl Span {
    pub(super) fn widen(&mut self, at: i64) {
        self.times = Some(self.times.map_or((at, at), |(oldest, newest)| (oldest.min(at), newest.max(at))));
    }
}

/// What a digest says of a log file and its bytes contradict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    pub(super) hash: bool,
    pub(super) chain: bool,
    pub(super) times: bool,
}

/// Reads the log file that `entry` names, and counts uses if requested. Takes long, and blocks.
pub(super) fn read(
    entry: &LogFile,
    fetched: FetchedLogFile,
    account_id: &str,
    hashes: &RandomState,
    counts_uses: bool,
    room: &Room,
) -> Result<ReadLogFile, ReadFailure> {
    let gzip = fetched.unlock()?;
    let begin = || Reading::begin(entry, account_id, (hashes, counts_uses), room);
    let mut reading = begin();
    if let Ok(hash) = reading.in_pieces(&gzip) {
        return Ok(reading.end(&hash));
    }
    // Not a log file as brokers write it: all of it is needed to say what is wrong.
    let mut reading = begin();
    let json = gunzip(&gzip)?;
    reading.whole(&json);
    Ok(reading.end(&sha256_hex(&json)))
}

/// A file of the journal has at most 50 MB, and hardly any record has less than 500 bytes.
const MOST_AT_ONCE: usize = 100_000;

/// What was read so far.
struct Reading<'a> {
    entry: &'a LogFile,
    account_id: &'a str,
    hashes: &'a RandomState,
    counts_uses: bool,
    /// The last record's place in the journal's chain, if the first one's is known.
    link: Option<Link>,
    span: Span,
    read: ReadLogFile,
}

impl<'a> Reading<'a> {
    fn begin(
        entry: &'a LogFile,
        account_id: &'a str,
        (hashes, counts_uses): (&'a RandomState, bool),
        room: &Room,
    ) -> Self {
        let links = entry.journal_chain.as_ref().and_then(ChainSpan::links);
        // Reserves the stated number, so that no record is moved.
        let stated = links.map_or(0, |(before, end)| end.sequence.saturating_sub(before.sequence));
        let count = usize::try_from(stated).unwrap_or(MOST_AT_ONCE).min(MOST_AT_ONCE);
        let read = ReadLogFile { records: ReadRecords::new(room, count), ..ReadLogFile::default() };
        let link = links.map(|(before, _)| before);
        Self { entry, account_id, hashes, counts_uses, link, span: Span::default(), read }
    }

    /// Reads it piece by piece. Returns the hash of all of it.
    fn in_pieces(&mut self, gzip: &[u8]) -> Result<String, ReadWhole> {
        let mut pieces = Pieces::new(gzip);
        pieces.for_each_record(|text, is_alone| {
            if is_alone {
                self.record(text);
                return Some(text.len());
            }
            let uses = Some(&mut self.read.uses).filter(|_| self.counts_uses);
            let (record, length) = record::read_strictly(text, self.account_id, self.hashes, uses)?;
            self.add(&text[..length], Ok(record));
            Some(length)
        })?;
        Ok(pieces.hash())
    }

    fn whole(&mut self, json: &[u8]) {
        for found in records(json) {
            match found {
                Ok(record) => self.record(record),
                Err(malformed) => self.read.broken = Some(malformed),
            }
        }
    }

    fn record(&mut self, json: &str) {
        let uses = Some(&mut self.read.uses).filter(|_| self.counts_uses);
        let record = record::read(json, self.account_id, self.hashes, uses);
        self.add(json, record);
    }

    fn add(&mut self, json: &str, record: Result<CheckedRecord, InvalidRecord>) {
        self.link = self.link.map(|link| link.next(json.as_bytes()));
        match &record {
            Ok(record) => self.span.widen(record.at),
            Err(_) => self.span.has_malformed = true,
        }
        self.read.records.records.push(record);
    }

    fn end(self, hash: &str) -> ReadLogFile {
        let Self { entry, link, span, mut read, .. } = self;
        let is_whole = read.broken.is_none() && !span.has_malformed;
        let stated = ids::seconds(&entry.oldest_event_time).zip(ids::seconds(&entry.newest_event_time));
        let stated_end = entry.journal_chain.as_ref().and_then(ChainSpan::links).map(|(_, end)| end);
        read.flaws = Flaws {
            hash: hash != entry.hash_value,
            chain: is_whole && link != stated_end,
            times: is_whole && span.times != stated,
        };
        read
    }
}
