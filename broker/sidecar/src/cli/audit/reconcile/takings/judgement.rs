//! Whether a use after a key was taken away is within its broker's promise.
//!
//! If the key is gone for everybody, time alone decides. For grants and policies KMS's answers do: whatever was taken away, KMS still
//! allows a use that rests on a later answer.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::event::{Constraint, Grant};
use super::served::Use;
use crate::redaction::{Digester, Maker};

/// The ruling on one use after a taking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Within the promise.
    Held,
    /// Later.
    Late,
    /// Unknown.
    Untold(&'static str),
}

impl Ruling {
    /// If it is unknown whether anything was taken away, a late use proves nothing.
    pub(super) fn if_late(self, why: &'static str) -> Self {
        if self == Self::Late { Self::Untold(why) } else { self }
    }
}

/// A use of a key that was taken from everybody at `taken`; `propagation` later KMS itself has heard of it everywhere.
pub(super) fn of_key(used: &Use, taken: OffsetDateTime, propagation: Duration) -> Ruling {
    let known = taken + propagation;
    if used.shown.event_time <= known {
        return Ruling::Held;
    }
    let Some(promise) = used.promise else { return Ruling::Untold(NO_PROMISE) };
    let until = match used.key_bound(promise) {
        Some(bound) => Some(known + bound),
        // Without checks, data keys of before live as long as they may.
        None => used.expires_at.filter(|_| used.context_answer.is_some_and(|answered| answered <= known)),
    };
    if until.is_some_and(|until| used.shown.event_time <= until) { Ruling::Held } else { Ruling::Late }
}

/// A use of a key for which something may have been taken at `taken`: a permission for all encryption contexts, if `is_for_all`, or for some.
pub(super) fn of_permission(
    used: &Use,
    taken: OffsetDateTime,
    propagation: Duration,
    is_for_all: bool,
) -> Ruling {
    let known = taken + propagation;
    let at = used.shown.event_time;
    let is_newer = |answer: Option<OffsetDateTime>| answer.is_some_and(|answered| answered > known);
    if at <= known || is_newer(used.context_answer) {
        return Ruling::Held;
    }
    let Some(promise) = used.promise else { return Ruling::Untold(NO_PROMISE) };
    let is_within = |bound: Option<Duration>| match bound {
        Some(bound) => at <= known + bound,
        None => used.expires_at.is_some_and(|expires_at| at <= expires_at),
    };
    let of_all = !is_for_all || is_newer(used.any_answer) || is_within(used.key_bound(promise));
    if of_all && is_within(used.context_bound(promise)) { Ruling::Held } else { Ruling::Late }
}

/// Whether a use may have rested on a grant; none where its encryption context is redacted with a key that is not there.
pub(super) fn concerns(grant: &Grant, used: &Use, key: Option<&Digester>) -> Option<bool> {
    if !grant.operations.contains(&used.operation) {
        return Some(false);
    }
    let (pairs, is_whole) = match &grant.constraint {
        Constraint::None => return Some(true),
        Constraint::Equals(pairs) => (pairs, true),
        Constraint::Subset(pairs) => (pairs, false),
    };
    if is_whole && pairs.len() != used.context.len() {
        return Some(false);
    }
    let mut is_told = true;
    for (name, value) in pairs {
        match has(used, name, value, key) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => is_told = false,
        }
    }
    is_told.then_some(true)
}

fn has(used: &Use, name: &str, value: &str, key: Option<&Digester>) -> Option<bool> {
    let context: BTreeMap<&str, &str> =
        used.context.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let Some(written) = context.get(name) else { return Some(false) };
    if !used.redacted.iter().any(|redacted| redacted == name) {
        return Some(*written == value);
    }
    match Digester::of(written, key) {
        Maker::Known(digester) => Some(digester.digest(value) == *written),
        Maker::KeyMissing => None,
        Maker::Nobody => Some(false),
    }
}

/// Why there is no judgement if the broker's records do not have its promise.
const NO_PROMISE: &str = "no start of this broker in the records that were read says what it promises (broker.reuse): begin with one, if there is";
