//! `key-broker audit cat`: log files as they were before compression and encryption.

use std::process::ExitCode;

use key_broker_trail::record::ReadRecord;
use key_broker_trail::records;

use super::log_files::{keys, read};
use super::output::{note, write};
use super::period::Period;
use super::source::{Source, SourceArguments};
use super::{CommandResult, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Log files: their keys in the bucket, or their paths; all of the trail's unless told
    #[arg(value_name = "KEY", conflicts_with_all = ["since", "until"])]
    keys: Vec<String>,
    #[command(flatten)]
    period: Period,
    /// Print a record a line, instead of one {"Records":[…]}
    #[arg(long, visible_alias = "json")]
    records: bool,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit cat\n  \
    key-broker audit cat --since 2026-11-21 --records | jq 'select(.errorCode)'\n  \
    key-broker audit cat --store /mnt/trail --bucket logs --trail key-broker \\\n    \
    --account 111122223333 --region us-west-2";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { keys: named, period, records: as_lines, source } = arguments;
    period.check()?;
    let source = source.open().await?;
    let keys = if named.is_empty() {
        keys(&source.reader, &period).await?
    } else {
        named.iter().map(|key| key_of(&source, key)).collect()
    };
    if keys.is_empty() {
        note(format_args!(
            "no log files of this trail{}: what is not delivered yet is shown by `key-broker audit tail`",
            if period.is_all() { "" } else { " and time" }
        ));
    }
    let mut document = Document { as_lines, is_begun: false };
    let mut unread = 0_u64;
    for key in &keys {
        let shown = match read(&source.reader, key).await {
            Ok(text) => document.show(&text.json, key, &period),
            Err(failure) => Err(failure),
        };
        match shown {
            Ok(()) => {}
            // The others can be read all the same.
            Err(Failure::Unavailable(why)) => {
                note(why);
                unread += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
    document.end()?;
    match unread {
        0 => Ok(ExitCode::SUCCESS),
        n => Err(Failure::Unavailable(format!("{n} of {} log files could not be shown", keys.len()))),
    }
}

/// A key as it is in the bucket, out of a path or a `BUCKET/KEY`.
fn key_of(source: &Source, text: &str) -> String {
    let start = text.find(&source.reader.names().log_folder()).unwrap_or(0);
    text[start..].to_owned()
}

struct Document {
    as_lines: bool,
    is_begun: bool,
}

impl Document {
    fn show(&mut self, json: &[u8], key: &str, period: &Period) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(json.len());
        let mut outcome = Ok(());
        for record in records(json) {
            let record = match record {
                Ok(record) => record,
                Err(malformed) => {
                    outcome = Err(Failure::Unavailable(format!("{key}: {malformed}")));
                    break;
                }
            };
            if !period.is_all() && !is_within(record, period) {
                continue;
            }
            match (self.as_lines, std::mem::replace(&mut self.is_begun, true)) {
                (true, _) => {}
                (false, true) => out.push(b','),
                (false, false) => out.extend_from_slice(HEAD),
            }
            out.extend_from_slice(record.as_bytes());
            if self.as_lines {
                out.push(b'\n');
            }
        }
        write(&out)?;
        outcome
    }

    fn end(&self) -> Result<(), Failure> {
        match (self.as_lines, self.is_begun) {
            (true, _) => Ok(()),
            (false, true) => write(b"]}\n"),
            (false, false) => write(&[HEAD, b"]}\n"].concat()),
        }
    }
}

/// A record without a time is shown, so that it is not missed.
fn is_within(record: &str, period: &Period) -> bool {
    ReadRecord::parse(record).map_or(true, |record| period.has(record.event_time))
}

const HEAD: &[u8] = b"{\"Records\":[";
