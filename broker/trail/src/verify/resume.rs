//! Where a verification can continue after it was stopped, or when more digests have come.
//!
//! What is found in records depends on earlier records of at most a day, since no data key is older. So verification continues a day
//! and an hour before the point that it had reached, and reads that part again. Points are noted only as long as nothing was found:
//! if something was wrong, it is found again.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::digests::DigestLink;
use super::revocation::Promise;

/// A digest up to which everything was verified without a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumePoint {
    /// The trail's ARN.
    pub trail_arn: String,
    /// The digest's key, its SHA-256 and its signature, both in hex.
    pub(super) digest: String,
    pub(super) hash: String,
    pub(super) signature: String,
    /// The digest's end.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) end: OffsetDateTime,
    /// What was verified up to there.
    pub(super) passed: Passed,
}

/// How much was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Passed {
    /// The start of the first digest.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) from: Option<OffsetDateTime>,
    pub(super) digests: u64,
    pub(super) log_files: u64,
    pub(super) kms_records: u64,
    pub(super) activity_records: u64,
    /// The broker's promise about revoked keys at that point.
    #[serde(default)]
    pub(super) promise: Promise,
}

impl ResumePoint {
    /// Where verification continues.
    #[must_use]
    pub(super) fn end(&self) -> OffsetDateTime {
        self.end
    }
}

/// The digests of the last day, as possible points.
pub(super) struct ResumePoints {
    trail_arn: String,
    /// What earlier runs verified.
    before: Passed,
    points: VecDeque<ResumePoint>,
}

impl ResumePoints {
    pub(super) fn new(trail_arn: &str, resumed: Option<&ResumePoint>) -> Self {
        let before = resumed.map(|point| point.passed).unwrap_or_default();
        Self { trail_arn: trail_arn.to_owned(), before, points: resumed.cloned().into_iter().collect() }
    }

    /// What earlier runs verified.
    pub(super) fn before(&self) -> Passed {
        self.before
    }

    /// Notes that a digest and all its log files have been verified, and how much this run has verified by then.
    pub(super) fn pass(&mut self, digest: &DigestLink, end: OffsetDateTime, passed: Passed) {
        let Some((key, hash, signature)) = digest.parts() else { return };
        let Passed { from, digests, log_files, kms_records, activity_records, .. } = self.before;
        self.points.push_back(ResumePoint {
            trail_arn: self.trail_arn.clone(),
            digest: key.to_owned(),
            hash: hash.to_owned(),
            signature: signature.to_owned(),
            end,
            passed: Passed {
                from: from.or(passed.from),
                digests: digests + passed.digests,
                log_files: log_files + passed.log_files,
                kms_records: kms_records + passed.kms_records,
                activity_records: activity_records + passed.activity_records,
                promise: passed.promise,
            },
        });
        // The wanted point is the last one that is far enough back.
        while self.points.get(1).is_some_and(|second| second.end <= end - OVERLAP) {
            self.points.pop_front();
        }
    }

    /// Where a later run can continue; `None` while that is too early.
    pub(super) fn latest(&self) -> Option<&ResumePoint> {
        let newest = self.points.back()?.end;
        self.points.front().filter(|first| first.end <= newest - OVERLAP)
    }
}

/// Longer than any data key is cached and any call takes.
const OVERLAP: Duration = Duration::hours(25);
