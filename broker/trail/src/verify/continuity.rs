//! Checks that the log files of all digests follow one another in the journal's hash chain: records lost before delivery leave a gap,
//! which shows without the broker's word and without its journal.

use super::finding::{FindingKind, Findings, Place};
use crate::digest::{ChainSpan, Digest, LogFile};
use crate::journal::hash_chain::Link;
use crate::names::TrailNames;

/// The end of the log files so far.
#[derive(Default)]
pub(super) struct Continuity {
    /// The newest log file and the last record in it, if that is known.
    end: Option<(String, Link)>,
    /// The number of log files without a place in the chain.
    unknown: u64,
    /// Whether the next log file is the first of its journal.
    is_beginning: bool,
}

impl Continuity {
    /// The next log file follows this digest.
    pub(super) fn comes_after(&mut self, digest: &Digest) {
        self.end = digest.log_files.last().and_then(end_of);
    }

    /// The next log file begins the trail, and so its journal.
    pub(super) fn begin(&mut self) {
        (self.end, self.is_beginning) = (None, true);
    }

    /// The next log file is compared with nothing: it is from another journal, or its predecessor cannot be read.
    pub(super) fn begin_anew(&mut self) {
        (self.end, self.is_beginning) = (None, false);
    }

    /// Checks the next log file, as a digest names it.
    pub(super) fn log_file(&mut self, entry: &LogFile, findings: &mut Findings) {
        self.unknown += u64::from(entry.journal_chain.is_none());
        let begins_after = entry.journal_chain.as_ref().and_then(ChainSpan::links).map(|(before, _)| before);
        if let (Some((key, end)), Some(before)) = (&self.end, begins_after)
            && *end != before
        {
            findings.unsound(
                FindingKind::LogFileGap,
                Place::object(&entry.s3_object),
                gap(key, end, &before),
            );
        }
        if std::mem::take(&mut self.is_beginning)
            && let Some(before) = begins_after.filter(|before| *before != Link::START)
        {
            let words = format!(
                "it begins with record {} of its journal, whose notes were lost or moved away: the records before it are another trail's,                  or nowhere",
                before.sequence.saturating_add(1)
            );
            findings.cannot_tell(FindingKind::BeginsLate, Place::object(&entry.s3_object), words);
        }
        self.end = end_of(entry);
    }

    /// Reports log files without a place in the chain.
    pub(super) fn finish(&self, names: &TrailNames, findings: &mut Findings) {
        if self.unknown == 0 {
            return;
        }
        let words = format!(
            "{} log files are named by digests of an older broker, which do not say where they stand in the journal's chain: \
             whether records are missing before or after them cannot be told by the digests",
            self.unknown
        );
        findings.note(FindingKind::ChainUnknown, Place::object(&names.digest_folder()), words);
    }
}

fn end_of(entry: &LogFile) -> Option<(String, Link)> {
    let (_, end) = entry.journal_chain.as_ref()?.links()?;
    Some((entry.s3_object.clone(), end))
}

fn gap(key: &str, end: &Link, before: &Link) -> String {
    let (last, first) = (end.sequence, before.sequence.saturating_add(1));
    match before.sequence.checked_sub(end.sequence) {
        Some(0) => format!(
            "it begins after another record {last} than the one with which {key} ends: records were changed or replaced"
        ),
        Some(missing) => format!(
            "{missing} records are missing: it begins with record {first}, but {key} ends with record {last}"
        ),
        None => format!(
            "it begins with record {first}, though {key} ends with record {last}: the journal was begun anew or set back, and \
             what was in it and not delivered is missing"
        ),
    }
}

#[cfg(test)]
mod tests;
