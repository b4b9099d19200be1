//! `key-broker audit verify`: one verdict, with its findings.

mod all;
mod markup;
mod page;
mod pictures;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser as _;
use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::record::record_time;
use key_broker_trail::verify::{
    BucketReport, Finding, FindingKind, Progress as VerifyProgress, Report, Severity, Verdict, VerifyOptions,
    verify,
};

use super::CommandResult;
use super::Failure;
use super::output::{plain, write_report};
use super::period::Period;
use super::progress::Progress;
use super::saved::Saved;
use super::source::SourceArguments;
use super::source::keys::SigningKey;
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    period: Period,
    /// The newest digest's signature, kept elsewhere (the broker logs it): it reveals that the newest digests were deleted
    #[arg(long, value_name = "HEX", value_parser = signature)]
    newest_signature: Option<String>,
    /// Leave out the broker's journal: verify only what was delivered
    #[arg(long)]
    no_journal: bool,
    /// Threads that read log files [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256).map(usize::from))]
    threads: Option<usize>,
    /// Continue where verification with this file ended or was interrupted, and note the progress there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "until"])]
    resume: Option<PathBuf>,
    /// Verify every trail of the bucket, and the bucket as a whole; with * in --trail, the trails that match
    #[arg(long, conflicts_with_all = ["newest_signature", "trail"])]
    all_trails: bool,
    /// For many trails, also write the verdict as a self-contained HTML page, with charts of how data keys were used
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How many trails to verify at a time
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 16)]
    in_flight: usize,
    /// Print JSON; for many trails, one line each as soon as it is judged
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit verify\n  \
    key-broker audit verify --config key-broker.toml --since 2026-11-01 --until 2026-11-30\n  \
    key-broker audit verify --store /mnt/trail --bucket logs --trail key-broker \\\n    \
    --account 111122223333 --region us-west-2 --public-key signing.pem\n  \
    key-broker audit verify --s3-bucket my-trail --account 111122223333 --region us-west-2 \\\n    \
    --all-trails --public-key signing.pem --resume verified.jsonl --html verdict.html";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments {
        period,
        newest_signature,
        no_journal,
        threads,
        resume,
        all_trails,
        html,
        in_flight,
        json,
        key,
        source,
    } = arguments;
    period.check()?;
    if all_trails || source.names_many() {
        let (source, called) = source.open_many(all_trails).await?;
        let keys = source.public_keys(&key).await?;
        let (from, to, now) = (period.since, period.until, Some(SystemClock.now()));
        let counts_uses = html.is_some();
        let options = VerifyOptions { keys, from, to, now, counts_uses, ..VerifyOptions::default() };
        let form = all::Form { is_json: json, html, resume };
        return all::run(&source, &called, &options, in_flight, form).await;
    }
    if html.is_some() {
        return Err(Failure::Configuration("--html is for --all-trails, or a --trail with * in it".into()));
    }
    let source = source.open().await?;
    let saved = Saved::open(resume, &source.reader.names().trail_arn())?;
    let resume = saved.point.clone();
    let options = VerifyOptions {
        keys: source.public_keys(&key).await?,
        from: period.since,
        to: period.until,
        now: Some(SystemClock.now()),
        newest_signature,
        journal_dir: source.journal_to_verify().filter(|_| !no_journal),
        threads,
        resume,
        counts_uses: false,
    };
    let (mut progress, mut saved, started) = (Progress::new(), saved, SystemClock.instant());
    let report = verify(&source.reader, &options, &mut |done| {
        progress.tell(|| so_far(done, SystemClock.instant().saturating_duration_since(started)));
        if let Some(point) = &done.resume {
            saved.note(point);
        }
    })
    .await;
    drop(progress);
    saved.end()?;
    let text = if json { format!("{:#}\n", serde_json::json!(report)) } else { text_of(&report) };
    write_report(&text)?;
    Ok(match report.verdict {
        Verdict::Sound => Exit::Done.into(),
        Verdict::Unsound => Exit::No.into(),
        Verdict::CannotTell => Exit::CannotTell.into(),
    })
}

/// How far it is, and how long the rest takes at the pace so far.
fn so_far(done: &VerifyProgress, took: Duration) -> String {
    let VerifyProgress { digests, digests_in_all, log_files, records, .. } = *done;
    let mut text = format!("{digests} of {digests_in_all} digests, {log_files} log files, {records} records");
    // The first digests say little.
    if digests >= 3 && took >= Duration::from_secs(3) {
        let left = took.as_secs().saturating_mul(digests_in_all.saturating_sub(digests)) / digests.max(1);
        let _ = write!(text, ", {}:{:02}:{:02} left", left / 3_600, left / 60 % 60, left % 60);
    }
    text
}

fn text_of(report: &Report) -> String {
    let mut text = String::new();
    add_findings(&mut text, report);
    let stretch = match (report.from, report.to) {
        (Some(from), Some(to)) => format!("From {} to {}: ", record_time(from), record_time(to)),
        _ => String::new(),
    };
    let Report { digests, log_files, records, kms_records, activity_records, .. } = report;
    let _ = writeln!(
        text,
        "{stretch}digests: {digests}, log files: {log_files}, records: {records}\n  \
         records of calls to KMS     {kms_records:>10}\n  \
         activity records            {activity_records:>10}\n  \
         not delivered yet           {:>10}\n  \
         KMS calls with all uses added up {:>5}",
        report.journal_records, report.keys_used
    );
    if let (Some(state), Some(to)) = (report.state, report.to) {
        let _ = writeln!(text, "The trail is {state}; its newest digest ends {}.", record_time(to));
    }
    if let Some(signature) = &report.newest_signature {
        let _ = writeln!(
            text,
            "The newest signature. Keep it for --newest-signature, out of reach of anybody who can delete digests:\n  {}",
            plain(signature)
        );
    }
    let _ = writeln!(text, "\n{}", verdict_of(report));
    text
}

fn add_findings(text: &mut String, report: &Report) {
    text.push_str(&findings_of(&report.findings, &report.counts));
    if !report.findings.is_empty() {
        text.push('\n');
    }
}

/// The number of trails with each verdict, and of objects read.
fn counts_of(trails: usize, bucket: &BucketReport) -> String {
    let of = |verdict| bucket.trails.get(&verdict).copied().unwrap_or_default();
    format!(
        "Trails: {trails}, sound: {}, not sound: {}, cannot tell: {}. Log files in the folder: {}, records: {}.",
        of(Verdict::Sound),
        of(Verdict::Unsound),
        of(Verdict::CannotTell),
        bucket.log_files,
        bucket.records,
    )
}

/// Findings, a place and words each, and how many more there are.
pub(super) fn findings_of(findings: &[Finding], counts: &BTreeMap<FindingKind, u64>) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(
            text,
            "{:<12} {}  {}\n             {}",
            severity_of(finding.severity),
            finding.kind,
            plain(&finding.place.to_string()),
            plain(&finding.words)
        );
    }
    for (kind, count) in counts {
        let kept = findings.iter().filter(|finding| finding.kind == *kind).count();
        let more = count.saturating_sub(kept as u64);
        if more > 0 {
            let _ = writeln!(text, "… and {more} more of {kind}");
        }
    }
    text
}

fn severity_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::CannotTell => "cannot tell",
        Severity::Unsound => "NOT SOUND",
    }
}

fn verdict_of(report: &Report) -> String {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    match report.verdict {
        Verdict::Sound if report.counts.contains_key(&FindingKind::ChainUnknown) => {
            "SOUND: nothing speaks against it, and no data key was used beyond its bounds; but older digests do not tell whether \
             records are missing between log files (see ChainUnknown)"
                .into()
        }
        Verdict::Sound => {
            "SOUND: this is what the broker delivered, all of it, and no data key was used beyond its bounds"
                .into()
        }
        Verdict::Unsound => format!(
            "NOT SOUND: the trail was tampered with, or something is wrong with its broker (findings: {})",
            count(Severity::Unsound)
        ),
        Verdict::CannotTell => format!(
            "CANNOT TELL: nothing wrong was found, but not everything could be checked (findings: {})",
            count(Severity::CannotTell)
        ),
    }
}

/// Hex, in lower case as digests have it.
fn signature(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() || hex::decode(&text).is_err() {
        return Err("a signature is hex, as the broker's log line \"digest delivered\" has it".into());
    }
    Ok(text)
}
