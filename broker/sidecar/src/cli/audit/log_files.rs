//! The log files of a trail that may be believed, in their order, and the records in them.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use key_broker_trail::{LogFiles, ReadFailure, TrailReader, VouchedLogFile, records};

use time::OffsetDateTime;

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
    let found =
        LogFiles::of(&source.reader, called, &keys, journal.as_deref(), (period.since, period.until)).await;
    let LogFiles { vouched, unvouched, of_others, closing_signs, data_keys, delivered } =
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
            "{count} log files are not vouched for, and left out: {why} (the first: {first}); `key-broker audit verify` tells more"
        ));
    }
    let (left_out, unread) = (unvouched.len() as u64, Vec::new());
    Ok(Believed { log_files: vouched, left_out, unread, closing_signs, data_keys, delivered })
}

/// Log files, and how many are not among them.
pub(super) struct Believed {
    pub(super) log_files: Vec<VouchedLogFile>,
    /// Those that nobody vouches for, or that are not what is vouched for.
    pub(super) left_out: u64,
    /// When the first and the last records happened of those that are vouched for, and cannot be read.
    pub(super) unread: Vec<OffsetDateTime>,
    /// The requestIDs of closing digests' signatures.
    pub(super) closing_signs: HashSet<String>,
    /// Those of log files' data keys.
    pub(super) data_keys: HashSet<String>,
    /// How many records of the journal are in log files.
    pub(super) delivered: u64,
}

impl Believed {
    /// Gives every record of them to `take`, with the name of its trail. A log file that is not what is vouched for, or that cannot be read
    /// while others can, is left out, and named: whoever can write into the store could keep a command from its end else.
    pub(super) async fn for_each_record(
        &mut self,
        source: &Source,
        mut take: impl FnMut(&str, &str) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let (mut progress, all) = (Progress::new(), self.log_files.len());
        let (mut good, mut failed) = (None, None);
        for (done, file) in self.log_files.iter().enumerate() {
            progress.tell(|| format!("{done} of {all} log files"));
            let taken = match file.read(&source.reader).await {
                Ok(json) => {
                    (good, failed) = (Some(file), None);
                    records(&json).try_for_each(|record| {
                        let record = record.map_err(|malformed| malformed.to_string())?;
                        take(&file.trail, record)
                    })
                }
                Err(failure @ ReadFailure::Malformed(_)) => {
                    Err(format!("{failure}: it was altered since it was delivered"))
                }
                Err(failure) => {
                    failed = Some(format!("{}: {failure}", plain(file.key())));
                    Err(failure.to_string())
                }
            };
            if let Err(why) = taken {
                let key = plain(file.key());
                note(format_args!("{key}: {why}, and is left out; `key-broker audit verify` tells more"));
                self.left_out += 1;
                self.unread.extend(file.times.into_iter().flatten());
            }
        }
        let Some(why) = failed else { return Ok(()) };
        // It is these alone, or neither the store nor KMS answers any more.
        let again = match good {
            Some(file) => file.read(&source.reader).await.is_ok(),
            None => false,
        };
        if again { Ok(()) } else { Err(Failure::Unavailable(why)) }
    }

    /// The exit code of a command that has used all that is vouched for: another one where there was more.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.left_out == 0 { Exit::Done.into() } else { Exit::CannotTell.into() }
    }
}

/// The text of a log file; none, with a note, where it is not what is vouched for.
pub(super) async fn read(source: &Source, file: &VouchedLogFile) -> Result<Option<Vec<u8>>, Failure> {
    match file.read(&source.reader).await {
        Ok(json) => Ok(Some(json)),
        Err(failure @ ReadFailure::Malformed(_)) => {
            note(format_args!(
                "{}: {failure}: it was altered since it was delivered, and is left out; `key-broker audit verify` tells more",
                plain(file.key())
            ));
            Ok(None)
        }
        Err(failure) => Err(Failure::Unavailable(format!("{}: {failure}", plain(file.key())))),
    }
}

/// The text of any log file, whoever vouches for it.
pub(super) async fn read_any(reader: &TrailReader, key: &str) -> Result<Vec<u8>, Failure> {
    match reader.log_file(key).await {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(Failure::Unavailable(format!(
            "{key}: not in the store: `key-broker audit verify` tells more"
        ))),
        Err(failure) => Err(Failure::Unavailable(format!("{key}: {failure}"))),
    }
}
