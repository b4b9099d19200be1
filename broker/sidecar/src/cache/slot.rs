//! A slot: the data keys of one partition and the draws that wait for one, as a state machine without clock, task or lock.
//!
//! A slot makes as many concurrent calls to KMS as its waiting draws need keys, and at most one more to replace a key before it
//! is used up. Waiting draws are served in order of arrival, each charged before the next is considered.

mod need;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Moment;
use key_broker_core::{Bounds, DeclaredUse, KeyArn, KeyId};
use tokio::sync::oneshot;

use super::standing::{Check, Due, Evidence, Standing, Verdict};
use crate::error::BrokerError;
use crate::kms::recorded::Provenance;
use need::{Charges, Need};

/// A reply of KMS as the slot holds it.
pub(super) struct MintedReply<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Provenance,
    /// When KMS was called for it, which is where its age begins.
    pub(super) requested_at: Moment,
    /// What is known of KMS's permission to use it.
    pub(super) standing: Arc<Standing>,
}

/// What one draw needs. `R` is what a call to KMS takes: a permitted request.
pub(super) struct Demand<R> {
    pub(super) request: R,
    pub(super) declared: DeclaredUse,
    /// The configured bounds, tightened by the caller's.
    pub(super) bounds: Bounds,
}

/// A served draw.
pub(super) struct Draw<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Provenance,
    /// Charged so far, this draw included.
    pub(super) used: DeclaredUse,
    /// The most that may be charged.
    pub(super) limit: DeclaredUse,
    /// When KMS was called for the key.
    pub(super) requested_at: Moment,
    /// When it was drawn.
    pub(super) drawn_at: Moment,
    /// Whether KMS was called for this draw. Draws that waited with it share its key.
    pub(super) called_kms: bool,
    /// Why the key may still be drawn.
    pub(super) evidence: Evidence,
}

/// Why a waiting draw got no key.
pub(super) enum DrawFailure {
    /// KMS or the journal refused or failed.
    Error(BrokerError),
    /// The slot was retired: the partition has a new one.
    Retired,
}

/// How a waiting draw ends.
pub(super) type DrawResult<T> = Result<Draw<T>, DrawFailure>;

/// What a slot answers to a demand.
pub(super) enum DrawStep<T, R> {
    /// Served from a cached key. With a mint, a replacement is to be fetched in the background; with a check, KMS is to be asked.
    Drawn(Draw<T>, Option<Mint<R>>, Option<Check>),
    /// The draw waits for a check and then asks the slot again.
    Check(Due),
    /// The draw waits for a call to KMS. These calls are to be made.
    Wait(oneshot::Receiver<DrawResult<T>>, Vec<Mint<R>>),
    /// The slot was retired.
    Retired,
}

/// A call to KMS that is to be made. The slot must be given its result.
pub(super) struct Mint<R> {
    pub(super) request: R,
    pub(super) ticket: Ticket,
}

/// The number of one of a slot's calls to KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Which waiting draws a failed call to KMS concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The first of those whom its key would have served; the others get one more call.
    Leader,
    /// All whom its key would have served.
    Served,
    /// All that wait: another call would end the same way.
    Everybody,
}

/// The keys of one partition.
pub(super) struct Slot<T, R> {
    bounds: Bounds,
    /// The share of any bound from which a replacement is fetched; `None` for never.
    refresh_at: Option<f64>,
    current: Option<KeptKey<T>>,
    next: Option<KeptKey<T>>,
    /// The calls to KMS in flight, in the order of their start.
    minting: Vec<Minting>,
    next_ticket: Ticket,
    /// No refresh is tried before this, since one has failed.
    refresh_not_before: Option<Moment>,
    waiting: VecDeque<Waiter<T, R>>,
    /// How many keys the waiting draws need.
    need: Need,
    retired: bool,
}

/// A call to KMS in flight.
struct Minting {
    ticket: Ticket,
    /// Its reply is not served, since it was evicted in advance.
    evicted: bool,
    /// KMS keys evicted since it began: its reply may be under one of them.
    evicted_keys: Vec<KeyId>,
}

/// A data key and how far it is used.
struct KeptKey<T> {
    minted: MintedReply<T>,
    used: Charges,
}

/// A waiting draw.
struct Waiter<T, R> {
    demand: Demand<R>,
    /// The first call to KMS that began after this draw came.
    since: Ticket,
    failures: u8,
    answer: oneshot::Sender<DrawResult<T>>,
}

impl<T, R: Clone> Slot<T, R> {
    pub(super) fn new(bounds: Bounds, refresh_at: Option<f64>) -> Self {
        Self {
            bounds,
            refresh_at,
            current: None,
            next: None,
            minting: Vec::new(),
            next_ticket: Ticket(0),
            refresh_not_before: None,
            waiting: VecDeque::new(),
            need: Need::default(),
            retired: false,
        }
    }

    /// Serves a demand, or has it wait.
    pub(super) fn draw(&mut self, now: &Moment, demand: Demand<R>) -> DrawStep<T, R> {
        if self.retired {
            return DrawStep::Retired;
        }
        self.drop_spent(now);
        // The replacement may have room for this draw where the current key has none.
        let is_current = self.next.is_none() || self.room(now, &demand).is_some();
        if !is_current {
            self.current = self.next.take();
        }
        if self.room(now, &demand).is_some()
            && let Some(key) = &self.current
        {
            match key.minted.standing.judge(now, &key.minted.requested_at) {
                Verdict::Due(due) => return DrawStep::Check(due),
                Verdict::Drawable(evidence, check) => {
                    if let Some(draw) = self.charge(now, &demand, evidence) {
                        let refresh =
                            (is_current && self.wants_refresh(now)).then(|| self.mint(demand.request));
                        return DrawStep::Drawn(draw, refresh, check);
                    }
                }
                // The replacement is newer, so it may still be allowed.
                Verdict::Stale if self.next.is_some() => {
                    self.current = self.next.take();
                    return self.draw(now, demand);
                }
                Verdict::Stale => {}
            }
        }
        let (answer, wait) = oneshot::channel();
        self.need.add(&self.bounds, demand.declared, &demand.bounds);
        self.waiting.push_back(Waiter { demand, since: self.next_ticket, failures: 0, answer });
        let mints = if self.lacks_calls() { self.mint_for_waiting() } else { Vec::new() };
        DrawStep::Wait(wait, mints)
    }

    /// A call to KMS has brought a key. Returns the calls that are to be made for draws that still wait.
    pub(super) fn minted(&mut self, now: &Moment, ticket: Ticket, minted: MintedReply<T>) -> Vec<Mint<R>> {
        let is_evicted = self.ended(ticket).is_none_or(|minting| minting.evicted);
        self.refresh_not_before = None;
        if !is_evicted {
            let used = Charges::unused(&self.bounds);
            let key = KeptKey { minted, used };
            self.drop_spent(now);
            self.waiting.retain(|waiting| !waiting.answer.is_closed());
            let ahead = self.waiting.is_empty() && self.current.is_some();
            *(if ahead { &mut self.next } else { &mut self.current }) = Some(key);
            // Never from an older key, for which these draws came too late.
            self.serve_waiting(now);
        }
        self.mint_for_waiting()
    }

    /// A call to KMS has failed. Returns the calls that are to be made for draws that still wait.
    pub(super) fn failed(
        &mut self,
        not_before: Moment,
        ticket: Ticket,
        error: &BrokerError,
        blame: Blame,
    ) -> Vec<Mint<R>> {
        self.ended(ticket);
        self.refresh_not_before = Some(not_before);
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        // All callers that this call was made for have gone away; those that came later get a call of their own.
        let came_later = self.waiting.front().is_some_and(|first| first.since > ticket);
        let served = match blame {
            Blame::Everybody => self.waiting.len(),
            Blame::Leader | Blame::Served if came_later => 0,
            Blame::Leader | Blame::Served => self.served_by_one(),
        };
        let others = self.waiting.split_off(served);
        let concerned = std::mem::replace(&mut self.waiting, others);
        for (place, mut waiting) in concerned.into_iter().enumerate().rev() {
            waiting.failures += 1;
            if blame != Blame::Leader || place == 0 || waiting.failures > 1 {
                // The caller may have gone away.
                let _ = waiting.answer.send(Err(DrawFailure::Error(error.clone())));
            } else {
                self.waiting.push_front(waiting);
            }
        }
        self.mint_for_waiting()
    }

    /// Drops the keys, including those that calls in flight will bring. Returns how many were cached.
    pub(super) fn evict(&mut self) -> usize {
        self.minting.iter_mut().for_each(|minting| minting.evicted = true);
        usize::from(self.current.take().is_some()) + usize::from(self.next.take().is_some())
    }

    /// Drops the data keys under the KMS key `key`; `is_named` tells whether a reply is under it. Returns how many were dropped.
    /// What the calls in flight bring must go through [`Self::judge`].
    pub(super) fn evict_key(&mut self, key: &KeyId, is_named: impl Fn(&T) -> bool) -> usize {
        let named = |kept: &mut KeptKey<T>| is_named(&kept.minted.value);
        let next = self.next.take_if(named).is_some();
        let current = self.current.take_if(named).is_some();
        if self.current.is_none() {
            self.current = self.next.take();
        }
        for minting in &mut self.minting {
            if minting.evicted_keys.len() < MAX_EVICTED_MEANWHILE {
                if !minting.evicted_keys.contains(key) {
                    minting.evicted_keys.push(key.clone());
                }
            } else {
                minting.evicted = true;
            }
        }
        usize::from(current) + usize::from(next)
    }

    /// Called before [`Self::minted`]: a reply whose KMS key was evicted during the call is never served.
    pub(super) fn judge(&mut self, ticket: Ticket, arn: &KeyArn) {
        let minting = self.minting.iter_mut().filter(|minting| minting.ticket == ticket);
        for minting in minting.filter(|minting| minting.evicted_keys.iter().any(|key| key.names(arn))) {
            minting.evicted = true;
        }
    }

    /// Retires the slot, which draws no longer find. Returns how many keys were dropped.
    pub(super) fn retire(&mut self) -> usize {
        self.retired = true;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.answer.send(Err(DrawFailure::Retired));
        }
        self.evict()
    }

    /// Drops spent keys. Retires the slot, and returns true, if it has neither keys, nor calls, nor waiting draws.
    pub(super) fn sweep(&mut self, now: &Moment) -> bool {
        self.drop_spent(now);
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        self.retired |= self.current.is_none()
            && self.next.is_none()
            && self.minting.is_empty()
            && self.waiting.is_empty();
        self.retired
    }

    /// The cached keys, how far they are used, and their limits.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&MintedReply<T>, DeclaredUse, DeclaredUse)> {
        self.current.iter().chain(&self.next).map(|key| (&key.minted, key.used.used, key.used.limit))
    }

    /// The configured bounds.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The charges of the current key after this draw; `None` if it has no room for it.
    fn room(&self, now: &Moment, demand: &Demand<R>) -> Option<Charges> {
        let key = self.current.as_ref()?;
        let is_young = now.since(&key.minted.requested_at) <= demand.bounds.max_age;
        key.used.charged(demand.declared, &demand.bounds).filter(|_| is_young)
    }

    /// Whether the current key is too old only because the wall clock was set ahead, or the machine slept, during the call to KMS: another call
    /// brings one that is not.
    fn is_old_by_the_wall_clock_alone(&self, now: &Moment, demand: &Demand<R>) -> bool {
        self.current.as_ref().is_some_and(|key| {
            let requested_at = &key.minted.requested_at;
            let took = now.instant.saturating_duration_since(requested_at.instant);
            took <= demand.bounds.max_age && now.since(requested_at) > demand.bounds.max_age
        })
    }

    fn charge(&mut self, now: &Moment, demand: &Demand<R>, evidence: Evidence) -> Option<Draw<T>> {
        let used = self.room(now, demand)?;
        let key = self.current.as_mut()?;
        key.used = used;
        Some(Draw {
            value: Arc::clone(&key.minted.value),
            source: key.minted.source.clone(),
            used: key.used.used,
            limit: key.used.limit,
            requested_at: key.minted.requested_at,
            drawn_at: *now,
            called_kms: false,
            evidence,
        })
    }

    /// Serves waiting draws in order, as far as the current key goes.
    fn serve_waiting(&mut self, now: &Moment) {
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.answer.is_closed() {
                continue;
            }
            let Some(before) = self.current.as_ref().map(|key| key.used) else {
                return self.waiting.push_front(waiting);
            };
            let Some(mut draw) = self.charge(now, &waiting.demand, Evidence::default()) else {
                if before.used == DeclaredUse::default()
                    && !self.is_old_by_the_wall_clock_alone(now, &waiting.demand)
                {
                    // Even an unused key is too old: KMS took longer than the caller's max_age.
                    let _ = waiting.answer.send(Err(DrawFailure::Error(BrokerError::DeadlineExceeded)));
                    continue;
                }
                return self.waiting.push_front(waiting);
            };
            draw.called_kms = before.used == DeclaredUse::default();
            if waiting.answer.send(Ok(draw)).is_err()
                && let Some(key) = &mut self.current
            {
                // The caller has gone away, so nothing was handed out.
                key.used = before;
            }
        }
    }

    /// Whether the waiting draws need more keys than calls to KMS are in flight.
    fn lacks_calls(&self) -> bool {
        self.minting.iter().filter(|minting| !minting.evicted).count() < self.need.keys()
    }

    /// The calls to KMS that the waiting draws need beyond those in flight.
    fn mint_for_waiting(&mut self) -> Vec<Mint<R>> {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        self.need = Need::default();
        for Waiter { demand, .. } in &self.waiting {
            self.need.add(&self.bounds, demand.declared, &demand.bounds);
        }
        let mut mints = Vec::new();
        while self.lacks_calls()
            && let Some(request) = self.waiting.front().map(|waiting| waiting.demand.request.clone())
        {
            mints.push(self.mint(request));
        }
        mints
    }

    fn mint(&mut self, request: R) -> Mint<R> {
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0 + 1);
        self.minting.push(Minting { ticket, evicted: false, evicted_keys: Vec::new() });
        Mint { request, ticket }
    }

    fn ended(&mut self, ticket: Ticket) -> Option<Minting> {
        let place = self.minting.iter().position(|minting| minting.ticket == ticket)?;
        Some(self.minting.remove(place))
    }

    /// How many of the waiting draws, from the first on, one key would serve.
    fn served_by_one(&self) -> usize {
        let mut need = Need::default();
        let fits = |waiting: &&Waiter<T, R>| {
            need.add(&self.bounds, waiting.demand.declared, &waiting.demand.bounds);
            need.keys() == 1
        };
        self.waiting.iter().take_while(fits).count()
    }

    fn drop_spent(&mut self, now: &Moment) {
        let spent = |key: &KeptKey<T>| {
            // Every draw takes a message; one that declares no bytes still fits when the bytes are used up.
            key.used.used.messages >= key.used.limit.messages
                || now.since(&key.minted.requested_at) > self.bounds.max_age
                || key.minted.standing.has_ended(&key.minted.requested_at)
        };
        if self.next.as_ref().is_some_and(spent) {
            self.next = None;
        }
        if self.current.as_ref().is_some_and(spent) {
            self.current = self.next.take();
        }
    }

    fn wants_refresh(&self, now: &Moment) -> bool {
        let (Some(share), Some(key)) = (self.refresh_at, &self.current) else { return false };
        let waits = self.refresh_not_before.is_some_and(|moment| now.instant < moment.instant);
        if !self.minting.is_empty() || self.next.is_some() || waits {
            return false;
        }
        let age = now.since(&key.minted.requested_at) >= self.bounds.max_age.mul_f64(share);
        let Charges { used, limit } = &key.used;
        age || reached(used.messages, limit.messages, share) || reached(used.bytes, limit.bytes, share)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no precision")]
fn reached(used: u64, limit: u64, share: f64) -> bool {
    used as f64 >= limit as f64 * share
}

/// The pause after a failed background refresh; meanwhile the current key serves.
pub(super) const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Evictions remembered during one call to KMS, which takes some tens of milliseconds. If there are more, the
/// reply of the call is dropped.
const MAX_EVICTED_MEANWHILE: usize = 64;

#[cfg(test)]
mod tests;
