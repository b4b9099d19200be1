//! The outcome of the comparison, and the verdict.

use serde::Serialize;

use super::call::{Difference, ListedCall};
use super::classes::Classes;
use super::range::Range;
use super::siblings::OfSiblings;
use super::takings::{OfTakings, Verdict};

/// The result of a reconciliation.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reconciliation {
    /// In a word.
    pub(super) verdict: Match,
    /// Why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// The time that was compared.
    pub(super) range: Option<Range>,
    /// Calls that both have.
    pub(super) matched: usize,
    /// Calls that both have, with differences.
    pub(super) differences: Vec<Difference>,
    /// Calls that we have and AWS has not.
    pub(super) missing_from_aws: Vec<ListedCall>,
    /// Calls of the broker's identity that AWS has and we have not.
    pub(super) missing_from_trail: Vec<ListedCall>,
    /// The same, of times of which a part of the trail could not be read.
    #[serde(rename = "maybeInUnread")]
    pub(super) unread: Vec<ListedCall>,
    /// Objects of the trail that were not used: nobody vouches for them, they were altered, or they could not be read.
    #[serde(rename = "trailObjectsLeftOut")]
    pub(super) left_out: u64,
    /// Calls that only one side has, and that are too new to judge.
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
    /// What the bucket's other trails contribute.
    pub(super) siblings: OfSiblings,
    /// AWS's other records, by class.
    #[serde(flatten)]
    pub(super) classes: Classes,
    /// How many of those missing from the trail could be from reading it, and so in a reader's records.
    pub(super) maybe_of_readers: usize,
    /// Keys that were taken away, and how long they were served.
    #[serde(flatten)]
    pub(super) takings: OfTakings,
}

/// The end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Match {
    /// Every call that can be judged has both records, and they agree.
    Matched,
    /// A call has one record only, or the two differ.
    Unmatched,
    /// The two have nothing that could be compared.
    CannotTell,
}

impl Reconciliation {
    /// The result, except for keys that were taken away.
    pub(super) fn judge(&mut self) {
        let OfSiblings { unexpected, unverified, .. } = &self.siblings;
        let is_missing = !self.missing_from_trail.is_empty();
        let is_unmatched = !(self.differences.is_empty() && self.missing_from_aws.is_empty());
        (self.verdict, self.why) = if is_unmatched || (is_missing && unverified.is_empty()) {
            (Match::Unmatched, None)
        } else if is_missing {
            let why = format!(
                "calls that this trail has not may be those of other trails here, of which nothing can be believed with the keys that were \
                 given: {}: give their keys with --public-key",
                unverified.join(", ")
            );
            (Match::CannotTell, Some(why))
        } else if !self.unread.is_empty() {
            let why = format!(
                "{} calls that this trail has not may be in objects of it that could not be read: run it where the store returns them",
                self.unread.len()
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
            (Match::CannotTell, Some("no call is old enough to be judged".into()))
        };
    }
}

impl Reconciliation {
    /// Adds the results for keys that were taken away: uses beyond a promise are a finding in any case.
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
                "for {untold} events that take keys away, the records do not show what followed"
            ));
        }
        self.takings = takings;
    }

    /// Puts the calls in the order of their times.
    pub(super) fn sort(&mut self) {
        let Self { missing_from_aws, missing_from_trail, unread, classes, .. } = self;
        for calls in [missing_from_aws, missing_from_trail, unread, &mut classes.refused_calls] {
            calls.sort_by(|a, b| (a.event_time, &a.request_id).cmp(&(b.event_time, &b.request_id)));
        }
    }

    /// Counts calls whose redacted values could not be compared.
    pub(super) fn leave_redacted(&mut self, calls: usize) {
        if calls > 0 {
            self.cannot_tell(format!(
                "{calls} calls have values that are redacted with a key: give the broker's audit.redact.key_file with --redaction-key"
            ));
        }
    }

    /// Counts objects of the trail that were not used.
    pub(super) fn leave_out(&mut self, objects: u64) {
        self.left_out = objects;
        if objects > 0 {
            self.cannot_tell(format!(
                "{objects} of the trail's objects are not vouched for or could not be read"
            ));
        }
    }

    /// A match must cover everything.
    pub(super) fn cannot_tell(&mut self, why: String) {
        if self.verdict == Match::Matched {
            (self.verdict, self.why) = (Match::CannotTell, Some(why));
        }
    }
}

/// Why there is no verdict where the trail is beside itself.
pub(super) const OWN: &str = "these are the trail's own records (their eventIDs are the trail's): give AWS CloudTrail's own log files with --cloudtrail";
