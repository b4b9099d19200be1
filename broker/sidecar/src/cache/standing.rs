//! The standing of cached data keys: whether KMS still allows their use, by operation and KMS key, and by encryption context. A
//! state machine without clock or task.
//!
//! A permission dates from when KMS was asked, so that it never counts as newer than it is; a refusal dates from when the
//! broker learned of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use key_broker_core::KeyArn;
use key_broker_core::clock::Moment;
use key_broker_trail::record::AllowedScope;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::rules::RevocationCheck;
use crate::kms::recorded::Provenance;

/// The standing of one operation under one KMS key with one encryption context.
pub(super) struct Standing {
    key: Arc<KeyStanding>,
    state: Mutex<ContextState>,
}

/// The standing of one operation under one KMS key in any context.
pub(super) struct KeyStanding {
    key: KeyArn,
    region: Arc<str>,
    check: Option<RevocationCheck>,
    state: Mutex<KeyState>,
}

#[derive(Default)]
struct ContextState {
    allowed: Option<Arc<Allowed>>,
    /// When KMS denied this context.
    denied_at: Option<Moment>,
    asking: Asking,
}

#[derive(Default)]
struct KeyState {
    allowed: Option<Arc<Allowed>>,
    /// When KMS denied any context: from then on each must be asked about by itself.
    suspended_at: Option<Moment>,
    /// When KMS said that the key is out of use.
    ended_at: Option<Moment>,
    trouble: Option<Trouble>,
    asking: Asking,
}

/// A permission by KMS.
pub(crate) struct Allowed {
    requested_at: Moment,
    /// The call that KMS answered.
    pub(crate) source: Provenance,
}

/// KMS could not be asked.
struct Trouble {
    since: Moment,
    pause: Duration,
    /// The record that says so; without a record, the failure excuses nothing.
    event_id: Option<Uuid>,
}

/// The check under way, if there is one.
#[derive(Default)]
struct Asking(Option<CancellationToken>);

/// Why a cached data key may still be drawn, apart from the call to KMS that brought it.
#[derive(Clone, Default)]
pub(crate) struct Evidence {
    /// A newer permission by KMS, and its scope.
    pub(crate) allowed: Option<(Arc<Allowed>, AllowedScope)>,
    /// The record of a failed check, which explains why there is no recent permission.
    pub(crate) failed: Option<Uuid>,
}

/// Whether a cached data key may be drawn.
pub(super) enum Verdict {
    /// It may be drawn. With a check, KMS is to be asked in the background.
    Drawable(Evidence, Option<Check>),
    /// KMS must be asked first.
    Due(Due),
    /// It may not be drawn: KMS is to be called for a new one.
    Stale,
}

/// A check that a draw waits for.
pub(super) struct Due {
    /// Cancelled when the check has ended.
    pub(super) ended: CancellationToken,
    /// The check to make, unless it is under way.
    pub(super) check: Option<Check>,
}

/// A check to make. It ends when this is dropped.
pub(super) struct Check {
    pub(super) standing: Arc<Standing>,
    _asking: DropGuard,
}

impl Standing {
    pub(super) fn new(key: Arc<KeyStanding>) -> Self {
        Self { key, state: Mutex::default() }
    }

    /// The KMS key.
    pub(super) fn key(&self) -> &KeyArn {
        &self.key.key
    }

    /// The region in which KMS is asked about it.
    pub(super) fn region(&self) -> &str {
        &self.key.region
    }

    /// Whether a data key may be drawn for which KMS was called at `requested_at`.
    pub(super) fn judge(self: &Arc<Self>, now: &Moment, requested_at: &Moment) -> Verdict {
        let mut own = self.lock();
        let mut key = self.key.lock();
        if is_after(own.denied_at.as_ref(), requested_at) || is_after(key.ended_at.as_ref(), requested_at) {
            return Verdict::Stale;
        }
        let Some(check) = self.key.check else { return Verdict::Drawable(Evidence::default(), None) };
        let of_context = own.allowed.as_ref().filter(|allowed| allowed.is_newer_than(requested_at));
        let context_at = of_context.map_or(requested_at, |allowed| &allowed.requested_at);
        let of_key = key.allowed.as_ref().filter(|allowed| allowed.is_newer_than(context_at));
        let (newest, scope) = match of_key {
            Some(allowed) if !check.by_context => (Some(allowed), AllowedScope::Key),
            _ => (of_context, AllowedScope::Context),
        };
        let newest_at = newest.map_or(requested_at, |allowed| &allowed.requested_at);
        let is_suspended = is_after(key.suspended_at.as_ref(), context_at);
        let allowed = newest.map(|allowed| (Arc::clone(allowed), scope));
        // While contexts are suspended, no other context's permission counts for this one.
        let age = now.since(if is_suspended { context_at } else { newest_at });
        let is_due = is_suspended || age > check.interval;
        let of_one_context = is_suspended || check.by_context;
        let trouble = key.trouble.as_ref().filter(|trouble| trouble.is_recent(now));
        let may_ask = trouble.is_none_or(|trouble| trouble.is_over(now));
        let failed = trouble.filter(|_| is_due).and_then(|trouble| trouble.event_id);
        let is_excused = failed.is_some() && age <= check.unverified_max;
        if is_due && !is_excused && !may_ask {
            return Verdict::Stale;
        }
        // After a recent failure, one check at a time for the whole key tests whether KMS can be asked again.
        let asking = if of_one_context && trouble.is_none() { &mut own.asking } else { &mut key.asking };
        if !is_due || is_excused {
            let wanted = is_due || age > check.ahead();
            let begun = (wanted && may_ask).then(|| asking.begin(self)).flatten();
            return Verdict::Drawable(Evidence { allowed, failed }, begun.map(|(_, check)| check));
        }
        Verdict::Due(match asking.begin(self) {
            Some((ended, check)) => Due { ended, check: Some(check) },
            None => Due { ended: asking.ended(), check: None },
        })
    }

    /// Whether KMS has withdrawn its permission since the call at `requested_at`.
    pub(super) fn has_ended(&self, requested_at: &Moment) -> bool {
        is_after(self.lock().denied_at.as_ref(), requested_at)
            || is_after(self.key.lock().ended_at.as_ref(), requested_at)
    }

    /// KMS has allowed the use, asked at `requested_at`.
    pub(super) fn allowed(&self, requested_at: Moment, source: Provenance) {
        let allowed = Arc::new(Allowed { requested_at, source });
        put_newer(&mut self.lock().allowed, &allowed);
        let mut key = self.key.lock();
        put_newer(&mut key.allowed, &allowed);
        key.trouble = None;
    }

    /// KMS has denied the use.
    pub(super) fn denied(&self, now: Moment) {
        self.lock().denied_at = Some(now);
        self.key.suspend(now);
    }

    /// KMS has said that the key is out of use.
    pub(super) fn ended(&self, now: Moment) {
        let mut key = self.key.lock();
        key.ended_at = Some(now);
        key.trouble = None;
    }

    /// KMS could not be asked, which the record `event_id` says if it could be written. There is a pause before the next check.
    pub(super) fn failed(&self, now: Moment, event_id: Option<Uuid>) {
        let mut key = self.key.lock();
        let before = key.trouble.take().filter(|trouble| trouble.is_recent(&now));
        let pause = before.map_or(FIRST_PAUSE, |trouble| (trouble.pause * 2).min(LONGEST_PAUSE));
        key.trouble = Some(Trouble { since: now, pause, event_id });
    }

    fn lock(&self) -> MutexGuard<'_, ContextState> {
        // No panic can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyStanding {
    /// The standing of `key` with KMS in `region`.
    pub(super) fn new(key: KeyArn, region: Arc<str>, check: Option<RevocationCheck>) -> Self {
        Self { key, region, check, state: Mutex::default() }
    }

    /// KMS has denied some context, so each other context is asked about at its next draw, unless KMS has allowed it since a
    /// suspension less than an interval ago. Without checks nothing changes.
    pub(super) fn suspend(&self, now: Moment) {
        let Some(RevocationCheck { interval, .. }) = self.check else { return };
        let mut state = self.lock();
        if state.suspended_at.is_none_or(|before| now.since(&before) > interval) {
            state.suspended_at = Some(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeyState> {
        // No panic can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowed {
    fn is_newer_than(&self, moment: &Moment) -> bool {
        self.requested_at.instant > moment.instant
    }
}

impl Trouble {
    /// Whether the failure still excuses the lack of a newer permission.
    fn is_recent(&self, now: &Moment) -> bool {
        now.since(&self.since) <= EXCUSE
    }

    /// Whether the pause is over, so that KMS may be asked again.
    fn is_over(&self, now: &Moment) -> bool {
        now.since(&self.since) >= self.pause
    }
}

impl Asking {
    /// Begins a check, if none is under way.
    fn begin(&mut self, standing: &Arc<Standing>) -> Option<(CancellationToken, Check)> {
        if self.0.as_ref().is_some_and(|ended| !ended.is_cancelled()) {
            return None;
        }
        let ended = CancellationToken::new();
        self.0 = Some(ended.clone());
        let check = Check { standing: Arc::clone(standing), _asking: ended.clone().drop_guard() };
        Some((ended, check))
    }

    /// The token that is cancelled when the check under way ends.
    fn ended(&self) -> CancellationToken {
        self.0.clone().unwrap_or_default()
    }
}

fn put_newer(place: &mut Option<Arc<Allowed>>, allowed: &Arc<Allowed>) {
    if place.as_ref().is_none_or(|before| allowed.is_newer_than(&before.requested_at)) {
        *place = Some(Arc::clone(allowed));
    }
}

/// Whether `moment` came after a call to KMS began at `requested_at`.
fn is_after(moment: Option<&Moment>, requested_at: &Moment) -> bool {
    moment.is_some_and(|moment| moment.instant >= requested_at.instant)
}

/// The pauses, at first and at most, before KMS is asked again after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a failed check excuses the lack of a newer permission.
const EXCUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
