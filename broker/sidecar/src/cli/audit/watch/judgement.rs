//! Judges a use of a key once the trails vouch for its time. Every possible explanation comes before an alarm.

use std::fmt;

use key_broker_trail::Vouching;
use serde::Serialize;
use time::OffsetDateTime;

use super::state::Sighting;

/// The ruling on one use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ruling {
    /// A broker's, by the record of this trail.
    Ours(String),
    /// A broker's dry run. This KMS counts dry runs as uses, so the use before it cannot be seen.
    Blind(String),
    /// A use for the trail itself: by its store, its readers, or its last digests.
    OfTheTrail(&'static str),
    /// The next digest of some trail will tell.
    Waiting,
    /// It may be a broker's; these are the reasons why that cannot be told.
    CannotTell(Vec<Reason>),
    /// No broker made it.
    Alarm,
}

/// Why there is no judgement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reason {
    /// The trail, if it is about one.
    pub(super) trail: Option<String>,
    /// The pod or host of its broker.
    pub(super) place: Option<String>,
    /// The reason, as text.
    pub(super) why: &'static str,
}

/// Whether one trail can account for a use at one moment.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) trail: String,
    pub(super) place: Option<String>,
    pub(super) vouching: Vouching,
}

/// The evidence for a ruling.
pub(super) trait Evidence {
    /// A broker's record with this requestID: its trail, and whether it is of a dry run.
    fn record_of(&self, request_id: &str) -> Option<(String, bool)>;
    /// Whether it is a call of the trail itself, of which no record is.
    fn of_the_trail(&self, key: &str, sighting: &Sighting) -> Option<&'static str>;
    /// The standing of all trails at this moment.
    fn standings(&self, at: OffsetDateTime) -> Vec<Standing>;
    /// What in the trails' records could explain this use, although KMS's answer to it has no record.
    fn troubles(&self, key: &str, sighting: &Sighting) -> Vec<Reason>;
}

/// Judges a use of `key`.
pub(super) fn judge(key: &str, sighting: &Sighting, evidence: &impl Evidence) -> Ruling {
    if let Some((trail, is_dry_run)) = evidence.record_of(&sighting.request_id) {
        return if is_dry_run { Ruling::Blind(trail) } else { Ruling::Ours(trail) };
    }
    if let Some(what) = evidence.of_the_trail(key, sighting) {
        return Ruling::OfTheTrail(what);
    }
    let (mut reasons, mut is_waiting) = (Vec::new(), false);
    for Standing { trail, place, vouching } in evidence.standings(sighting.at) {
        let why = match vouching {
            Vouching::NotOpen | Vouching::Whole => continue,
            Vouching::NotYet => {
                is_waiting = true;
                continue;
            }
            Vouching::Late => "its next digest is overdue",
            Vouching::Abandoned => {
                "it is abandoned: if its journal still exists, `key-broker audit deliver` delivers it"
            }
            Vouching::Unsigned => "its newest digest is not signed with a key that was given",
            Vouching::Broken => "a digest or a log file of it is missing: see `key-broker audit verify`",
        };
        reasons.push(Reason { trail: Some(trail), place, why });
    }
    if reasons.is_empty() && is_waiting {
        return Ruling::Waiting;
    }
    reasons.extend(evidence.troubles(key, sighting));
    if reasons.is_empty() { Ruling::Alarm } else { Ruling::CannotTell(reasons) }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(trail) = &self.trail {
            write!(f, "trail {trail}")?;
            if let Some(place) = &self.place {
                write!(f, " of {place}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(self.why)
    }
}
