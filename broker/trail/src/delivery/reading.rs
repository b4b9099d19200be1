//! Reads journal segments for a delivery.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::TrailError;
use crate::journal::files;
use crate::journal::hash_chain::{Link, parse_header};
use crate::journal::segment_reader::{Cut, ReadError, repair};
use crate::log_file::{self, LogFileContents};

/// What a file of the journal holds.
pub(super) enum Reading {
    /// Its end is not known yet.
    NotYet,
    /// No record.
    Nothing,
    /// Records.
    Contents(LogFileContents),
}

impl From<Option<LogFileContents>> for Reading {
    fn from(contents: Option<LogFileContents>) -> Self {
        contents.map_or(Self::Nothing, Self::Contents)
    }
}

/// Makes a log file of the journal's file at `path`, which ends where the next file in `later` begins: anything behind that was left by
/// a failed commit. Reports what does not fit the chain.
pub(super) fn read(
    path: &Path,
    later: &[PathBuf],
    evidence: &Path,
    note: &dyn Fn(&Cut) -> io::Result<()>,
) -> Result<Reading, TrailError> {
    let Some(next) = later.iter().find_map(|path| begins_after(path)) else { return Ok(Reading::NotYet) };
    let build = || match log_file::build(path, next.sequence) {
        Ok(contents) => Ok(Some(contents)),
        Err(ReadError::Io(error)) => Err(error),
        Err(ReadError::Flaw(_)) => Ok(None),
    };
    let contents = match build()? {
        Some(contents) => contents,
        None if repair(path, evidence, note)?.is_some() => build()?.flatten(),
        // Not even the header fits.
        None => None,
    };
    Ok(contents.into())
}

/// The last record before a file of the journal, from its header.
pub(super) fn begins_after(path: &Path) -> Option<Link> {
    let mut line = Vec::new();
    BufReader::new(File::open(path).ok()?).read_until(b'\n', &mut line).ok()?;
    parse_header(line.strip_suffix(b"\n")?).map(|(_, before)| before)
}

/// The place at which the oldest file of the journal begins.
pub(super) fn oldest_place(journal_dir: &Path) -> io::Result<Link> {
    let oldest = files(journal_dir)?.into_iter().find_map(|file| begins_after(&file.path));
    Ok(oldest.unwrap_or(Link::START))
}
