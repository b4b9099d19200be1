//! Keys that were taken away, by AWS's records, and how long the broker served them afterwards.
//!
//! First AWS's files are read for events that take keys away or give them back, then the trail's records in order: memory grows with the
//! events, not with the uses.

mod event;
mod judgement;
mod served;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use key_broker_trail::record::{MalformedRecord, ReadRecord};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::call::as_record_time;
use super::classes::{Head, Kind, SeenIds};
use super::range::{Question, end_of_day};
use crate::redaction::Digester;
use event::{Constraint, Event, Grant, Taken, What, principal};
use judgement::{Ruling, concerns, of_key, of_permission};
use served::{Promise, ShownUse, Use, own_in, use_in};

/// Keys that were taken away, and their uses afterwards.
pub(super) struct Takings {
    question: Question,
    /// How long KMS may take to apply a change everywhere.
    propagation: Duration,
    /// The key with which values in the trail are redacted.
    key: Option<Digester>,
    taken: Vec<Tally>,
    /// When keys were given back, by key.
    restored: HashMap<String, BTreeSet<OffsetDateTime>>,
    grants: HashMap<String, Grant>,
    /// Whether there is more than is remembered.
    is_cut: bool,
    seen: SeenIds,
    /// The newest time in AWS's files, by region.
    newest: HashMap<String, OffsetDateTime>,
    /// Places in `taken`, by key; the ids of those that are multi-Region keys.
    by_key: HashMap<String, Vec<usize>>,
    multi_region: HashSet<String>,
    /// Places of those that are about all keys of a role, by role; and of the broker's roles.
    by_role: HashMap<String, Vec<usize>>,
    of_own_roles: Vec<usize>,
    /// The principals of the broker's calls.
    principals: HashSet<String>,
    /// The last promise of each trail's broker.
    promises: HashMap<String, Option<Promise>>,
    /// Which replica of a multi-Region key has answered, by KMS's requestID.
    replicas: HashMap<String, String>,
}

/// One taking, and the uses after it.
struct Tally {
    taken: Taken,
    what: What,
    last: Option<ShownUse>,
    late: u64,
    untold: Option<&'static str>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedTaking {
    #[serde(serialize_with = "as_record_time")]
    pub(super) event_time: OffsetDateTime,
    pub(super) event_name: String,
    #[serde(rename = "eventID")]
    pub(super) event_id: String,
    pub(super) key: Option<String>,
    pub(super) by: Option<String>,
    pub(super) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<&'static str>,
    /// The newest use after it; for a permission, of the uses that rest on an earlier answer of KMS.
    pub(super) last_use: Option<ShownUse>,
    /// How long after the taking the last use came.
    pub(super) served_for_seconds: Option<i64>,
    /// Uses beyond the promise.
    pub(super) late_uses: u64,
}

/// The verdict on one taking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    /// The promise was held.
    Held,
    /// Unknown.
    CannotTell,
    /// The promise was not kept.
    Late,
}

impl Takings {
    pub(super) fn new(question: Question, propagation: Duration, key: Option<Digester>) -> Self {
        Self {
            question,
            propagation,
            key,
            taken: Vec::new(),
            restored: HashMap::new(),
            grants: HashMap::new(),
            is_cut: false,
            seen: SeenIds::default(),
            newest: HashMap::new(),
            by_key: HashMap::new(),
            multi_region: HashSet::new(),
            by_role: HashMap::new(),
            of_own_roles: Vec::new(),
            principals: HashSet::new(),
            promises: HashMap::new(),
            replicas: HashMap::new(),
        }
    }

    /// Adds a record of AWS's. All of them come before the trail's.
    pub(super) fn add_aws(&mut self, json: &str) -> Result<(), MalformedRecord> {
        let head = Head::parse(json)?;
        if head.kind() != Kind::Call {
            return Ok(());
        }
        let newest = self.newest.entry(head.aws_region.to_string()).or_insert(head.event_time);
        *newest = head.event_time.max(*newest);
        match event::read(&head.event_source, &head.event_name, json)? {
            Some(Event::Taken(taken, what)) => self.take(taken, what),
            Some(Event::Restored(key)) => {
                self.restored.entry(key).or_default().insert(head.event_time);
            }
            Some(Event::Granted(id, grant)) if self.grants.len() < MOST => {
                self.grants.insert(id, grant);
            }
            Some(Event::Granted(..)) => self.is_cut = true,
            None => {}
        }
        Ok(())
    }

    fn take(&mut self, taken: Taken, what: What) {
        if self.taken.len() >= MOST {
            self.is_cut = true;
            return;
        }
        if !self.seen.are_new(std::iter::once(taken.event_id.as_str())) {
            return;
        }
        let place = self.taken.len();
        match (&taken.key, &what) {
            (_, What::Role(role)) => self.by_role.entry(role.clone()).or_default().push(place),
            (Some(key), _) => {
                self.multi_region.extend(multi_region_id(key).map(str::to_owned));
                self.by_key.entry(key.clone()).or_default().push(place);
            }
            (None, _) => {}
        }
        self.taken.push(Tally { taken, what, last: None, late: 0, untold: None });
    }

    /// Adds a record of this trail.
    pub(super) fn add_ours(&mut self, trail: &str, record: &ReadRecord<'_>) -> Result<(), MalformedRecord> {
        if record.is_of_kms() {
            if let Some(arn) = record.user_identity.arn.as_deref() {
                self.add_principal(arn);
            }
            if let Some(key) = record.key_arn().filter(|key| self.is_replica(key)) {
                self.replicas.insert(record.request_id.to_string(), key.to_owned());
            }
            return Ok(());
        }
        let Some(key) = record.key_arn() else {
            let own = own_in(record)?;
            own.arn.iter().for_each(|arn| self.add_principal(arn));
            if own.is_promise {
                self.promises.insert(trail.to_owned(), own.promise);
            }
            return Ok(());
        };
        let is_concerned =
            !self.of_own_roles.is_empty() || self.by_key.contains_key(key) || self.is_replica(key);
        if !is_concerned || !self.question.has(record.event_time) {
            return Ok(());
        }
        let Some(mut used) = use_in(record)? else { return Ok(()) };
        used.promise = self.promises.get(trail).copied().flatten();
        if let Some(replica) = used.answer_id.as_ref().and_then(|id| self.replicas.get(id)) {
            used.key.clone_from(replica);
        }
        let of_key = self.by_key.get(&used.key).into_iter().flatten();
        for place in of_key.chain(&self.of_own_roles).copied().collect::<Vec<_>>() {
            self.hold(place, &used);
        }
        Ok(())
    }

    fn add_principal(&mut self, arn: &str) {
        let principal = principal(arn);
        if !self.principals.contains(&principal) {
            self.of_own_roles.extend(self.by_role.get(&principal).into_iter().flatten());
            self.principals.insert(principal);
        }
    }

    /// Whether it is of a multi-Region key of which something was taken, in whichever region.
    fn is_replica(&self, key: &str) -> bool {
        multi_region_id(key).is_some_and(|id| self.multi_region.contains(id))
    }

    /// Holds a use against a taking.
    fn hold(&mut self, place: usize, used: &Use) {
        let Some(Tally { taken, what, .. }) = self.taken.get(place) else { return };
        let at = used.shown.event_time;
        if at <= taken.at || at > self.told_until(&taken.region) {
            return;
        }
        let rests_on_older =
            used.context_answer.is_none_or(|answered| answered <= taken.at + self.propagation);
        let ruling = match what {
            What::Key if self.is_given_back(taken, at) => return,
            What::Key => of_key(used, taken.at, self.propagation),
            _ if !rests_on_older => return,
            What::Grant(id) => {
                let grant = self.grants.get(id);
                let is_for_all = grant.is_none_or(|grant| matches!(grant.constraint, Constraint::None));
                let ruling = of_permission(used, taken.at, self.propagation, is_for_all);
                match grant.map(|grant| concerns(grant, used, self.key.as_ref())) {
                    Some(Some(false)) => return,
                    Some(Some(true)) => ruling,
                    None => ruling.if_late(NO_BEGINNING),
                    Some(None) => ruling.if_late(REDACTED),
                }
            }
            What::Policy | What::Role(_) => {
                of_permission(used, taken.at, self.propagation, true).if_late(NO_WORDS)
            }
        };
        let Some(tally) = self.taken.get_mut(place) else { return };
        match ruling {
            Ruling::Held => {}
            Ruling::Late => tally.late += 1,
            Ruling::Untold(why) => tally.untold = Some(why),
        }
        if tally.last.as_ref().is_none_or(|last| last.event_time <= at) {
            tally.last = Some(used.shown.clone());
        }
    }

    /// Whether the key was given back in between. What came in the same second is taken for later.
    fn is_given_back(&self, taken: &Taken, at: OffsetDateTime) -> bool {
        let restored = taken.key.as_ref().and_then(|key| self.restored.get(key));
        restored.is_some_and(|restored| restored.range(taken.at..=at).next().is_some())
    }

    /// Until when nothing is missing that would have given a key back: AWS's files are taken to be complete to the end of their last day.
    fn told_until(&self, region: &str) -> OffsetDateTime {
        let newest = self.newest.get(region).copied().map(end_of_day);
        newest.map_or(self.question.settled, |newest| newest.min(self.question.settled))
    }

    /// The result for the keys that the trail's calls are about, and for the broker's own roles and grants.
    pub(super) fn finish(self, keys: &BTreeSet<String>) -> OfTakings {
        let Self { taken, grants, principals, is_cut, .. } = self;
        let is_ours = |tally: &Tally| match (&tally.what, &tally.taken.key) {
            (What::Role(role), _) => principals.contains(role),
            (_, Some(key)) if tally.last.is_none() && !keys.contains(key) => false,
            (What::Grant(id), _) => {
                grants.get(id).is_none_or(|grant| principals.contains(&principal(&grant.grantee)))
            }
            _ => true,
        };
        let mut takings: Vec<ListedTaking> =
            taken.into_iter().filter(is_ours).map(ListedTaking::from).collect();
        takings.sort_by(|a, b| (a.event_time, &a.event_id).cmp(&(b.event_time, &b.event_id)));
        OfTakings { takings, is_cut }
    }
}

/// Keys that were taken away.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfTakings {
    pub(super) takings: Vec<ListedTaking>,
    /// There were more than are remembered.
    #[serde(rename = "takingsCut")]
    pub(super) is_cut: bool,
}

impl OfTakings {
    /// The number of takings with this verdict.
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.takings.iter().filter(|taking| taking.verdict == verdict).count()
    }
}

impl From<Tally> for ListedTaking {
    fn from(Tally { taken, what, last, late, untold }: Tally) -> Self {
        let is_nameless = taken.key.is_none() && !matches!(what, What::Role(_));
        let untold = if is_nameless { Some(NO_KEY) } else { untold };
        let (verdict, why) = match (late, untold) {
            (1.., _) => (Verdict::Late, None),
            (0, Some(why)) => (Verdict::CannotTell, Some(why)),
            (0, None) => (Verdict::Held, None),
        };
        Self {
            event_time: taken.at,
            event_name: taken.event_name,
            event_id: taken.event_id,
            key: taken.key,
            by: taken.by,
            verdict,
            why,
            served_for_seconds: last.as_ref().map(|last| (last.event_time - taken.at).whole_seconds()),
            last_use: last,
            late_uses: late,
        }
    }
}

/// The id of a multi-Region key, which is the same in all regions.
fn multi_region_id(arn: &str) -> Option<&str> {
    arn.rsplit_once(":key/").map(|(_, id)| id).filter(|id| id.starts_with("mrk-"))
}

/// So many events and grants are remembered.
const MOST: usize = 100_000;
const NO_KEY: &str = "the event names no key";
const NO_BEGINNING: &str = "AWS's files do not have the beginning of this grant (CreateGrant)";
const REDACTED: &str = "encryption contexts are redacted with a key: give it with --redaction-key";
const NO_WORDS: &str = "what policies and tags allowed before, and no longer do, is not judged";
