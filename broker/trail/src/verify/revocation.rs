//! The promise of revocation, recomputed from the records alone: no cached data key is used longer after KMS's last permission than the
//! broker promises, and the answer that a use names as its permission is recorded, is a permission, and concerns the same key.
//!
//! The promise is in the record of the broker's start. A permission has the time of KMS's answer, which is not before the question, so
//! a broker that counts from the question never appears late. Only the record of a failed check excuses a missing newer permission.

use serde::{Deserialize, Serialize};

use super::finding::{FindingKind, Severity};
use super::ids::IdMap;
use super::record::{KmsCall, Permission, RevocationRecord, Use};
use super::reuse::{At, Fault, LONGEST_CALL_SECONDS};
use crate::record::{CheckedScope, RevocationPromise};

/// Permissions, and the uses that name them.
#[derive(Default)]
pub(super) struct Revocation {
    promise: Promise,
    permissions: Recent<Answer>,
    failed_checks: Recent<(u64, i64)>,
    /// Uses whose permissions have not come yet.
    awaited: IdMap<Awaited>,
    /// Uses whose permissions may have been forgotten.
    forgotten: Option<(u64, At)>,
    /// Uses of cached data keys before the record of a start.
    unjudged: Option<(u64, At)>,
}

/// The broker's promise at some point of the trail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Promise {
    /// The broker's start was before the verified period.
    #[default]
    Unknown,
    /// There is none.
    None,
    Made(RevocationPromise),
}

/// An answer of KMS.
#[derive(Clone, Copy)]
struct Answer {
    request: u64,
    of: Option<u64>,
    asked: Option<u64>,
    at: i64,
    is_permission: bool,
}

/// The first use that names a permission, and what it says about it.
struct Awaited {
    permission: Permission,
    of: u64,
    asked: u64,
    at: At,
    used_at: i64,
}

/// The most recent entries by eventID, in two generations like [`RecentIds`](super::recent::RecentIds).
struct Recent<T> {
    newer: IdMap<T>,
    older: IdMap<T>,
    has_forgotten: bool,
}

impl Revocation {
    pub(super) fn new(promise: Promise) -> Self {
        Self { promise, ..Self::default() }
    }

    pub(super) fn promise(&self) -> Promise {
        self.promise
    }

    /// The trail begins: there is no promise before the record of a start.
    pub(super) fn begin_trail(&mut self) {
        self.promise = Promise::None;
    }

    /// Takes a record of a call to KMS.
    pub(super) fn called(&mut self, event_id: u128, call: &KmsCall, faults: &mut Vec<Fault>) {
        let KmsCall { request, of, asked, at, is_permission, .. } = *call;
        let answer = Answer { request, of, asked, at, is_permission };
        if let Some(awaited) = self.awaited.remove(&event_id) {
            awaited.judge(&answer, faults);
        }
        if matches!(self.promise, Promise::Made(_)) {
            self.permissions.insert(event_id, answer);
        }
    }

    /// Takes a record of the broker's own.
    pub(super) fn told(&mut self, event_id: u128, at: i64, told: &RevocationRecord) {
        match told {
            RevocationRecord::Start(Some(promise)) if promise.revocation_check_seconds > 0 => {
                self.promise = Promise::Made(*promise);
            }
            RevocationRecord::Start(_) => self.promise = Promise::None,
            RevocationRecord::FailedCheck(of) => self.failed_checks.insert(event_id, (*of, at)),
        }
    }

    /// Takes a record of a use.
    pub(super) fn used(&mut self, made: &Use, at: At, faults: &mut Vec<Fault>) {
        if !made.is_allowed || made.from_kms {
            return;
        }
        // A data key for a single use is not cached.
        let Some(minted_at) = made.minted_at.filter(|_| made.expires_at.is_some()) else { return };
        let promise = match self.promise {
            Promise::None => return,
            Promise::Unknown => return count(&mut self.unjudged, at),
            Promise::Made(promise) => promise,
        };
        if let Some(permission) = made.allowed {
            let awaited = Awaited { permission, of: made.of, asked: made.asked, at, used_at: made.at };
            match self.permissions.get(permission.call) {
                Some(answer) => awaited.judge(answer, faults),
                None if self.permissions.has_forgotten => count(&mut self.forgotten, at),
                None => drop(self.awaited.entry(permission.call).or_insert(awaited)),
            }
        }
        let by_context = promise.revocation_check == CheckedScope::Context;
        let counts = made.allowed.filter(|permission| permission.is_of_context || !by_context);
        let allowed_at = counts.map_or(minted_at, |permission| permission.at.max(minted_at));
        let age = made.at.saturating_sub(allowed_at);
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        if age <= seconds(promise.revocation_check_seconds) {
            return;
        }
        let longest = seconds(promise.unverified_max_seconds.max(promise.revocation_check_seconds));
        let words = match made.failed_check {
            None => format!(
                "its data key was used {age} seconds after KMS had allowed it, of {}, and no failed check excuses that",
                promise.revocation_check_seconds
            ),
            Some(_) if age > longest => format!(
                "its data key was used {age} seconds after KMS had allowed it, of {longest} while KMS cannot be asked"
            ),
            Some(failed) => match self.failed_checks.get(failed) {
                Some((of, failed_at))
                    if *of == made.of && made.at.saturating_sub(*failed_at) <= EXCUSE_SECONDS =>
                {
                    return;
                }
                Some(_) => "the failed check that it names is of another key, or long ago".to_owned(),
                None if self.failed_checks.has_forgotten => return count(&mut self.forgotten, at),
                None => "the record of a failed check that it names is not there".to_owned(),
            },
        };
        faults.push(Fault { kind: FindingKind::UsedUnchecked, severity: Severity::Unsound, at, words });
    }

    /// Judges what is left at the end, like [`Reuse::finish`](super::reuse::Reuse::finish).
    pub(super) fn finish(self, is_complete: bool, from: Option<i64>, faults: &mut Vec<Fault>) {
        let mut rest: Vec<_> = self.awaited.into_values().collect();
        rest.sort_by_key(|awaited| (awaited.at.source, awaited.at.record));
        for Awaited { permission, at, .. } in rest {
            let kind = FindingKind::KmsRecordMissing;
            if from.is_some_and(|from| permission.at < from) {
                continue;
            }
            let severity = if is_complete { Severity::Unsound } else { Severity::CannotTell };
            let words = "the KMS record that its lastAllowed names is not there".to_owned();
            faults.push(Fault { kind, severity, at, words });
        }
        if let Some((count, at)) = self.forgotten {
            let (kind, severity) = (FindingKind::UsedUnchecked, Severity::CannotTell);
            let words = format!(
                "{count} uses name answers of KMS that are too long ago to be remembered: verify a shorter time"
            );
            faults.push(Fault { kind, severity, at, words });
        }
        if let Some((count, at)) = self.unjudged {
            let (kind, severity) = (FindingKind::PromiseUnknown, Severity::Note);
            let words = format!(
                "{count} uses of kept data keys are not held against what the broker promises of keys that are taken away: the record \
                 of its start is before what is verified"
            );
            faults.push(Fault { kind, severity, at, words });
        }
    }
}

impl Awaited {
    fn judge(&self, answer: &Answer, faults: &mut Vec<Fault>) {
        let Self { permission, of, asked, at, used_at } = self;
        let mut fault = |words: &str| {
            let (kind, severity) = (FindingKind::KmsRecordMismatch, Severity::Unsound);
            faults.push(Fault { kind, severity, at: *at, words: words.to_owned() });
        };
        if !answer.is_permission {
            fault("the KMS record that its lastAllowed names is of a refusal");
        }
        if answer.request != permission.request || answer.at != permission.at {
            fault("its lastAllowed tells another time or requestID than the KMS record that it names");
        }
        if answer.of != Some(*of) {
            fault("the KMS record that its lastAllowed names is of another operation or key");
        } else if permission.is_of_context && answer.asked != Some(*asked) {
            fault(
                "the KMS record that its lastAllowed names is of another request, and the scope is CONTEXT",
            );
        }
        if permission.at.saturating_sub(*used_at) > LONGEST_CALL_SECONDS {
            fault("its lastAllowed is of long after its use");
        }
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { newer: IdMap::default(), older: IdMap::default(), has_forgotten: false }
    }
}

impl<T> Recent<T> {
    fn insert(&mut self, id: u128, value: T) {
        self.newer.insert(id, value);
        if self.newer.len() >= GENERATION {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.has_forgotten |= !self.newer.is_empty();
            self.newer.clear();
        }
    }

    fn get(&self, id: u128) -> Option<&T> {
        self.newer.get(&id).or_else(|| self.older.get(&id))
    }
}

fn count(counted: &mut Option<(u64, At)>, at: At) {
    *counted = Some(counted.map_or((1, at), |(count, first)| (count + 1, first)));
}

/// A failed check excuses uses for 30 seconds, and a little time passes between a call's arrival and its draw.
const EXCUSE_SECONDS: i64 = 30;
/// Answers remembered in each generation: an hour's at 100 calls to KMS a second.
const GENERATION: usize = 400_000;
