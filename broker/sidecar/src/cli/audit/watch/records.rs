//! Looks for uses in the trails' records: the record of each, and calls without a record that may have been one of them.

use std::collections::{BTreeSet, HashMap, HashSet};

use key_broker_trail::TRAIL_ARN;
use key_broker_trail::record::{ReadRecord, parse};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use super::judgement::Reason;
use super::state::WatchState;

/// The uses to find, and the results.
pub(super) struct Records {
    skew: Duration,
    /// The uses that are looked for: requestID, key and time.
    wanted: HashSet<String>,
    times: Vec<(String, String, OffsetDateTime)>,
    found: HashMap<String, (String, bool)>,
    /// Events that may have been uses of a key, by requestID.
    troubles: HashMap<String, BTreeSet<Reason>>,
    /// The keys that workloads' calls are about.
    pub(super) keys: BTreeSet<String>,
    /// The keys with which the trails are signed and encrypted.
    pub(super) trail_keys: BTreeSet<String>,
    processes: HashMap<String, Process>,
    /// Since when a kept data key may be renewed, by trail and key, and until when it was drawn: no record of an answer has come yet.
    renewals: HashMap<(String, String), Renewal>,
}

/// A renewal that the broker may have asked for beside its calls.
struct Renewal {
    place: Option<String>,
    from: OffsetDateTime,
    to: OffsetDateTime,
}

/// The broker's process behind the records of a trail, as they are read.
struct Process {
    /// Its newest record.
    last: OffsetDateTime,
    /// Whether it has said that it ends.
    is_closed: bool,
}

/// A trail whose records are read.
pub(super) struct ReadTrail<'a> {
    pub(super) name: &'a str,
    pub(super) place: Option<&'a str>,
    /// Whether nothing of it was before the first record that is read.
    pub(super) is_from_its_start: bool,
}

impl Records {
    /// Looks for the uses that are not judged yet, and for those that somebody may still explain.
    pub(super) fn new(state: &WatchState, skew: Duration) -> Self {
        let of_keys = state.keys.iter();
        let times: Vec<_> = of_keys
            .clone()
            .flat_map(|(key, of_key)| {
                of_key
                    .pending
                    .iter()
                    .map(move |seen| (seen.request_id.clone(), key_name(key).to_owned(), seen.at))
            })
            .collect();
        let alarms = of_keys.flat_map(|(_, of_key)| &of_key.alarms).map(|alarm| alarm.request_id.clone());
        let wanted = times.iter().map(|(request_id, _, _)| request_id.clone()).chain(alarms).collect();
        Self {
            skew,
            wanted,
            times,
            found: HashMap::new(),
            troubles: HashMap::new(),
            keys: BTreeSet::new(),
            trail_keys: BTreeSet::new(),
            processes: HashMap::new(),
            renewals: HashMap::new(),
        }
    }

    /// The record of a use: its trail, and whether it is of a dry run.
    pub(super) fn record_of(&self, request_id: &str) -> Option<(String, bool)> {
        self.found.get(request_id).cloned()
    }

    /// Events that may have been uses of a key, although KMS's answer has no record.
    pub(super) fn troubles(&self, request_id: &str) -> impl Iterator<Item = Reason> + '_ {
        self.troubles.get(request_id).into_iter().flatten().cloned()
    }

    /// After the last record: renewals of which no answer is recorded may have been lost.
    pub(super) fn end(&mut self) {
        for ((name, key), Renewal { place, from, to }) in std::mem::take(&mut self.renewals) {
            let trail = ReadTrail { name: &name, place: place.as_deref(), is_from_its_start: true };
            self.doubt(&trail, Some(&key), (from, to + LONGEST_CALL), UNRENEWED);
        }
    }

    /// A log file that is vouched for cannot be read: whatever was in its time may be in it.
    pub(super) fn leave_out(&mut self, trail: &ReadTrail<'_>, [oldest, newest]: [Option<OffsetDateTime>; 2]) {
        let from = oldest.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let to = newest.unwrap_or(LAST);
        self.doubt(
            trail,
            None,
            (from, to),
            "a log file of it is missing, or was altered: see `key-broker audit verify`",
        );
    }

    /// Adds a record. Those of a trail come in its order.
    pub(super) fn add(&mut self, trail: &ReadTrail<'_>, record: &ReadRecord<'_>) {
        if &*record.event_name == "StartBroker" {
            self.begin_process(trail, record.event_time);
        }
        let process = self
            .processes
            .entry(trail.name.to_owned())
            .or_insert(Process { last: record.event_time, is_closed: false });
        process.last = process.last.max(record.event_time);
        process.is_closed |= &*record.event_name == "CloseTrail";
        if record.is_of_kms() { self.add_kms(trail, record) } else { self.add_activity(trail, record) }
    }

    /// A process that was killed left no record of the calls it was making.
    fn begin_process(&mut self, trail: &ReadTrail<'_>, at: OffsetDateTime) {
        let from = match self.processes.remove(trail.name) {
            Some(Process { is_closed: true, .. }) => return,
            Some(Process { last, .. }) => last,
            None if trail.is_from_its_start => return,
            None => OffsetDateTime::UNIX_EPOCH,
        };
        self.doubt(
            trail,
            None,
            (from, at),
            "its broker was killed about then: the last call to KMS may have no record",
        );
    }

    fn add_kms(&mut self, trail: &ReadTrail<'_>, record: &ReadRecord<'_>) {
        let error = record.error_code.as_deref();
        if self.wanted.contains(&*record.request_id) {
            let is_dry_run = error == Some(DRY_RUN);
            self.found.insert(record.request_id.to_string(), (trail.name.to_owned(), is_dry_run));
        }
        let Some(key) = record.key_arn() else { return };
        let is_for_a_trail = record.encryption_context().any(|pair| pair.0 == TRAIL_ARN);
        if record.is_of_the_broker_itself() && (&*record.event_name == "Sign" || is_for_a_trail) {
            self.trail_keys.insert(key.to_owned());
        } else if !record.is_of_the_broker_itself() && !self.keys.contains(key) {
            self.keys.insert(key.to_owned());
        }
        if error.is_none() {
            self.renewals.remove(&(trail.name.to_owned(), key_name(key).to_owned()));
        }
        if error.is_some_and(is_passing) {
            let at = record.event_time;
            self.doubt(trail, Some(key), (at - LONGEST_CALL, at), RETRIED);
        }
    }

    fn add_activity(&mut self, trail: &ReadTrail<'_>, record: &ReadRecord<'_>) {
        let Some(json) = record.additional_event_data else { return };
        let Ok(data) = parse::<EventData>(json.get()) else { return };
        let (key, at) = (record.key_arn(), record.event_time);
        if let Some(check) = data.failed_check {
            self.doubt(trail, Some(&check.key_arn), (at - LONGEST_CALL, at), UNANSWERED);
        }
        if data.journal.is_some_and(|journal| journal.unrecorded_kms_answers > 0) {
            self.doubt(
                trail,
                None,
                (at - Duration::HOUR, at),
                "KMS's answer had no requestID: it has no record",
            );
        }
        let error = record.error_code.as_deref().unwrap_or_default();
        if matches!(&*data.outcome, "Failed" | "Aborted") && is_unanswered(error) {
            self.doubt(trail, key, (at, at + LONGEST_CALL), UNANSWERED);
        }
        let Some(data_key) = data.data_key.filter(|_| data.outcome == "Allowed") else { return };
        if let Some(answered) = data_key.minted_at.filter(|answered| *answered - at >= SLOW) {
            self.doubt(trail, key, (at, answered), RETRIED);
        }
        if let Some(key) = key.filter(|_| data_key.may_be_renewed(at)) {
            let place = trail.place.map(str::to_owned);
            let renewal = self.renewals.entry((trail.name.to_owned(), key_name(key).to_owned()));
            renewal.or_insert(Renewal { place, from: at, to: at }).to = at;
        }
    }

    /// Something between these times under this key, or any, may be a use that is looked for.
    fn doubt(
        &mut self,
        trail: &ReadTrail<'_>,
        key: Option<&str>,
        (from, to): (OffsetDateTime, OffsetDateTime),
        why: &'static str,
    ) {
        let (from, to) = (from.saturating_sub(self.skew), to.saturating_add(self.skew));
        let key = key.map(key_name);
        for (request_id, of_key, at) in &self.times {
            if (from..=to).contains(at) && key.is_none_or(|key| key == of_key) {
                let reason =
                    Reason { trail: Some(trail.name.to_owned()), place: trail.place.map(str::to_owned), why };
                self.troubles.entry(request_id.clone()).or_default().insert(reason);
            }
        }
    }
}

/// Identifies a key in any region: a call under a multi-Region key may have gone to any of its replicas.
fn key_name(arn: &str) -> &str {
    let id = arn.rsplit_once(":key/").map(|(_, id)| id);
    id.filter(|id| id.starts_with("mrk-")).unwrap_or(arn)
}

/// KMS may have done what it was asked, and its answer was lost or came too late.
fn is_unanswered(error: &str) -> bool {
    matches!(
        error,
        "KMSUnavailable"
            | "KMSUnexpectedAnswer"
            | "DeadlineExceeded"
            | "RequestCancelled"
            | "ServiceUnavailable"
            | "InternalFailure"
    ) || is_passing(error) && error != "ThrottlingException"
}

/// Errors of KMS after which a call is tried again; an attempt before may have had no answer.
fn is_passing(error: &str) -> bool {
    matches!(
        error,
        "ThrottlingException"
            | "Throttling"
            | "LimitExceededException"
            | "KMSInternalException"
            | "DependencyTimeoutException"
            | "KeyUnavailableException"
            | "InternalFailure"
            | "ServiceUnavailableException"
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventData {
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    data_key: Option<DataKeyData>,
    #[serde(default)]
    journal: Option<JournalData>,
    #[serde(default)]
    failed_check: Option<CheckData>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DataKeyData {
    served_from: String,
    #[serde(with = "time::serde::rfc3339::option")]
    minted_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    messages_used: u64,
    messages_limit: u64,
    bytes_used: u64,
    bytes_limit: u64,
}

impl DataKeyData {
    /// Whether a draw at this time may have made the broker ask for the next data key: `reuse.refresh_at` of some bound is reached.
    fn may_be_renewed(&self, at: OffsetDateTime) -> bool {
        let is_far = |used: u64, limit: u64| limit > 0 && used >= limit / 2;
        let is_old = self
            .minted_at
            .zip(self.expires_at)
            .is_some_and(|(minted, expires)| at - minted >= (expires - minted) / 2);
        self.served_from == "CACHE"
            && (is_old
                || is_far(self.messages_used, self.messages_limit)
                || is_far(self.bytes_used, self.bytes_limit))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JournalData {
    #[serde(default)]
    unrecorded_kms_answers: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckData {
    #[serde(default)]
    key_arn: String,
}

const DRY_RUN: &str = "DryRunOperationException";
const UNANSWERED: &str = "a call under this key had no answer then: KMS may have carried it out";
const RETRIED: &str = "a call under this key was retried then: KMS may have carried out the first attempt";
const UNRENEWED: &str = "a cached data key under this key was due for renewal then, and no answer is recorded: KMS may have carried it out";
/// No call to KMS takes longer, with all its retries.
const LONGEST_CALL: Duration = Duration::minutes(2);
/// KMS answers sooner, mostly; times are in whole seconds.
const SLOW: Duration = Duration::seconds(2);
const LAST: OffsetDateTime = time::macros::datetime!(9999-12-31 0:00 UTC);

#[cfg(test)]
mod tests;
