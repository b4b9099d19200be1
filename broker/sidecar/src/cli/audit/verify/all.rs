//! `key-broker audit verify --all-trails`: a verdict for each trail of a bucket, and one for all.

use std::fmt::Write as _;
use std::fs;
use std::mem::take;
use std::path::PathBuf;
use std::time::Instant;

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::record::record_time;
use key_broker_trail::verify::{BucketReport, Report, Verdict, VerifyOptions, verify_all};
use serde_json::json;

use super::super::output::{Columns, plain, write, write_report};
use super::super::progress::Progress;
use super::super::saved::SavedTrails;
use super::super::source::Source;
use super::super::{CommandResult, Failure};
use super::page::Page;
use super::pictures::Counts;
use super::{counts_of, findings_of};
use crate::cli::exit::Exit;

/// The form of the verdict.
pub(super) struct Form {
    pub(super) is_json: bool,
    /// The file for the report as a page.
    pub(super) html: Option<PathBuf>,
    /// The file that notes which trails were found sound.
    pub(super) resume: Option<PathBuf>,
}

/// Verifies the trails of `source` that are `called` so.
pub(super) async fn run(
    source: &Source,
    called: &str,
    options: &VerifyOptions,
    in_flight: usize,
    form: Form,
) -> CommandResult {
    let (mut trails, mut failed, mut uses) = (Vec::new(), None, Counts::new());
    let (mut saved, earlier) = SavedTrails::open(form.resume)?;
    let (mut progress, mut done, began) = (Progress::new(), 0_u32, SystemClock.instant());
    let bucket =
        verify_all(&source.reader, called, options, in_flight, earlier, &mut |name, report, all, passed| {
            done += 1;
            saved.note(passed.as_ref());
            progress.tell(|| time_left(done, all, began));
            if form.html.is_some() || !form.is_json {
                let mut report = report.clone();
                for (of, counted) in take(&mut report.uses) {
                    *uses.entry(of).or_default() += counted;
                }
                trails.push((name.to_owned(), report));
            }
            if form.is_json && failed.is_none() {
                let line = format!("{}\n", json!({ "trail": name, "report": report }));
                failed = write(line.as_bytes()).err();
            }
        })
        .await;
    drop(progress);
    saved.end()?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    trails.sort_by(|one, other| one.0.cmp(&other.0));
    if let Some(file) = &form.html {
        let rows: Vec<_> = trails.iter().map(|(name, report)| row(name, report)).collect();
        let folder = &source.reader.names().log_folder();
        let page = Page { folder, head: &HEAD, rows: &rows, trails: &trails, bucket: &bucket, uses: &uses };
        let why = |error| Failure::Unavailable(format!("--html {}: {error}", file.display()));
        fs::write(file, page.to_html()).map_err(why)?;
    }
    let text =
        if form.is_json { format!("{}\n", json!({ "bucket": bucket })) } else { text_of(&trails, &bucket) };
    write_report(&text)?;
    let exit = match bucket.verdict {
        Verdict::Sound => Exit::Done,
        Verdict::Unsound => Exit::No,
        Verdict::CannotTell => Exit::CannotTell,
    };
    Ok(exit.into())
}

fn time_left(done: u32, all: usize, began: Instant) -> String {
    let left = u32::try_from(all).unwrap_or(u32::MAX).saturating_sub(done);
    let each = SystemClock.instant().saturating_duration_since(began) / done.max(1);
    format!("{done} of {all} trails, some {} s left", (each * left).as_secs())
}

fn text_of(trails: &[(String, Report)], bucket: &BucketReport) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(trails.iter().map(|(name, report)| row(name, report)));
    let mut text = Columns::table(&rows, HEAD.len() - NUMBERS);
    for (name, report) in trails.iter().filter(|(_, report)| !report.findings.is_empty()) {
        let _ = write!(text, "\nTrail {}:\n{}", plain(name), findings_of(&report.findings, &report.counts));
    }
    if !bucket.findings.is_empty() {
        let _ = write!(text, "\nThe bucket as a whole:\n{}", findings_of(&bucket.findings, &bucket.counts));
    }
    let _ = writeln!(
        text,
        "\n{}\n\n{}",
        counts_of(trails.len(), bucket),
        match bucket.verdict {
            Verdict::Sound =>
                "SOUND: every trail is what its broker delivered, and the bucket has nothing else",
            Verdict::Unsound => "NOT SOUND: see the trails, and the bucket as a whole",
            Verdict::CannotTell =>
                "CANNOT TELL: nothing wrong was found, but not everything could be checked",
        }
    );
    text
}

fn row(name: &str, report: &Report) -> Vec<String> {
    let time = |at: Option<_>| at.map_or_else(|| "-".to_owned(), record_time);
    let verdict = match report.verdict {
        Verdict::Sound => "sound",
        Verdict::Unsound => "NOT SOUND",
        Verdict::CannotTell => "cannot tell",
    };
    vec![
        plain(name),
        report.state.map_or_else(|| "-".to_owned(), |state| state.to_string()),
        verdict.to_owned(),
        time(report.from),
        time(report.to),
        report.digests.to_string(),
        report.log_files.to_string(),
        report.records.to_string(),
    ]
}

const HEAD: [&str; 8] = ["TRAIL", "STATE", "VERDICT", "FROM", "TO", "DIGESTS", "LOG FILES", "RECORDS"];
const NUMBERS: usize = 3;
