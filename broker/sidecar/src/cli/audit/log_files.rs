//! The trustworthy log files of a trail, in order, and their records.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use key_broker_trail::{LogFiles, ReadFailure, TrailReader, Unread, VouchedLogFile, records};

use super::Failure;
use super::output::{note, plain};
use super::period::Period;
use super::progress::Progress;
use super::source::Source;
use super::source::keys::SigningKey;
use crate::cli::exit::Exit;

/// The log files that can have records of this time, of the one trail or of all that are called so, as far as they are vouched for; the
/// others are named.
pub(super) async fn believed(
    source: &Source,
    called: Option<&str>,
    key: &SigningKey,
    period: &Period,
) -> Result<Believed, Failure> {
    let keys = source.public_keys(key).await?;
    let journal = source.journal_to_verify();
    let (period, mut progress) = ((period.since, period.until), Progress::new());
    let mut tell = |done, all| progress.tell(|| format!("{done} of {all} digests"));
    let found = LogFiles::of(&source.reader, called, &keys, journal.as_deref(), period, &mut tell).await;
    drop(progress);
    let LogFiles { vouched, unvouched, unread, of_others, closing_signs, data_keys, delivered } =
        found.map_err(|failure| Failure::Unavailable(failure.to_string()))?;
    if of_others > 0 {
        note(format_args!("{of_others} log files are other trails', as their digests say: left out"));
    }
    let mut reasons = BTreeMap::<&str, (u64, String)>::new();
    for (key, why) in &unvouched {
        let reason = reasons.entry(why).or_insert_with(|| (0, plain(key)));
        reason.0 += 1;
    }
    for (why, (count, first)) in reasons {
        note(format_args!(
            "{count} log files are not vouched for and left out: {why} (the first: {first}); see `key-broker audit verify`"
        ));
    }
    unread.iter().for_each(name_unread);
    let left_out = (unvouched.len() + unread.len()) as u64;
    Ok(Believed { log_files: vouched, left_out, unread, closing_signs, data_keys, delivered })
}

fn name_unread(Unread { key, why, .. }: &Unread) {
    note(format_args!("{}: {}: it is left out", plain(key), plain(why)));
}

/// Log files, and how many are not among them.
pub(super) struct Believed {
    pub(super) log_files: Vec<VouchedLogFile>,
    /// Those that nobody vouches for, or that were altered or could not be read; and digests that could not be read.
    pub(super) left_out: u64,
    /// What could not be read.
    pub(super) unread: Vec<Unread>,
    /// The requestIDs of closing digests' signatures.
    pub(super) closing_signs: HashSet<String>,
    /// Those of log files' data keys.
    pub(super) data_keys: HashSet<String>,
    /// How many records of the journal are in log files.
    pub(super) delivered: u64,
}

impl Believed {
    /// Passes every record to `take`, with the name of its trail. Log files that are altered or that the store does not return are left out,
    /// and named.
    pub(super) async fn for_each_record(
        &mut self,
        source: &Source,
        mut take: impl FnMut(&str, &str) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let (mut progress, all) = (Progress::new(), self.log_files.len());
        for (done, file) in self.log_files.iter().enumerate() {
            progress.tell(|| format!("{done} of {all} log files"));
            let json = match file.read(&source.reader).await {
                Err(ReadFailure::Store(error)) if self.unread.len() < MOST_UNREAD => {
                    let (key, why) = (file.key().to_owned(), error.to_string());
                    let unread = Unread { key, why, times: file.times };
                    name_unread(&unread);
                    self.unread.push(unread);
                    None
                }
                read => usable(file, read)?,
            };
            let Some(json) = json else {
                self.left_out += 1;
                continue;
            };
            for record in records(&json) {
                let taken = record.map_err(|malformed| malformed.to_string());
                let taken = taken.and_then(|record| take(&file.trail, record));
                taken.map_err(|why| {
                    Failure::Unavailable(format!(
                        "{}: {why}: see `key-broker audit verify`",
                        plain(file.key())
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// The exit code of a command that has used all that is vouched for: another one where there was more.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.left_out == 0 { Exit::Done.into() } else { Exit::CannotTell.into() }
    }
}

/// The text of a log file; `None`, with a note, if it was altered.
pub(super) async fn read(source: &Source, file: &VouchedLogFile) -> Result<Option<Vec<u8>>, Failure> {
    usable(file, file.read(&source.reader).await)
}

fn usable(file: &VouchedLogFile, read: Result<Vec<u8>, ReadFailure>) -> Result<Option<Vec<u8>>, Failure> {
    match read {
        Ok(json) => Ok(Some(json)),
        Err(failure @ ReadFailure::Malformed(_)) => {
            note(format_args!(
                "{}: {failure}: it was altered since it was delivered, and is left out; see `key-broker audit verify`",
                plain(file.key())
            ));
            Ok(None)
        }
        Err(failure) => Err(Failure::Unavailable(format!("{}: {failure}", plain(file.key())))),
    }
}

/// The text of any log file, vouched for or not.
pub(super) async fn read_any(reader: &TrailReader, key: &str) -> Result<Vec<u8>, Failure> {
    match reader.log_file(key).await {
        Ok(Some(text)) => Ok(text),
        Ok(None) => {
            Err(Failure::Unavailable(format!("{key}: not in the store: see `key-broker audit verify`")))
        }
        Err(failure) => Err(Failure::Unavailable(format!("{key}: {failure}"))),
    }
}

/// The number of digests and log files that a store may fail to return before it counts as unreachable.
const MOST_UNREAD: usize = 20;
