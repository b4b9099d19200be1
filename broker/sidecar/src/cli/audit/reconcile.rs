//! `key-broker audit reconcile`: compares the trail with AWS CloudTrail.

mod call;
mod classes;
mod cloudtrail;
mod outcome;
mod principals;
mod range;
pub(super) mod reader_records;
mod reconciler;
mod siblings;
mod takings;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::TrailNames;
use key_broker_trail::record::{MalformedRecord, ReadRecord, UserIdentity};
use outcome::Match;
use range::Question;
use reader_records::ReaderRecords;
use reconciler::Reconciler;
use siblings::Siblings;
use takings::Takings;
use time::Duration;

use super::log_files::believed;
use super::output::{note, write_report};
use super::period::Period;
use super::progress::Progress;
use super::source::keys::SigningKey;
use super::source::{Source, SourceArguments};
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;
use crate::redaction::Digester;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files or folders of AWS CloudTrail's records: log files in any layout, as from `aws s3 sync`; the output of
    /// `aws cloudtrail lookup-events`; EventBridge events; arrays; one record a line. With gzip or without
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    cloudtrail: Vec<PathBuf>,
    /// The readers' records of their own KMS calls: their --record-to files; may be given more than once
    #[arg(long, value_name = "FILE", num_args = 1..)]
    reader_records: Vec<PathBuf>,
    /// The key with which the broker redacts encryption contexts [default: that of its configuration]
    #[arg(long, value_name = "FILE")]
    redaction_key: Option<PathBuf>,
    /// Another trail of this bucket whose broker shares the role; * stands for any characters; may be given more than once. Calls of an
    /// unexpected trail are named, and there is no verdict
    #[arg(long, value_name = "TRAIL", num_args = 1..)]
    expect: Vec<String>,
    /// How long a record may be in transit: newer ones may be missing on either side
    #[arg(long, value_name = "N", default_value_t = 15)]
    lag_minutes: u32,
    /// How many minutes KMS itself may take to apply everywhere that a key was taken away
    #[arg(long, value_name = "MINUTES", default_value_t = 5)]
    propagation: u32,
    #[command(flatten)]
    period: Period,
    /// Take every trail of the bucket together; with * in --trail, those that match
    #[arg(long, conflicts_with = "trail")]
    all_trails: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    aws s3 sync s3://my-cloudtrail/AWSLogs/111122223333/CloudTrail/us-west-2/2026/11/21 aws-trail\n  \
    key-broker audit reconcile --config key-broker.toml --cloudtrail aws-trail\n  \
    key-broker audit reconcile --cloudtrail aws-trail --reader-records ~/.local/state/key-broker/reader-records.jsonl\n\n\
    AWS's files are taken to be complete from the first to the last day that they have a record of in\n\
    the trail's regions; give --since and --until where they are not. A call counts as the broker's, in\n\
    any region, if AWS names a role of which the broker has had a session, or a user or an access key\n\
    with which it has called KMS: give each broker a role of its own. Records of readers explain only\n\
    what reading this trail takes, a Decrypt bound to it or a GetPublicKey of its signing key, and only\n\
    where they agree with AWS's.";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments {
        cloudtrail,
        reader_records,
        redaction_key,
        expect,
        lag_minutes,
        propagation,
        period,
        all_trails,
        key,
        source,
        json,
    } = arguments;
    period.check()?;
    let files = files(&cloudtrail)?;
    let readers = read_reader_records(&reader_records)?;
    let redaction_key = redaction_key.map(|file| read_redaction_key(&file)).transpose()?;
    let (source, called) = source.open_some(all_trails).await?;
    let question = Question {
        since: period.since,
        until: period.until,
        settled: SystemClock.now() - Duration::minutes(lag_minutes.into()),
        trail_arns: trail_arns(&source, called.as_deref()).await?,
    };
    let redaction_key = redaction_key.or_else(|| source.redaction_key.clone());
    let propagation = Duration::minutes(propagation.into());
    let mut takings = Takings::new(question.clone(), propagation, redaction_key.clone());
    // A file that cannot be read is named when it is read for the join.
    read_aws(&files, |_, _| {}, |record| takings.add_aws(record));
    let mut reconciler = Reconciler::new(readers).with_key(redaction_key);
    // A call at the edge of the time may have its two records on both sides of it.
    let around = period.widened(EDGE);
    let mut believed = believed(&source, called.as_deref(), &key, &around).await?;
    reconciler
        .add_named(std::mem::take(&mut believed.closing_signs), std::mem::take(&mut believed.data_keys));
    let added = believed.for_each_record(&source, |trail, record| {
        let record = ReadRecord::parse(record).map_err(|error| error.to_string())?;
        if reconciler.add_ours(&record) {
            takings.add_ours(trail, &record).map_err(|error| error.to_string())?;
        }
        Ok(())
    });
    added.await?;
    let taken = takings.finish(reconciler.keys());
    let mut add = |identity: &UserIdentity<'_>| reconciler.add_sibling(identity);
    let siblings = Siblings::read(&source, &key, &around, &expect, &mut add).await?;
    reconciler.set_siblings(siblings);
    reconciler.set_unread(&believed.unread);
    let name_it = |file: &Path, why: &str| note(format_args!("{}: {why}", file.display()));
    let unread = read_aws(&files, name_it, |record| reconciler.add_aws(record, &question));
    let mut outcome = reconciler.finish(&question);
    if unread > 0 {
        outcome.cannot_tell(format!("{unread} of AWS's files cannot be read"));
    }
    outcome.leave_out(believed.left_out);
    outcome.add_takings(taken);
    let text = if json { format!("{:#}\n", serde_json::json!(outcome)) } else { text::of(&outcome) };
    write_report(&text)?;
    Ok(match outcome.verdict {
        Match::Matched => Exit::Done.into(),
        Match::Unmatched => Exit::No.into(),
        Match::CannotTell => Exit::CannotTell.into(),
    })
}

/// The trails, as encryption contexts name them.
async fn trail_arns(source: &Source, called: Option<&str>) -> Result<BTreeSet<String>, Failure> {
    let names = source.reader.names();
    let Some(called) = called else { return Ok(BTreeSet::from([names.trail_arn()])) };
    let trails = source.reader.trail_names(called).await;
    let trails = trails.map_err(|error| Failure::Unavailable(error.to_string()))?;
    Ok(trails.into_iter().map(|trail| TrailNames { trail, ..names.clone() }.trail_arn()).collect())
}

fn read_redaction_key(file: &Path) -> Result<Digester, Failure> {
    Digester::with_key_in(file)
        .map_err(|error| Failure::Configuration(format!("--redaction-key {}: {error}", file.display())))
}

fn read_reader_records(files: &[PathBuf]) -> Result<ReaderRecords, Failure> {
    let mut readers = ReaderRecords::default();
    for file in files {
        let others = readers.add_file(file).map_err(|error| {
            Failure::Configuration(format!("--reader-records {}: {error}", file.display()))
        })?;
        if others > 0 {
            note(format_args!("{}: lines that are no records of KMS, passed over: {others}", file.display()));
        }
    }
    Ok(readers)
}

/// Gives every record of AWS's files to `take`. Files that cannot be read are given to `name_it`, and their number is returned.
fn read_aws(
    files: &[PathBuf],
    name_it: impl Fn(&Path, &str),
    mut take: impl FnMut(&str) -> Result<(), MalformedRecord>,
) -> u64 {
    let (mut unread, mut progress) = (0, Progress::new());
    for (done, file) in files.iter().enumerate() {
        progress.tell(|| format!("{done} of {} files of AWS's", files.len()));
        let mut malformed = None;
        let read = fs::read(file).map_err(|error| error.to_string()).and_then(|bytes| {
            let taken = cloudtrail::for_each_record(&bytes, |record| {
                if let Err(error) = take(record) {
                    malformed = Some(error.to_string());
                }
            });
            taken.map(drop).map_err(|error| error.to_string())
        });
        if let Some(why) = read.err().or(malformed) {
            name_it(file, &why);
            unread += 1;
        }
    }
    unread
}

/// All log files under the paths, each once.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let explain =
            |error: io::Error| Failure::Configuration(format!("--cloudtrail {}: {error}", path.display()));
        // A path that is not there was not meant.
        if path.metadata().map_err(explain)?.is_dir() {
            collect(path, &mut files).map_err(explain)?;
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(Failure::Configuration(
            "no .json, .json.gz or .jsonl files there: give CloudTrail's log files with --cloudtrail".into(),
        ));
    }
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            // They lie beside the log files, and hold other things.
            if !matches!(&*name, "CloudTrail-Digest" | "CloudTrail-Insight" | "CloudTrail-Aggregated") {
                collect(&path, files)?;
            }
        } else if [".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Longer than a call to KMS and the difference of two clocks.
const EDGE: Duration = Duration::minutes(5);
