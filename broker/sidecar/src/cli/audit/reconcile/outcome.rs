//! What came of the join, and the verdict.

use serde::Serialize;

use super::call::{Difference, ListedCall};
use super::classes::Classes;
use super::range::Range;
use super::siblings::OfSiblings;
use super::takings::{OfTakings, Verdict};

/// What came out.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reconciliation {
    /// In a word.
    pub(super) verdict: Match,
    /// Why one cannot tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// The time that was compared.
    pub(super) range: Option<Range>,
    /// Calls that both have.
    pub(super) matched: usize,
    /// Calls that both have, and tell differently of.
    pub(super) differences: Vec<Difference>,
    /// Calls that we have and AWS has not.
    pub(super) missing_from_aws: Vec<ListedCall>,
    /// Calls of the broker's identity that AWS has and we have not.
    pub(super) missing_from_trail: Vec<ListedCall>,
    /// Calls that only one side has yet, and that are too new to tell.
    pub(super) too_new: usize,
    /// Our calls on days of which AWS's files have nothing.
    pub(super) outside: usize,
    /// AWS's calls of the broker's identity before or after all of the trail's.
    pub(super) outside_the_trail: usize,
    /// Calls behind the end of the trail, which its digests name: no log file can have their records.
    pub(super) named_by_digests: usize,
    /// Calls that S3 made in the broker's name, to encrypt this trail.
    pub(super) by_services: usize,
    /// Calls of readers of this trail, by their own records.
    pub(super) by_readers: usize,
    /// What other trails of the bucket have.
    pub(super) siblings: OfSiblings,
    /// What else AWS's files have.
    #[serde(flatten)]
    pub(super) classes: Classes,
    /// How many of those that are missing from the trail would read it: a reader's records may tell of them.
    pub(super) maybe_of_readers: usize,
    /// Keys that were taken away, and how long they were served.
    #[serde(flatten)]
    pub(super) takings: OfTakings,
}

/// The end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Match {
    /// Every call that can be told of has both records, and they agree.
    Matched,
    /// A call has one record only, or the two differ.
    Unmatched,
    /// The two have nothing that could be compared.
    CannotTell,
}

impl Reconciliation {
    /// Where the two have no time in common. Two records of one call that tell differently do so all the same.
    pub(super) fn without_range(self, why: &str) -> Self {
        if self.differences.is_empty() {
            Self { verdict: Match::CannotTell, why: Some(why.to_owned()), ..self }
        } else {
            Self { verdict: Match::Unmatched, why: None, ..self }
        }
    }

    /// Says what it comes to, but for the keys that were taken away.
    pub(super) fn judge(&mut self) {
        let OfSiblings { unexpected, awaited, .. } = &self.siblings;
        let is_missing = !self.missing_from_trail.is_empty();
        let is_unmatched = !(self.differences.is_empty() && self.missing_from_aws.is_empty());
        // Whoever can write into the bucket can put what nobody can read there: that excuses nothing.
        (self.verdict, self.why) = if is_unmatched || (is_missing && awaited.is_empty()) {
            (Match::Unmatched, None)
        } else if is_missing {
            let why = format!(
                "calls that this trail has not may be those of expected trails, of which not all can be believed with the keys that were \
                 given: {}: give their keys with --public-key",
                awaited.join(", ")
            );
            (Match::CannotTell, Some(why))
        } else if !unexpected.is_empty() {
            let names: Vec<&str> = unexpected.keys().map(String::as_str).collect();
            let why = format!(
                "other trails of this bucket have calls that this one has not: if they are your brokers', name them with --expect: {}",
                names.join(", ")
            );
            (Match::CannotTell, Some(why))
        } else if self.outside_the_trail > 0 {
            let why = format!(
                "AWS has {} calls of the broker's identity from before the trail's first call to KMS or after its last: look at them, or \
                 bound the time with --since and --until",
                self.outside_the_trail
            );
            (Match::CannotTell, Some(why))
        } else if self.outside > 0 {
            let why = format!(
                "{} calls of the trail are of times of which AWS's files have nothing: give those files, too, or bound the time with --since \
                 and --until",
                self.outside
            );
            (Match::CannotTell, Some(why))
        } else if self.matched > 0 {
            (Match::Matched, None)
        } else if self.classes.own > 0 {
            (Match::CannotTell, Some(OWN.into()))
        } else {
            (Match::CannotTell, Some("no call is old enough to be told of".into()))
        };
    }
}

impl Reconciliation {
    /// Adds what came of the keys that were taken away: uses beyond a promise are a finding whatever else there is.
    pub(super) fn add_takings(&mut self, takings: OfTakings) {
        let untold = takings.count(Verdict::CannotTell);
        if takings.count(Verdict::Late) > 0 {
            (self.verdict, self.why) = (Match::Unmatched, None);
        } else if takings.is_cut {
            self.cannot_tell(
                "AWS's files have more events that take keys away than are remembered: give fewer files"
                    .into(),
            );
        } else if untold > 0 {
            self.cannot_tell(format!(
                "of {untold} events that take keys away the records do not tell what came of them"
            ));
        }
        self.takings = takings;
    }

    /// A match that does not hold for all there is, is none.
    pub(super) fn cannot_tell(&mut self, why: String) {
        if self.verdict == Match::Matched {
            (self.verdict, self.why) = (Match::CannotTell, Some(why));
        }
    }
}

/// Why there is no verdict where the trail is beside itself.
pub(super) const OWN: &str = "these are the trail's own records (their eventIDs are the trail's): give AWS CloudTrail's own log files with --cloudtrail";
