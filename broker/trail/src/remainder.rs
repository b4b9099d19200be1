//! What a broker leaves behind at its end: the last log line says how much, the exit code whether there is anything.

use std::fmt;
use std::io;
use std::path::Path;

use crate::encryption_context::TRAIL_ARN;
use crate::journal::hash_chain::Link;
use crate::journal::segment_reader::SegmentReader;
use crate::journal::{Lost, files};
use crate::names::TrailNames;
use crate::record::ReadRecord;

/// What is left after everything that could be done in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remainder {
    /// Lost records: those of the backlog that could not be written, and those in a file that was removed.
    pub(crate) lost: Lost,
    /// Calls to KMS that were under way, whose records are lost.
    pub calls_under_way: usize,
    /// What is in the journal and in no log file; the next start delivers it.
    pub(crate) journal: Leftover,
    /// Log files that are in no digest; the next start makes it.
    pub log_files_without_digest: usize,
    /// Notices that were not reported; the next start reports them.
    pub untold_notices: usize,
    /// Why it is unknown what the journal holds, if it cannot be read.
    pub unreadable: Option<String>,
}

/// Undelivered records of the journal, except those of the trail's own last calls to KMS: each signature makes a record, whose delivery
/// would have to be signed, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// Files with such records.
    pub(crate) files: usize,
    /// The number of records.
    pub(crate) records: u64,
    /// The bytes of these files.
    pub(crate) bytes: u64,
}

impl Remainder {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Remainder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, calls_under_way, journal, log_files_without_digest, untold_notices, unreadable } =
            self;
        let mut parts = Vec::new();
        if lost.records > 0 {
            parts.push(format!(
                "{} records ({} bytes) could not be written and are lost",
                lost.records, lost.bytes
            ));
        }
        if *calls_under_way > 0 {
            parts.push(format!("{calls_under_way} calls to KMS were under way, and their records are lost"));
        }
        if let Some(why) = unreadable {
            parts.push(format!("what the journal holds cannot be read: {why}"));
        }
        if journal.files > 0 {
            let Leftover { files, records, bytes } = journal;
            parts.push(format!(
                "{records} records in {files} files of the journal ({bytes} bytes) are not delivered"
            ));
        }
        if *log_files_without_digest > 0 {
            parts.push(format!("{log_files_without_digest} log files are in no digest"));
        }
        if *untold_notices > 0 {
            parts.push(format!("{untold_notices} notices are not reported"));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Leftover {
    /// What the journal in `dir` holds after `delivered`, and its end, if anything can be read. Blocks.
    pub(super) fn look(
        dir: &Path,
        delivered: Option<Link>,
        names: &TrailNames,
    ) -> io::Result<(Self, Option<Link>)> {
        let (mut left, mut end) = (Self::default(), None);
        for file in files(dir)? {
            let (mut records, mut is_readable) = (0, file.closed_at.is_none());
            if let Ok(mut segment) = SegmentReader::open(&file.path) {
                is_readable = true;
                while let Ok(Some(record)) = segment.next_record() {
                    let is_own = is_of_the_trail(record, names);
                    let place = segment.link().sequence;
                    let is_delivered = delivered.is_some_and(|delivered| place <= delivered.sequence);
                    records += u64::from(!is_own && !is_delivered);
                }
                end = Some(segment.link());
            }
            if records > 0 || !is_readable {
                left.files += 1;
                left.records += records;
                left.bytes += file.path.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok((left, end))
    }
}

/// Whether a record is about a call to KMS that delivery itself makes: the signature of a digest, or the data key of a log file.
fn is_of_the_trail(record: &[u8], names: &TrailNames) -> bool {
    let record = std::str::from_utf8(record).ok().and_then(|record| ReadRecord::parse(record).ok());
    let Some(record) = record else { return false };
    record.is_of_kms()
        && record.is_of_the_broker_itself()
        && match &*record.event_name {
            "Sign" => true,
            "GenerateDataKey" => record.context(TRAIL_ARN) == Some(&names.trail_arn()),
            _ => false,
        }
}
