//! Verifies that a trail, or a period of it, is what the broker delivered, and that the broker kept its promises. It checks every
//! digest, signature and hash; what `aws cloudtrail validate-logs` leaves out (the hash of the previous digest, log files in no
//! digest, the records themselves); the journal's tail; and the bounds of reuse, recomputed from the records alone.
//!
//! Only a few objects are in memory at a time (`ahead.rs`). docs/audit.md explains every finding.

mod ahead;
mod bucket;
mod checker;
mod continuity;
mod digests;
mod earlier;
mod finding;
mod folder;
#[cfg(test)]
pub(crate) mod forge;
mod ids;
mod limits;
mod log_file;
mod materials;
mod newest;
mod ranges;
mod recent;
mod record;
mod resume;
mod reuse;
mod revocation;
mod stretch;
mod tail;
mod trail_state;
mod uses;

use std::collections::HashSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;

use futures_util::StreamExt as _;
use time::OffsetDateTime;

pub use self::{
    bucket::{BucketReport, TrailSummary, trails, verify_all},
    earlier::PassedTrail,
    finding::{Finding, FindingKind, Place, Report, Severity, TrailState, Verdict},
    resume::ResumePoint,
    uses::Uses,
};
use super::digest::LogFile;
use super::format_version::newer;
use super::reader::{DigestFile, DigestKey, DigestKeys, ReadFailure, TrailReader};
use super::record::record_time;
use super::signature::PublicKey;
use ahead::{Ahead, Step};
use checker::Checker;
use continuity::Continuity;
use digests::{Before, DigestLink, LinkContext};
use folder::Folder;
use log_file::ReadLogFile;
use resume::{Passed, ResumePoints};
use stretch::Stretch;

/// What to verify, and with which evidence.
#[derive(Clone, Default)]
pub struct VerifyOptions {
    /// The public keys that verify digests: more than one if the signing key was changed.
    pub keys: Vec<PublicKey>,
    /// Only digests that end after this.
    pub from: Option<OffsetDateTime>,
    /// Only digests that start before this; then the journal is left out.
    pub to: Option<OffsetDateTime>,
    /// The current time, up to which log files may still wait for another trail's next digest. Without it, none may wait.
    pub now: Option<OffsetDateTime>,
    /// The newest signature, in hex, as kept elsewhere: it reveals that the newest digests were deleted.
    pub newest_signature: Option<String>,
    /// The broker's journal, for records that are not delivered yet.
    pub journal_dir: Option<PathBuf>,
    /// The number of threads that read log files; `None` for one per processor.
    pub threads: Option<usize>,
    /// The point at which to continue an earlier run.
    pub resume: Option<ResumePoint>,
    /// Whether to count uses, which takes some time for each record.
    pub counts_uses: bool,
}

/// How far verification has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Digests whose log files have been read.
    pub digests: u64,
    /// Digests to be read in all.
    pub digests_in_all: u64,
    /// Log files that have been read.
    pub log_files: u64,
    /// Records that have been read.
    pub records: u64,
    /// Where a later run can continue if this one is stopped now.
    pub resume: Option<ResumePoint>,
}

/// Verifies a trail.
pub async fn verify(
    reader: &TrailReader,
    options: &VerifyOptions,
    progress: &mut (dyn FnMut(&Progress) + Send),
) -> Report {
    let from = options.resume.as_ref().map(ResumePoint::end).or(options.from);
    let options = VerifyOptions { from, ..options.clone() };
    let mut verification = Verification::new(reader, &options, progress);
    verification.run().await;
    verification.conclude()
}

struct Verification<'a> {
    reader: &'a TrailReader,
    options: &'a VerifyOptions,
    progress: &'a mut (dyn FnMut(&Progress) + Send),
    done: Progress,
    checker: Checker,
    report: Report,
    before: Before,
    continuity: Continuity,
    /// Log files that digests name, or that wait for a digest.
    known: HashSet<String>,
    /// The number of digests signed with a given key.
    vouched: u64,
    kept_is_found: bool,
    /// The ends of digests that the store did not return.
    unread: Vec<OffsetDateTime>,
    /// Whether everything that should exist could be read.
    is_complete: bool,
    /// Where verification begins, if the trail began earlier.
    from: Option<i64>,
    /// Where a later run could continue.
    points: ResumePoints,
}

impl<'a> Verification<'a> {
    fn new(
        reader: &'a TrailReader,
        options: &'a VerifyOptions,
        progress: &'a mut (dyn FnMut(&Progress) + Send),
    ) -> Self {
        let points = ResumePoints::new(&reader.names().trail_arn(), options.resume.as_ref());
        Self {
            reader,
            options,
            progress,
            done: Progress::default(),
            checker: Checker::new(&reader.names().account_id, points.before().promise),
            report: Report::default(),
            before: Before::Nothing,
            continuity: Continuity::default(),
            known: HashSet::new(),
            vouched: 0,
            kept_is_found: false,
            unread: Vec::new(),
            is_complete: true,
            from: None,
            points,
        }
    }

    async fn run(&mut self) {
        let names = self.reader.names();
        // Listed before the digests, so that what is delivered meanwhile is in neither list.
        let log_files = self.reader.log_file_keys().await;
        let (log_files, digests) = match (log_files, self.reader.digest_keys().await) {
            (Ok(log_files), Ok(digests)) => (log_files, digests),
            (Err(error), _) | (_, Err(error)) => {
                let place = Place::object(&names.digest_folder());
                return self.checker.findings.cannot_tell(FindingKind::Unreadable, place, error.to_string());
            }
        };
        let DigestKeys { own, others } = digests;
        let VerifyOptions { from, to, .. } = *self.options;
        let stretch = Stretch::of(&own, oldest_start(self.reader, self.options, &own).await, from, to);
        self.digests(&own, &stretch).await;
        let waiting_is_known = self.tail(&own).await;
        self.check_keys();
        self.check_newest(&stretch).await;
        if !waiting_is_known {
            self.check_end(&own);
        }
        let folder = Folder {
            reader: self.reader,
            options: self.options,
            listed: &log_files,
            known: &self.known,
            own: &own,
            around: &stretch,
            others: &others,
            unread: &self.unread,
            waiting_is_known,
        };
        folder.check(&mut self.checker.findings).await;
        self.continuity.finish(names, &mut self.checker.findings);
    }

    fn conclude(self) -> Report {
        let Self { checker, mut report, is_complete, from, points, .. } = self;
        checker.finish(is_complete, from, &mut report);
        let Passed { from, digests, log_files, kms_records, activity_records, .. } = points.before();
        report.from = from.or(report.from);
        report.digests += digests;
        report.log_files += log_files;
        report.kms_records += kms_records;
        report.activity_records += activity_records;
        report.records += kms_records + activity_records;
        report
    }

    /// Verifies the digests of the period in order.
    async fn digests(&mut self, listed: &[DigestKey], stretch: &Stretch<'_>) {
        let chosen = stretch.chosen;
        self.done.digests_in_all = chosen.len() as u64;
        if let Some(before) = stretch.before.last() {
            self.before = match self.reader.digest_file(&before.key).await {
                Ok(Some(file)) => {
                    self.continuity.comes_after(&file.digest);
                    Before::Digest(DigestLink::of(&file))
                }
                _ => Before::Unreadable(before.key.clone()),
            };
            self.check_resumed();
            self.from = Some(before.end.unix_timestamp());
        }
        if chosen.is_empty() {
            let place = Place::object(&self.reader.names().digest_folder());
            let words = match (listed.first(), listed.last()) {
                (Some(first), Some(last)) => format!(
                    "no digest of this trail is of this time, so nothing vouches for anything: its oldest digest ends {}, its newest {}",
                    record_time(first.end),
                    record_time(last.end)
                ),
                _ => "no digest of this trail is here: nothing vouches for anything".to_owned(),
            };
            self.checker.findings.cannot_tell(FindingKind::NoDigest, place, words);
        }
        self.read_digests(chosen, listed).await;
    }

    /// Reads digests and their log files ahead, and verifies them in order.
    async fn read_digests(&mut self, chosen: &[DigestKey], listed: &[DigestKey]) {
        let ahead = self.ahead();
        let mut steps = pin!(ahead.digests(chosen));
        while let Some(step) = steps.next().await {
            match step {
                Step::Digest(named, read) => {
                    self.pass();
                    self.digest(&named, read, listed);
                }
                Step::LogFile(entry, read) => self.log_file(&entry, read),
            }
            (self.progress)(&self.done);
        }
        self.pass();
        (self.progress)(&self.done);
    }

    /// Notes that a digest and all its log files have been verified.
    fn pass(&mut self) {
        let (kms_records, activity_records) = self.checker.counts();
        self.done.records = kms_records + activity_records;
        let (Before::Digest(digest), Some(end)) = (&self.before, self.report.to) else { return };
        let Report { digests, log_files, from, .. } = self.report;
        let promise = self.checker.promise();
        let passed = Passed { from, digests, log_files, kms_records, activity_records, promise };
        self.points.pass(digest, end, passed);
        let is_sound = self.is_complete && self.checker.findings.is_sound_so_far();
        self.done.resume = self.points.latest().filter(|_| is_sound).cloned();
    }

    /// Verifies log files that are in no digest yet.
    async fn read_log_files(&mut self, entries: Vec<LogFile>) {
        let ahead = self.ahead();
        let mut steps = pin!(ahead.log_files(entries));
        while let Some(step) = steps.next().await {
            if let Step::LogFile(entry, read) = step {
                self.log_file(&entry, read);
            }
        }
    }

    fn ahead(&self) -> Ahead<'a> {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = self.options.threads.unwrap_or_else(processors);
        Ahead::new(self.reader, self.checker.hashes(), threads, self.options.counts_uses)
    }

    fn digest(
        &mut self,
        named: &DigestKey,
        read: Result<Option<Box<DigestFile>>, ReadFailure>,
        listed: &[DigestKey],
    ) {
        let findings = &mut self.checker.findings;
        let place = Place::object(&named.key);
        self.before = match read {
            Ok(Some(file)) => {
                let around = LinkContext {
                    names: self.reader.names(),
                    before: &self.before,
                    listed,
                    from: self.options.from,
                };
                digests::check_content(&file, named, self.reader.names(), findings);
                digests::check_signature(&file, &self.options.keys, findings);
                self.vouched += u64::from(file.is_signed(&self.options.keys));
                let findings = &mut self.checker.findings;
                digests::check_link(&file, &around, findings);
                self.note_digest(&file, named);
                self.contents(&file);
                Before::Digest(DigestLink::of(&file))
            }
            other => {
                match other {
                    Err(failure @ ReadFailure::Malformed(_)) => {
                        findings.unsound(FindingKind::DigestMalformed, place, failure.to_string());
                    }
                    Err(failure) => {
                        findings.cannot_tell(FindingKind::Unreadable, place, failure.to_string());
                        self.unread.push(named.end);
                    }
                    Ok(_) => findings.unsound(FindingKind::DigestMissing, place, "it was removed just now"),
                }
                self.is_complete = false;
                self.continuity.begin_anew();
                Before::Unreadable(named.key.clone())
            }
        };
        self.done.digests += 1;
    }

    /// Checks that the digest after which an earlier run stopped is still the same.
    fn check_resumed(&mut self) {
        let Some(point) = &self.options.resume else { return };
        let is_same = matches!(&self.before, Before::Digest(known) if known.is(&point.digest, &point.hash, &point.signature));
        if !is_same {
            let words = "verifying goes on after this digest, and it is another one now, or gone: what was verified before is not what is here";
            let place = Place::object(&point.digest);
            self.checker.findings.unsound(FindingKind::NewestMissing, place, words);
        }
    }

    /// Handles a digest's claims about the log files that follow it.
    fn contents(&mut self, file: &DigestFile) {
        match file.newer_version() {
            Some(version) => self.pass_over(file, version),
            None if file.digest.previous_digest_s3_object.is_none() => {
                self.continuity.begin();
                self.checker.begin_trail();
            }
            None => {}
        }
    }

    /// Skips a digest of a later format, since this program cannot read its log files.
    fn pass_over(&mut self, file: &DigestFile, version: u32) {
        let findings = &mut self.checker.findings;
        findings.cannot_tell(FindingKind::NewerFormat, Place::object(&file.key), newer(version));
        self.known.extend(file.digest.log_files.iter().map(|entry| entry.s3_object.clone()));
        self.is_complete = false;
        self.continuity.begin_anew();
    }

    fn note_digest(&mut self, file: &DigestFile, named: &DigestKey) {
        let start = ids::seconds(&file.digest.digest_start_time).unwrap_or_default();
        if matches!(self.before, Before::Nothing) && file.digest.previous_digest_s3_object.is_some() {
            self.is_complete = false;
            self.from = Some(start);
        }
        let start = OffsetDateTime::from_unix_timestamp(start).unwrap_or(named.end);
        self.report.digests += 1;
        self.report.from = self.report.from.or(Some(start));
        self.report.to = Some(named.end);
        self.report.newest_signature.clone_from(&file.signature);
        let state = TrailState::of(&file.digest, named.end, self.options.now);
        self.report.state = Some(state).filter(|_| self.options.to.is_none());
        let kept = self.options.newest_signature.as_deref();
        self.kept_is_found |= kept.is_some() && kept == file.signature.as_deref();
    }

    /// Verifies a log file that is in a digest, or waits for one.
    fn log_file(&mut self, entry: &LogFile, read: Result<Option<ReadLogFile>, ReadFailure>) {
        self.continuity.log_file(entry, &mut self.checker.findings);
        if !self.known.insert(entry.s3_object.clone()) {
            let words = "a digest names it that was named before";
            let place = Place::object(&entry.s3_object);
            return self.checker.findings.unsound(FindingKind::LogFileTwice, place, words);
        }
        if let Some(read) = self.readable(&entry.s3_object, read) {
            self.checker.log_file(&entry.s3_object, read);
            self.report.log_files += 1;
            self.done.log_files += 1;
        }
    }

    /// The contents of a log file, or else a finding.
    fn readable(&mut self, key: &str, read: Result<Option<ReadLogFile>, ReadFailure>) -> Option<ReadLogFile> {
        let place = Place::object(key);
        let findings = &mut self.checker.findings;
        match read {
            Ok(Some(read)) => return Some(read),
            Ok(None) => {
                findings.unsound(
                    FindingKind::LogFileMissing,
                    place,
                    "a digest names it, but it is not there",
                );
            }
            Err(failure @ ReadFailure::Malformed(_)) => {
                findings.unsound(
                    FindingKind::LogFileMalformed,
                    place,
                    format!("{failure}: {LOG_FILE_MALFORMED}"),
                );
            }
            Err(failure @ ReadFailure::Locked(_)) => {
                findings.cannot_tell(FindingKind::Locked, place, failure.to_string());
            }
            Err(failure @ ReadFailure::Store(_)) => {
                findings.cannot_tell(FindingKind::Unreadable, place, failure.to_string());
            }
        }
        self.is_complete = false;
        None
    }

    /// Reports a trail of which no digest is signed with any of the given keys.
    fn check_keys(&mut self) {
        if self.options.keys.is_empty() || self.report.digests == 0 || self.vouched > 0 {
            return;
        }
        let place = Place::object(&self.reader.names().digest_folder());
        let words = "not one digest is signed with a key that was given: this trail is another's, or was written anew by somebody else";
        self.checker.findings.unsound(FindingKind::DigestOtherKey, place, words);
    }

    /// Reports whether the trail has ended. Its journal, if it was read, tells more.
    fn check_end(&mut self, own: &[DigestKey]) {
        let (Some(state), Some(newest)) = (self.report.state, own.last()) else { return };
        state.tell(&newest.key, newest.end, &mut self.checker.findings);
    }
}

const LOG_FILE_MALFORMED: &str = "it was changed, damaged or moved after it was delivered, so nothing in it counts. Keep it as evidence, \
                                  and look for what was delivered: an older version of the object, or a copy";

fn resumed<T>(done: Result<T, tokio::task::JoinError>) -> T {
    // The work is never aborted, so a failure is a panic, which continues here.
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests;

/// The start of the oldest digest, if the period needs it.
async fn oldest_start(
    reader: &TrailReader,
    options: &VerifyOptions,
    listed: &[DigestKey],
) -> Option<OffsetDateTime> {
    options.to?;
    let oldest = reader.digest(&listed.first()?.key).await.ok()??;
    OffsetDateTime::from_unix_timestamp(ids::seconds(&oldest.digest_start_time)?).ok()
}
