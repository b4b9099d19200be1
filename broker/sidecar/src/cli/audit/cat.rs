//! `key-broker audit cat`: log files as they were before compression and encryption.

use key_broker_trail::record::ReadRecord;
use key_broker_trail::records;

use super::log_files::{believed, read, read_any};
use super::output::{note, write};
use super::period::Period;
use super::source::keys::SigningKey;
use super::source::{Source, SourceArguments};
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Log files, by key in the bucket or path, vouched for or not [default: all of the trail's that a signed digest vouches for]
    #[arg(value_name = "KEY", conflicts_with_all = ["since", "until"])]
    keys: Vec<String>,
    #[command(flatten)]
    period: Period,
    /// Print one record a line instead of one {"Records":[…]}
    #[arg(long, visible_alias = "json")]
    records: bool,
    #[command(flatten)]
    key: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit cat\n  \
    key-broker audit cat --since 2026-11-21 --records | jq 'select(.errorCode)'\n  \
    key-broker audit cat --store /mnt/trail --bucket logs --trail key-broker \\\n    \
    --account 111122223333 --region us-west-2 --public-key signing.pem";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { keys: named, period, records: as_lines, key, source } = arguments;
    period.check()?;
    let source = source.open().await?;
    let mut document = Document { as_lines, is_begun: false };
    if !named.is_empty() {
        return show_named(&source, &named, document).await;
    }
    let mut believed = believed(&source, None, &key, &period).await?;
    if believed.log_files.is_empty() {
        note(format_args!(
            "no log files of this trail{}: `key-broker audit tail` shows records that are not delivered yet",
            if period.is_all() { "" } else { " and time" }
        ));
    }
    let mut unread = 0_u64;
    for file in &believed.log_files {
        let shown = match read(&source, file).await {
            Ok(Some(json)) => document.show(&json, file.key(), &period),
            Ok(None) => {
                believed.left_out += 1;
                continue;
            }
            Err(failure) => Err(failure),
        };
        unread += u64::from(!is_shown(shown)?);
    }
    document.end()?;
    if unread > 0 {
        let all = believed.log_files.len();
        return Err(Failure::Unavailable(format!("{unread} of {all} log files could not be shown")));
    }
    Ok(believed.exit_code())
}

/// Shows log files, vouched for or not.
async fn show_named(source: &Source, named: &[String], mut document: Document) -> CommandResult {
    let mut unread = 0_u64;
    for key in named.iter().map(|key| key_of(source, key)) {
        let shown = match read_any(&source.reader, &key).await {
            Ok(text) => document.show(&text, &key, &Period::default()),
            Err(failure) => Err(failure),
        };
        unread += u64::from(!is_shown(shown)?);
    }
    if unread < named.len() as u64 {
        document.end()?;
    }
    match unread {
        0 => Ok(Exit::Done.into()),
        n => Err(Failure::Unavailable(format!("{n} of {} log files could not be shown", named.len()))),
    }
}

/// Whether it was shown. A failure does not affect the others.
fn is_shown(shown: Result<(), Failure>) -> Result<bool, Failure> {
    match shown {
        Ok(()) => Ok(true),
        Err(Failure::Unavailable(why)) => {
            note(why);
            Ok(false)
        }
        Err(failure) => Err(failure),
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
