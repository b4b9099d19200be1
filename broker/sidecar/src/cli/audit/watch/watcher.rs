//! Follows all keys from run to run: what KMS says about each, and the judgement.

use time::{Duration, OffsetDateTime};

use super::judgement::{Evidence, Ruling, judge};
use super::state::{KeyState, Sighting, WatchState};
use crate::kms::aws::usage::LastUse;

/// A run's result for one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) key: String,
    pub(super) sighting: Sighting,
    pub(super) ruling: Ruling,
}

/// Judges all uses that are not judged yet. Those that are decided are forgotten; alarms are kept until somebody acknowledges them, or a
/// trail explains them after all.
pub(super) fn judge_pending(
    state: &mut WatchState,
    evidence: &impl Evidence,
    now: OffsetDateTime,
) -> Vec<Judged> {
    let mut all = Vec::new();
    for (key, of_key) in &mut state.keys {
        for sighting in std::mem::take(&mut of_key.pending) {
            let ruling = judge(key, &sighting, evidence);
            if of_key.last.as_ref() == Some(&sighting) {
                of_key.is_blind = matches!(ruling, Ruling::Blind(_));
            }
            match ruling {
                Ruling::Alarm => of_key.alarms.push(sighting.clone()),
                Ruling::Waiting => of_key.pending.push(sighting.clone()),
                Ruling::CannotTell(_) if now - sighting.at <= UNTOLD_IS_KEPT => {
                    of_key.pending.push(sighting.clone());
                }
                _ => {}
            }
            all.push(Judged { key: key.clone(), sighting, ruling });
        }
        of_key.alarms.retain(|alarm| evidence.record_of(&alarm.request_id).is_none());
        let excess = of_key.alarms.len().saturating_sub(MOST_ALARMS);
        of_key.alarms.drain(..excess);
    }
    all
}

/// Notes KMS's answer about a key. Uses from before the watch are not judged. The error says why nothing is noted.
pub(super) fn see(
    state: &mut WatchState,
    key: &str,
    seen: Option<LastUse>,
    now: OffsetDateTime,
) -> Result<(), &'static str> {
    if !state.keys.contains_key(key) {
        if state.keys.len() >= MOST_KEYS {
            return Err("more keys than are watched");
        }
        state.keys.insert(
            key.to_owned(),
            KeyState { since: now, last: None, is_blind: false, pending: Vec::new(), alarms: Vec::new() },
        );
    }
    let (Some(of_key), Some(seen)) = (state.keys.get_mut(key), seen) else { return Ok(()) };
    let LastUse { at, operation, request_id, cloudtrail_event_id } = seen;
    let Some(request_id) = request_id else { return Err("KMS gives no requestID for its last use") };
    let sighting = Sighting { at, operation, request_id, cloudtrail_event_id };
    if of_key.last.as_ref().is_some_and(|last| last.request_id == sighting.request_id) {
        return Ok(());
    }
    let is_new =
        of_key.pending.iter().chain(&of_key.alarms).all(|known| known.request_id != sighting.request_id);
    of_key.last = Some(sighting.clone());
    of_key.is_blind = false;
    if sighting.at < of_key.since || !is_new {
        return Ok(());
    }
    of_key.pending.push(sighting);
    if of_key.pending.len() > MOST_PENDING {
        of_key.pending.remove(0);
        return Err("too many of its uses wait for a verdict");
    }
    Ok(())
}

/// Acknowledges the alarm of this requestID. False if there is none.
pub(super) fn acknowledge(state: &mut WatchState, request_id: &str) -> bool {
    let mut found = false;
    for of_key in state.keys.values_mut() {
        let before = of_key.alarms.len();
        of_key.alarms.retain(|alarm| alarm.request_id != request_id);
        found |= of_key.alarms.len() < before;
    }
    found
}

/// How long to wait for a late or abandoned trail before the uses that it could explain are dropped.
pub(super) const UNTOLD_IS_KEPT: Duration = Duration::days(3);
const MOST_KEYS: usize = 10_000;
/// Of one key: one an hour, for longer than any trail is late.
const MOST_PENDING: usize = 128;
const MOST_ALARMS: usize = 128;

#[cfg(test)]
mod tests;
