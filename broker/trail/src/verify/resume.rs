//! Where verifying can go on after it was stopped, or when more has come.
//!
//! What is found in records depends on those before them for a day at most: no data key is older. So verifying goes on a day and an hour
//! before where it got to, and what lies there is read once more. What was found before is noted only while that is nothing: where
//! something was wrong, it is found again.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::digests::DigestLink;
use super::revocation::Promise;

/// A digest up to which everything was looked at, and nothing was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumePoint {
    /// The trail.
    pub trail_arn: String,
    /// The digest's key in the bucket, the SHA-256 of it, and its signature, both in hex.
    pub(super) digest: String,
    pub(super) hash: String,
    pub(super) signature: String,
    /// Where it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) end: OffsetDateTime,
    /// What was verified until there.
    pub(super) passed: Passed,
}

/// How much was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Passed {
    /// Where the first digest begins.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) from: Option<OffsetDateTime>,
    pub(super) digests: u64,
    pub(super) log_files: u64,
    pub(super) kms_records: u64,
    pub(super) activity_records: u64,
    /// What the broker promised there of keys that are taken away.
    #[serde(default)]
    pub(super) promise: Promise,
}

impl ResumePoint {
    /// Where verifying goes on.
    #[must_use]
    pub(super) fn end(&self) -> OffsetDateTime {
        self.end
    }
}

/// The digests of the last day.
pub(super) struct ResumePoints {
    trail_arn: String,
    /// What was verified before this run.
    before: Passed,
    points: VecDeque<ResumePoint>,
}

impl ResumePoints {
    pub(super) fn new(trail_arn: &str, resumed: Option<&ResumePoint>) -> Self {
        let before = resumed.map(|point| point.passed).unwrap_or_default();
        Self { trail_arn: trail_arn.to_owned(), before, points: resumed.cloned().into_iter().collect() }
    }

    /// What was verified before this run.
    pub(super) fn before(&self) -> Passed {
        self.before
    }

    /// A digest, and everything that it names, was looked at; with it, this run has verified so much.
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
        // The last one that is far enough back is what is wanted.
        while self.points.get(1).is_some_and(|second| second.end <= end - OVERLAP) {
            self.points.pop_front();
        }
    }

    /// Where verifying can go on; none while it has not got far enough.
    pub(super) fn latest(&self) -> Option<&ResumePoint> {
        let newest = self.points.back()?.end;
        self.points.front().filter(|first| first.end <= newest - OVERLAP)
    }
}

/// Longer than a data key is kept, and a call lasts.
const OVERLAP: Duration = Duration::hours(25);
