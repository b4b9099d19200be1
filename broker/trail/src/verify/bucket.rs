//! Verifies all trails in a folder. Each is verified by itself, many at a time, and every log file is checked against all of them. Each
//! object is read once, and what is remembered of a trail's records is dropped when the trail ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use time::{Duration, OffsetDateTime};
use tokio::task::JoinSet;

use super::earlier::{Holds, PassedTrail};
use super::finding::{Finding, FindingKind, Findings, Place, Report, TrailState, Verdict};
use super::stretch::Stretch;
use super::{Verification, VerifyOptions, oldest_start, resumed};
use crate::digest::Digest;
use crate::origin::Origin;
use crate::reader::{DigestKey, ReadFailure, TrailReader, digests_by_trail};
use crate::record::{optional_moment, parse_record_time, record_time};

/// The result of verifying all or some trails in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketReport {
    /// The number of trails by verdict.
    pub trails: BTreeMap<Verdict, u64>,
    /// The number of trails by state.
    pub states: BTreeMap<TrailState, u64>,
    /// The number of log files in the folder.
    pub log_files: u64,
    /// The number of records that were read.
    pub records: u64,
    /// Findings about the folder as a whole: objects that no trail names, or more than one.
    pub findings: Vec<Finding>,
    /// The number of findings by kind, including those not listed.
    pub counts: BTreeMap<FindingKind, u64>,
    /// The worst verdict.
    pub verdict: Verdict,
}

/// A summary of one trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrailSummary {
    /// The trail's name.
    pub name: String,
    /// The number of its digests.
    pub digests: u64,
    /// The start of the oldest digest.
    #[serde(serialize_with = "optional_moment::serialize")]
    pub from: Option<OffsetDateTime>,
    /// The end of the newest digest.
    #[serde(serialize_with = "optional_moment::serialize")]
    pub to: Option<OffsetDateTime>,
    /// Whether more digests are to be expected, according to the newest one, whose signature is not checked here.
    pub state: TrailState,
    /// The number of records up to the newest log file in the newest digest, if that has one.
    pub records: Option<u64>,
    /// The host on which the trail began.
    pub host: Option<String>,
    /// The pod there.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's node.
    pub node: Option<String>,
}

/// The trails named `called` in the folder of `reader`, with what their first and newest digests say about them, without verifying it.
pub async fn trails(
    reader: &TrailReader,
    called: &str,
    now: OffsetDateTime,
) -> Result<Vec<TrailSummary>, ReadFailure> {
    let mut summaries = Vec::new();
    for (name, digests) in digests_by_trail(reader, called).await?.0 {
        let (Some(oldest), Some(newest)) = (digests.first(), digests.last()) else { continue };
        let first = readable(reader, oldest).await?;
        let last = if oldest == newest { first.clone() } else { readable(reader, newest).await? };
        let own = first.as_ref().and_then(|digest| digest.key_broker.as_ref());
        let Origin { host, pod, namespace, node } =
            own.and_then(|own| own.origin.clone()).unwrap_or_default();
        let state =
            last.as_ref().map_or(TrailState::Open, |last| TrailState::of(last, newest.end, Some(now)));
        let chain = last.as_ref().and_then(|last| last.log_files.last()?.journal_chain.as_ref());
        summaries.push(TrailSummary {
            name,
            digests: digests.len() as u64,
            from: first.as_ref().and_then(|first| parse_record_time(&first.digest_start_time)),
            to: Some(newest.end),
            state,
            records: chain.map(|chain| chain.last_sequence),
            host,
            pod,
            namespace,
            node,
        });
    }
    Ok(summaries)
}

/// A digest; `None` if the object is not one.
async fn readable(reader: &TrailReader, digest: &DigestKey) -> Result<Option<Digest>, ReadFailure> {
    match reader.digest(&digest.key).await {
        Err(ReadFailure::Malformed(_)) => Ok(None),
        read => read,
    }
}

/// Verifies every trail in the folder of `reader` that is named `called` (`*` matches anything), `in_flight` at a time. Each is reported
/// as soon as it is verified: name, report, the number of trails in all, and what a later run need not read again. `earlier` is what an
/// earlier run reported so. If these are all trails over all time, every log file of the folder must be in exactly one digest.
pub async fn verify_all(
    reader: &TrailReader,
    called: &str,
    options: &VerifyOptions,
    in_flight: usize,
    earlier: Vec<PassedTrail>,
    told: &mut Told<'_>,
) -> BucketReport {
    let mut bucket = Bucket::default();
    // Listed before the digests, so that what is delivered meanwhile is in neither list.
    let listed = reader.log_file_keys().await;
    let (listed, (trails, others)) = match (listed, digests_by_trail(reader, called).await) {
        (Ok(listed), Ok(digests)) => (listed, digests),
        (Err(error), _) | (_, Err(error)) => {
            let place = Place::object(&reader.names().digest_folder());
            bucket.findings.cannot_tell(FindingKind::Unreadable, place, error.to_string());
            return bucket.conclude();
        }
    };
    let is_whole = called == "*" && options.from.is_none() && options.to.is_none();
    bucket.report.log_files = listed.len() as u64;
    let listed: Arc<HashSet<String>> = Arc::new(listed.into_iter().collect());
    if is_whole {
        bucket.unnamed.extend(listed.iter().cloned());
    }
    let mut earlier: HashMap<String, PassedTrail> =
        earlier.into_iter().map(|passed| (passed.trail_arn.clone(), passed)).collect();
    if trails.is_empty() {
        let place = Place::object(&reader.names().digest_folder());
        let words = format!("no digest of a trail called {called} is here: nothing vouches for anything");
        bucket.findings.cannot_tell(FindingKind::NoDigest, place, words);
    }
    let (all, mut waiting, mut running) = (trails.len(), trails.into_iter(), JoinSet::new());
    loop {
        while running.len() < in_flight.max(1)
            && let Some((name, digests)) = waiting.next()
        {
            let reader = reader.of(&name);
            let passed = earlier.remove(&reader.names().trail_arn());
            running.spawn(verify_one(reader, options.clone(), digests, passed, Arc::clone(&listed)));
        }
        let Some(judged) = running.join_next().await else { break };
        let Judged { reader, report, known, passed } = resumed(judged);
        bucket.add(&reader.names().trail, &report, known);
        told(&reader.names().trail, &report, all, passed);
    }
    if is_whole {
        bucket.judge_folder(reader, &others, options.now);
    }
    bucket.conclude()
}

struct Judged {
    reader: TrailReader,
    report: Report,
    /// The log files in its digests.
    known: HashSet<String>,
    passed: Option<PassedTrail>,
}

/// Called with each trail that is verified.
pub(super) type Told<'a> = dyn FnMut(&str, &Report, usize, Option<PassedTrail>) + Send + 'a;

async fn verify_one(
    reader: TrailReader,
    mut options: VerifyOptions,
    digests: Vec<DigestKey>,
    earlier: Option<PassedTrail>,
    listed: Arc<HashSet<String>>,
) -> Judged {
    let holds = match earlier.clone() {
        Some(passed) => passed.holds(&reader, &digests, &listed, &options).await,
        None => Holds::Nothing,
    };
    let mut known = match holds {
        Holds::Whole(report, known) => return Judged { reader, report: *report, known, passed: earlier },
        Holds::Until(point, known) => {
            (options.from, options.resume) = (Some(point.end()), Some(*point));
            known
        }
        Holds::Nothing => HashSet::new(),
    };
    let (report, passed) = {
        let mut quiet = |_: &super::Progress| {};
        let mut verification = Verification::new(&reader, &options, &mut quiet);
        verification.of_listed(&digests).await;
        known.extend(std::mem::take(&mut verification.known));
        let passed = PassedTrail::of(&verification, &digests);
        let report = verification.conclude();
        let passed = passed.and_then(|passed| passed.with(&report, &options));
        (report, passed)
    };
    Judged { reader, report, known, passed }
}

impl Verification<'_> {
    /// Verifies a trail whose digests are listed already, without the folder and the journal.
    async fn of_listed(&mut self, own: &[DigestKey]) {
        let VerifyOptions { from, to, .. } = *self.options;
        let stretch = Stretch::of(own, oldest_start(self.reader, self.options, own).await, from, to);
        self.digests(own, &stretch).await;
        self.check_keys();
        self.check_end(own);
        self.continuity.finish(self.reader.names(), &mut self.checker.findings);
    }
}

/// The state of the whole folder.
#[derive(Default)]
struct Bucket {
    report: BucketReport,
    findings: Findings,
    /// Log files that no trail has named so far, and those that one has.
    unnamed: HashSet<String>,
    named: HashSet<String>,
    /// The end of each trail's newest digest, and whether more digests are to be expected.
    ends: Vec<(String, OffsetDateTime, TrailState)>,
    worst: Option<Verdict>,
}

impl Bucket {
    fn add(&mut self, trail: &str, report: &Report, known: HashSet<String>) {
        *self.report.trails.entry(report.verdict).or_default() += 1;
        self.report.records += report.records;
        if let (Some(state), Some(to)) = (report.state, report.to) {
            *self.report.states.entry(state).or_default() += 1;
            self.ends.push((trail.to_owned(), to, state));
        }
        self.worst = Some(self.worst.map_or(report.verdict, |worst| worst.max(report.verdict)));
        for key in known {
            if let Some(key) = self.unnamed.take(&key) {
                self.named.insert(key);
            } else if self.named.contains(&key) {
                let words = format!("a digest of trail {trail} names it, and one of another trail");
                self.findings.unsound(FindingKind::LogFileTwice, Place::object(&key), words);
            }
        }
    }

    /// Judges log files that no trail names: planted by somebody, waiting for a digest, or left by a broker that was killed.
    fn judge_folder(&mut self, reader: &TrailReader, others: &[String], now: Option<OffsetDateTime>) {
        for key in others {
            let words = "no digest, but in their folder";
            self.findings.note(FindingKind::ForeignObject, Place::object(key), words);
        }
        let mut unnamed: Vec<String> = std::mem::take(&mut self.unnamed).into_iter().collect();
        unnamed.sort();
        for key in unnamed {
            let Some(minute) = reader.names().log_file_minute(&key) else {
                super::folder::foreign(&key, &mut self.findings);
                continue;
            };
            self.judge_unnamed(&key, minute, now);
        }
    }

    fn judge_unnamed(&mut self, key: &str, minute: OffsetDateTime, now: Option<OffsetDateTime>) {
        let (kind, place) = (FindingKind::LogFileUnreferenced, Place::object(key));
        let may_name = |(_, end, state): &&(String, OffsetDateTime, TrailState)| {
            *state != TrailState::Closed && minute.saturating_add(Duration::MINUTE) > *end
        };
        let candidates: Vec<_> = self.ends.iter().filter(may_name).collect();
        let Some((trail, end, state)) = candidates.first() else {
            let words = "in no digest of any trail: no broker vouches for it";
            return self.findings.unsound(kind, place, words);
        };
        let words = format!(
            "in no digest; it may be of trail {trail}, which is {state} since {}, or of one of {} others",
            record_time(*end),
            candidates.len() - 1
        );
        let waits = now.is_some_and(|now| now < minute + super::folder::LONGEST_WAIT);
        if waits {
            self.findings.note(kind, place, words);
        } else {
            self.findings.cannot_tell(kind, place, words);
        }
    }

    fn conclude(self) -> BucketReport {
        let Self { mut report, findings, worst, .. } = self;
        let mut whole = Report::default();
        findings.conclude(&mut whole);
        (report.findings, report.counts) = (whole.findings, whole.counts);
        report.verdict = worst.map_or(whole.verdict, |worst| worst.max(whole.verdict));
        report
    }
}
