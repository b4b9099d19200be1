//! `key-broker audit find`: the story of one call, and of the data key behind it.

mod search;
mod text;
mod wanted;

use std::path::Path;
use std::process::ExitCode;

use futures_util::{StreamExt as _, stream};
use key_broker_trail::journal::JournalSnapshot;
use key_broker_trail::{VouchedLogFile, records};
use serde::Serialize;
use serde_json::value::RawValue;

use super::log_files::{Believed, believed, read};
use super::output::{note, plain, write};
use super::period::Period;
use super::progress::Progress;
use super::source::keys::SigningKey;
use super::source::{Source, SourceArguments};
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;
use search::{Found, Records, Search, Story};
use wanted::Wanted;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A KMS requestID, the broker's request id (x-request-id), an eventID, a trace id or traceparent; or a data key's ciphertext, in
    /// base64, as `fileb://PATH` for a file of bytes, or its SHA-256 in hex
    #[arg(value_name = "ID", value_parser = wanted::parse)]
    id: Wanted,
    #[command(flatten)]
    period: Period,
    /// Search every trail of the bucket; with * in --trail, those that match
    #[arg(long, conflicts_with = "trail")]
    all_trails: bool,
    /// Print JSON, with the records unchanged
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit find c929ebc7-094a-4ee5-839d-975205113c0f\n  \
    key-broker audit find 4bf92f3577b34da6a3ce929d0e0e4736 --since 2026-11-21\n  \
    key-broker audit find fileb://ciphertext.bin --json | jq '.dataKeys[].uses[].record.userIdentity.principalId'\n  \
    key-broker audit find c929ebc7-094a-4ee5-839d-975205113c0f --s3-bucket my-trail \\\n    \
    --account 111122223333 --region us-west-2 --all-trails --public-key signing.pem";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { id, period, all_trails, json, key, source } = arguments;
    period.check()?;
    let mut places = Places::default();
    if let Some(dir) = source.journal_without_trail()? {
        places.add_journal(&dir);
    } else {
        let (source, called) = source.open_some(all_trails).await?;
        // The journal before the log files: records delivered meanwhile are seen twice rather than never.
        if let Some(dir) = source.journal_to_verify() {
            places.add_journal(&dir);
        }
        let believed = believed(&source, called.as_deref(), &key, &period).await?;
        places.add_trail(source, believed);
    }
    let mut search = Search::new(id.clone(), period, places.times());
    places.look(&mut search).await?;
    let report = Report { id, story: search.story(), places };
    let text = if json { report.json()? + "\n" } else { text::of(&report) };
    write(text.as_bytes())?;
    Ok(report.verdict().exit_code())
}

/// The places to search: files of the journal, then log files.
#[derive(Default)]
struct Places {
    journal: Option<JournalSnapshot>,
    source: Option<Source>,
    log_files: Vec<VouchedLogFile>,
    /// How many records of the journal are in log files.
    delivered: u64,
    /// Log files that were not looked at, or not believed; and whether the journal was not.
    left_out: u64,
    is_journal_left_out: bool,
}

impl Places {
    fn add_journal(&mut self, dir: &Path) {
        match JournalSnapshot::try_from(dir) {
            Ok(journal) => self.journal = Some(journal),
            Err(error) => self.leave_journal_out(&format!("{}: {error}", dir.display())),
        }
    }

    fn add_trail(&mut self, source: Source, believed: Believed) {
        let Believed { log_files, left_out, delivered, .. } = believed;
        (self.source, self.log_files, self.left_out, self.delivered) =
            (Some(source), log_files, left_out, delivered);
    }

    fn in_journal(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.files)
    }

    fn times(&self) -> Vec<search::Times> {
        let journal = std::iter::repeat_n([None, None], self.in_journal());
        journal.chain(self.log_files.iter().map(|file| file.times)).collect()
    }

    /// Reads them, again as long as new ids are found.
    async fn look(&mut self, search: &mut Search) -> Result<(), Failure> {
        let mut progress = Progress::new();
        for pass in 1.. {
            let due = search.next_pass();
            if due.is_empty() {
                break;
            }
            let (in_journal, all) = (self.in_journal(), due.len());
            let (of_journal, of_trail): (Vec<_>, Vec<_>) =
                due.into_iter().partition(|place| *place < in_journal);
            for place in of_journal {
                self.look_into_journal(search, place)?;
            }
            let (files, source) = (&self.log_files, self.source.as_ref());
            let texts = stream::iter(of_trail).map(move |place| async move {
                let file = &files[place - in_journal];
                let text = match source {
                    Some(source) => read(source, file).await,
                    None => Ok(None),
                };
                (place, text)
            });
            let mut texts = std::pin::pin!(texts.buffered(AT_A_TIME));
            let (mut done, mut left_out) = (0, 0);
            while let Some((place, text)) = texts.next().await {
                done += 1;
                let again = if pass == 1 { "" } else { ", once more for what was found" };
                progress.tell(|| format!("{done} of {all} files{again}"));
                let Some(text) = text? else {
                    search.leave_out(place);
                    left_out += 1;
                    continue;
                };
                let key = files[place - in_journal].key();
                take(search, place, &text).map_err(|why| malformed(key, &why))?;
            }
            self.left_out += left_out;
        }
        Ok(())
    }

    fn look_into_journal(&mut self, search: &mut Search, place: usize) -> Result<(), Failure> {
        let Some(journal) = &self.journal else { return Ok(()) };
        match journal.records(place, self.delivered) {
            Ok(records) => {
                let records: Vec<&str> = records.iter().map(String::as_str).collect();
                search.take(place, &records).map_err(|why| malformed("the journal", &why))
            }
            Err(error) => {
                search.leave_out(place);
                self.leave_journal_out(&error.to_string());
                Ok(())
            }
        }
    }

    fn leave_journal_out(&mut self, why: &str) {
        note(format_args!("the journal is left out: {why}; undelivered records are not searched"));
        self.is_journal_left_out = true;
    }

    /// The log file; none for the journal.
    fn log_file(&self, found: &Found) -> Option<&VouchedLogFile> {
        self.log_files.get(found.place.checked_sub(self.in_journal())?)
    }

    fn is_signed(&self, found: &Found) -> bool {
        self.log_file(found).is_some_and(|file| file.is_signed)
    }
}

fn take(search: &mut Search, place: usize, text: &[u8]) -> Result<(), String> {
    if !search.concerns(text) {
        return search.take(place, &[]);
    }
    let records: Result<Vec<&str>, _> = records(text).collect();
    search.take(place, &records.map_err(|malformed| malformed.to_string())?)
}

fn malformed(place: &str, why: &str) -> Failure {
    Failure::Unavailable(format!("{}: {why}: see `key-broker audit verify`", plain(place)))
}

/// Whether the result can be trusted, and is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Signed digests name all of it.
    Vouched,
    /// No signed digest names some of it yet: it is the broker's own word.
    NotYet,
    /// Something could not be looked at, or is not believed.
    CannotTell,
    /// Everything was looked at, and there is nothing.
    NotFound,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Vouched => "vouched",
            Self::NotYet => "notYet",
            Self::CannotTell => "cannotTell",
            Self::NotFound => "notFound",
        }
    }

    fn exit_code(self) -> ExitCode {
        match self {
            Self::Vouched | Self::NotYet => Exit::Done,
            Self::CannotTell => Exit::CannotTell,
            Self::NotFound => Exit::No,
        }
        .into()
    }
}

struct Report {
    id: Wanted,
    story: Story,
    places: Places,
}

impl Report {
    fn all(&self) -> impl Iterator<Item = &Records> {
        let keys = self.story.data_keys.iter().flat_map(|key| [&key.kms_records, &key.uses]);
        keys.chain([&self.story.calls])
    }

    /// The number of records.
    fn in_all(&self) -> u64 {
        self.all().map(|records| records.in_all).sum()
    }

    /// The number of shown records that no signed digest covers.
    fn unsigned(&self) -> usize {
        let shown = self.all().flat_map(|records| &records.kept);
        shown.filter(|found| !self.places.is_signed(found)).count()
    }

    fn verdict(&self) -> Verdict {
        let is_whole = self.places.left_out == 0 && !self.places.is_journal_left_out;
        match (is_whole, self.in_all(), self.unsigned()) {
            (false, _, _) => Verdict::CannotTell,
            (true, 0, _) => Verdict::NotFound,
            (true, _, 0) => Verdict::Vouched,
            (true, _, _) => Verdict::NotYet,
        }
    }

    /// All of it, for programs.
    fn json(&self) -> Result<String, Failure> {
        let story = &self.story;
        let data_keys = story.data_keys.iter().map(|key| {
            Ok(DataKeyJson {
                ciphertext_sha256: key.ciphertext_sha256.as_deref(),
                kms_records: self.entries(&key.kms_records)?,
                kms_records_in_all: key.kms_records.in_all,
                other_uses: self.entries(&key.uses)?,
                other_uses_in_all: key.uses.in_all,
            })
        });
        let data_keys: Result<Vec<_>, serde_json::Error> = data_keys.collect();
        let whole = |data_keys| {
            serde_json::to_string_pretty(&ReportJson {
                id: self.id.text(),
                verdict: self.verdict().name(),
                calls: self.entries(&story.calls)?,
                calls_in_all: story.calls.in_all,
                data_keys,
                more_data_keys: story.is_cut,
                records_in_all: self.in_all(),
                not_in_a_signed_digest: self.unsigned(),
                log_files_left_out: self.places.left_out,
                journal_left_out: self.places.is_journal_left_out,
            })
        };
        data_keys.and_then(whole).map_err(|error| malformed("a record", &error.to_string()))
    }

    fn entries<'a>(&'a self, records: &'a Records) -> Result<Vec<Entry<'a>>, serde_json::Error> {
        records.kept.iter().map(|found| self.entry(found)).collect()
    }

    /// A record, and where it is.
    fn entry<'a>(&'a self, found: &'a Found) -> Result<Entry<'a>, serde_json::Error> {
        let log_file = self.places.log_file(found).map(VouchedLogFile::key);
        let vouched_for_by = if self.places.is_signed(found) { "digest" } else { "broker" };
        Ok(Entry { log_file, vouched_for_by, record: serde_json::from_str(&found.json)? })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportJson<'a> {
    id: &'a str,
    verdict: &'static str,
    calls: Vec<Entry<'a>>,
    calls_in_all: u64,
    data_keys: Vec<DataKeyJson<'a>>,
    more_data_keys: bool,
    records_in_all: u64,
    not_in_a_signed_digest: usize,
    log_files_left_out: u64,
    journal_left_out: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataKeyJson<'a> {
    #[serde(rename = "ciphertextBlobSHA256")]
    ciphertext_sha256: Option<&'a str>,
    kms_records: Vec<Entry<'a>>,
    kms_records_in_all: u64,
    other_uses: Vec<Entry<'a>>,
    other_uses_in_all: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    log_file: Option<&'a str>,
    vouched_for_by: &'static str,
    /// As it is.
    record: &'a RawValue,
}

/// Log files that are fetched, and decrypted, at a time.
const AT_A_TIME: usize = 8;
