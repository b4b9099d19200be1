//! One log file, read: everything that its bytes say by themselves. Nothing of it depends on another file, so that several are read at a
//! time; what they say together, [`Checker`](super::checker::Checker) holds against one another in their order.

use std::hash::RandomState;

use super::ids;
use super::record::{self, CheckedRecord, InvalidRecord};
use super::uses::UseCounts;
use crate::digest::{ChainSpan, LogFile, sha256_hex};
use crate::journal::hash_chain::Link;
use crate::reader::records::{MalformedRecords, read_records};

/// What the bytes of a log file say.
pub(super) struct ReadLogFile {
    /// Its records, each by itself.
    pub(super) records: Vec<Result<CheckedRecord, InvalidRecord>>,
    /// Where its JSON breaks off, after so many records.
    pub(super) broken: Option<MalformedRecords>,
    /// What is wrong with it as a whole.
    pub(super) flaws: Flaws,
    /// How what it tells of was used, if that is wanted.
    pub(super) uses: UseCounts,
}

/// The oldest and newest record of one source; none where a record is malformed.
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

/// What a digest says of a log file, and its bytes do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    pub(super) hash: bool,
    pub(super) chain: bool,
    pub(super) times: bool,
}

/// Reads the bytes of the log file that `entry` names, and counts uses if that is wanted.
pub(super) fn read(
    entry: &LogFile,
    json: &[u8],
    account_id: &str,
    hashes: &RandomState,
    counts_uses: bool,
) -> ReadLogFile {
    let mut uses = UseCounts::new();
    let (before, stated_end) = entry.journal_chain.as_ref().and_then(ChainSpan::links).unzip();
    let mut span = Span::default();
    let mut end: Option<Link> = before;
    let (mut read, mut broken) = (Vec::new(), None);
    for found in read_records(json) {
        let found = match found {
            Ok(found) => found,
            Err(malformed) => {
                broken = Some(malformed);
                break;
            }
        };
        end = end.map(|end| end.next(found.json.as_bytes()));
        let checked = record::read(found, account_id, hashes, Some(&mut uses).filter(|_| counts_uses));
        match &checked {
            Ok(record) => span.widen(record.at),
            Err(_) => span.has_malformed = true,
        }
        read.push(checked);
    }
    let is_whole = broken.is_none() && !span.has_malformed;
    let stated = ids::seconds(&entry.oldest_event_time).zip(ids::seconds(&entry.newest_event_time));
    let flaws = Flaws {
        hash: sha256_hex(json) != entry.hash_value,
        chain: is_whole && end != stated_end,
        times: is_whole && span.times != stated,
    };
    ReadLogFile { records: read, broken, flaws, uses }
}
