//! A run's results, as JSON and as text.

use std::collections::BTreeMap;

use key_broker_trail::record::record_time;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::asked::Asked;
use super::judgement::{Reason, Ruling};
use super::state::{KeyState, Sighting, WatchState};
use super::watcher::Judged;

/// The findings of one run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    /// When it looked.
    #[serde(serialize_with = "as_record_time")]
    pub(super) at: OffsetDateTime,
    /// Somebody else's uses that are not acknowledged.
    pub(super) alarms: Vec<Told>,
    /// Uses that may be a broker's, or not.
    pub(super) untold: Vec<Untold>,
    /// By ARN or, if KMS did not give one, by the given name.
    pub(super) keys: BTreeMap<String, ToldKey>,
}

/// In a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// Nothing rings.
    Quiet,
    /// Somebody else has used a key.
    Alarm,
    /// Something could not be looked at.
    CannotTell,
}

/// A use of a key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) key: String,
    #[serde(flatten)]
    pub(super) seen: Sighting,
}

/// A use without a judgement.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Untold {
    #[serde(flatten)]
    pub(super) told: Told,
    pub(super) reasons: Vec<Reason>,
}

/// A key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToldKey {
    pub(super) standing: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_use: Option<Sighting>,
    /// Why KMS did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

/// What the run says about a key's last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Standing {
    /// Somebody else's.
    Alarm,
    /// A broker's, or not.
    CannotTell,
    /// KMS did not say.
    NotTold,
    /// The trails' next digests will show.
    Waiting,
    /// A broker's dry run, which this KMS counts, hides earlier uses.
    Blind,
    /// A broker's, or of the trail itself.
    Explained,
    /// From before the watch.
    Before,
    /// There is none.
    Unused,
    /// Others may use it, too.
    Shared,
    /// Its account is another one, where it has to be watched.
    OfAnotherAccount,
    /// The key no longer exists.
    Gone,
}

impl Report {
    pub(super) fn new(
        state: &WatchState,
        judged: &[Judged],
        asked: &BTreeMap<String, Asked>,
        now: OffsetDateTime,
    ) -> Self {
        let alarms: Vec<Told> = state
            .keys
            .iter()
            .flat_map(|(key, of_key)| {
                of_key.alarms.iter().map(|seen| Told { key: key.clone(), seen: seen.clone() })
            })
            .collect();
        let untold: Vec<Untold> = judged
            .iter()
            .filter_map(|Judged { key, sighting, ruling }| match ruling {
                Ruling::CannotTell(reasons) => Some(Untold {
                    told: Told { key: key.clone(), seen: sighting.clone() },
                    reasons: reasons.clone(),
                }),
                _ => None,
            })
            .collect();
        let keys: BTreeMap<String, ToldKey> = asked
            .iter()
            .map(|(key, asked)| (key.clone(), ToldKey::new(asked, state.keys.get(key), &untold)))
            .collect();
        let is_untold = !untold.is_empty() || keys.values().any(|key| key.standing == Standing::NotTold);
        let verdict = match (alarms.is_empty(), is_untold) {
            (false, _) => Verdict::Alarm,
            (true, true) => Verdict::CannotTell,
            (true, false) => Verdict::Quiet,
        };
        Self { verdict, at: now, alarms, untold, keys }
    }

    /// The number of keys with this standing.
    pub(super) fn count(&self, standing: Standing) -> u64 {
        self.keys.values().filter(|key| key.standing == standing).count() as u64
    }
}

impl ToldKey {
    fn new(asked: &Asked, of_key: Option<&KeyState>, untold: &[Untold]) -> Self {
        let last_use = of_key.and_then(|of_key| of_key.last.clone());
        let (standing, why) = match asked {
            Asked::Told(_) => (standing_of(of_key, untold), None),
            Asked::Shared => (Standing::Shared, None),
            Asked::OfAnotherAccount => (Standing::OfAnotherAccount, None),
            Asked::Gone => (Standing::Gone, None),
            Asked::Failed(why) => (Standing::NotTold, Some(why.clone())),
        };
        Self { standing, last_use, why }
    }
}

fn standing_of(of_key: Option<&KeyState>, untold: &[Untold]) -> Standing {
    let Some(of_key) = of_key else { return Standing::Unused };
    let Some(last) = &of_key.last else { return Standing::Unused };
    let is_in = |seen: &[Sighting]| seen.iter().any(|seen| seen.request_id == last.request_id);
    if is_in(&of_key.alarms) {
        Standing::Alarm
    } else if untold.iter().any(|untold| untold.told.seen.request_id == last.request_id) {
        Standing::CannotTell
    } else if is_in(&of_key.pending) {
        Standing::Waiting
    } else if last.at < of_key.since {
        Standing::Before
    } else if of_key.is_blind {
        Standing::Blind
    } else {
        Standing::Explained
    }
}

fn as_record_time<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&record_time(*at))
}
