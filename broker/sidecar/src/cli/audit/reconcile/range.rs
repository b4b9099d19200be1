//! The time that is compared.

use std::collections::BTreeSet;

use serde::Serialize;
use time::{Duration, OffsetDateTime, Time};

use super::call::as_record_time;

/// From when to when, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Range {
    /// The beginning.
    #[serde(serialize_with = "as_record_time")]
    pub(super) from: OffsetDateTime,
    /// The end.
    #[serde(serialize_with = "as_record_time")]
    pub(super) to: OffsetDateTime,
}

/// The trails and the time to compare.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Nothing before this.
    pub(super) since: Option<OffsetDateTime>,
    /// Nothing from this on.
    pub(super) until: Option<OffsetDateTime>,
    /// Records newer than this may still be in transit on either side.
    pub(super) settled: OffsetDateTime,
    /// The trails, as encryption contexts name them.
    pub(super) trail_arns: BTreeSet<String>,
}

impl Question {
    pub(super) fn has(&self, at: OffsetDateTime) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

impl Range {
    pub(super) fn has(&self, at: OffsetDateTime) -> bool {
        (self.from..=self.to).contains(&at)
    }
}

/// Makes room for `at`.
pub(super) fn widen(range: &mut Option<Range>, at: OffsetDateTime) {
    *range = Some(match range {
        Some(range) => Range { from: range.from.min(at), to: range.to.max(at) },
        None => Range { from: at, to: at },
    });
}

/// The time that both cover. Ours cover the time between two records; AWS's the whole days that they are of, since
/// files are kept by day, and an account in which nothing else happens has few records.
pub(super) fn common_range(
    ours: Option<Range>,
    theirs: Option<Range>,
    question: &Question,
) -> Result<Range, &'static str> {
    let ours = ours.ok_or("the trail has no calls to KMS in this time")?;
    let theirs = theirs.ok_or("AWS's files have no records of the trail's regions")?;
    let end_of_day = end_of_day(theirs.to);
    let mut range =
        Range { from: ours.from.max(theirs.from.replace_time(Time::MIDNIGHT)), to: ours.to.min(end_of_day) };
    if let Some(since) = question.since {
        range.from = range.from.max(since);
    }
    if let Some(until) = question.until {
        range.to = range.to.min(until - Duration::SECOND);
    }
    if range.from > range.to {
        return Err("the trail and AWS's files are of different times");
    }
    Ok(range)
}

/// The last second of the day that this is of: AWS's files are kept by day.
pub(super) fn end_of_day(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_time(Time::MIDNIGHT) + Duration::DAY - Duration::SECOND
}
