//! The data keys of one partition, and the draws that wait for one: a state machine without clocks, tasks or
//! locks of its own.
//!
//! A slot has at most one call to KMS in flight. Waiting draws are served in order of arrival, each charged
//! before the next is considered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Moment;
use key_broker_core::{Bounds, DeclaredUse, KeyArn, KeyId, UNUSED};
use tokio::sync::oneshot;

use crate::error::BrokerError;
use crate::kms::recorded::Provenance;

/// A reply that KMS minted, as the slot keeps it.
pub(super) struct MintedReply<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Provenance,
    /// When KMS was called for it: its age counts from here.
    pub(super) requested_at: Moment,
}

/// What one draw needs. `R` is what a call to KMS takes: the permitted request.
pub(super) struct Demand<R> {
    pub(super) request: R,
    pub(super) declared: DeclaredUse,
    /// The configured bounds, tightened by the caller's.
    pub(super) bounds: Bounds,
}

/// One draw from a key.
pub(super) struct Draw<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Provenance,
    /// Charged so far, this draw included.
    pub(super) used: DeclaredUse,
    /// What may be charged in all.
    pub(super) limit: DeclaredUse,
    /// When KMS was called for the key.
    pub(super) requested_at: Moment,
    /// Whether KMS was called for this very draw. Draws that waited with it share its key.
    pub(super) called_kms: bool,
}

/// Why a waiting draw got no key.
pub(super) enum DrawFailure {
    /// KMS refused or failed, or the journal did.
    Error(BrokerError),
    /// The slot was retired: draw from the partition's new one.
    Retired,
}

/// How a waiting draw ends.
pub(super) type DrawResult<T> = Result<Draw<T>, DrawFailure>;

/// What a slot does with a demand.
pub(super) enum DrawStep<T, R> {
    /// Serves it from a kept key. With a request, a replacement is to be minted in the background.
    Drawn(Draw<T>, Option<R>),
    /// Makes it wait for a call to KMS. With a request, that call is to be made.
    Wait(oneshot::Receiver<DrawResult<T>>, Option<R>),
    /// Nothing: the slot was retired.
    Retired,
}

/// The keys of one partition.
pub(super) struct Slot<T, R> {
    bounds: Bounds,
    /// The share of any bound from which a replacement is minted; none is never.
    refresh_at: Option<f64>,
    current: Option<KeptKey<T>>,
    next: Option<KeptKey<T>>,
    minting: bool,
    /// After a failed refresh none is tried before this.
    refresh_not_before: Option<Moment>,
    /// Counts evictions: a key that was requested before one is never served.
    epoch: u64,
    /// KMS keys evicted during the call in flight, which may bring a data key under one of them.
    evicted_meanwhile: Vec<KeyId>,
    waiting: VecDeque<Waiter<T, R>>,
    retired: bool,
}

/// A data key and how far it is used.
struct KeptKey<T> {
    minted: MintedReply<T>,
    used: DeclaredUse,
    /// The tightest that any draw was promised: who got the key may count on it, whoever draws later.
    limit: DeclaredUse,
}

/// A waiting draw.
struct Waiter<T, R> {
    demand: Demand<R>,
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
            minting: false,
            refresh_not_before: None,
            epoch: 0,
            evicted_meanwhile: Vec::new(),
            waiting: VecDeque::new(),
            retired: false,
        }
    }

    /// The number of evictions so far, to be handed back with what a call to KMS brings.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Serves one demand, or makes it wait.
    pub(super) fn draw(&mut self, now: &Moment, demand: Demand<R>) -> DrawStep<T, R> {
        if self.retired {
            return DrawStep::Retired;
        }
        self.drop_spent(now);
        if let Some(draw) = self.charge(now, &demand) {
            let refresh = self.wants_refresh(now);
            self.minting |= refresh;
            return DrawStep::Drawn(draw, refresh.then_some(demand.request));
        }
        // The current key has no room for this draw; the replacement may.
        if self.next.is_some() {
            self.current = self.next.take();
            if let Some(draw) = self.charge(now, &demand) {
                return DrawStep::Drawn(draw, None);
            }
        }
        let (answer, wait) = oneshot::channel();
        let call = (!self.minting).then(|| demand.request.clone());
        self.minting = true;
        self.waiting.push_back(Waiter { demand, failures: 0, answer });
        DrawStep::Wait(wait, call)
    }

    /// A call to KMS brought a key. Returns the request of another call if draws are still waiting.
    pub(super) fn minted(&mut self, now: &Moment, epoch: u64, minted: MintedReply<T>) -> Option<R> {
        self.minting = false;
        self.evicted_meanwhile.clear();
        self.refresh_not_before = None;
        if epoch == self.epoch {
            let limit = DeclaredUse { messages: self.bounds.max_messages, bytes: self.bounds.max_bytes };
            let key = KeptKey { minted, used: UNUSED, limit };
            self.drop_spent(now);
            let ahead = self.waiting.is_empty() && self.current.is_some();
            *(if ahead { &mut self.next } else { &mut self.current }) = Some(key);
        }
        self.serve_waiting(now);
        self.next_call()
    }

    /// A call to KMS failed. Waiting draws get one more call; if KMS has refused for good, all get the
    /// refusal.
    pub(super) fn failed(&mut self, not_before: Moment, error: &BrokerError, for_good: bool) -> Option<R> {
        self.minting = false;
        self.evicted_meanwhile.clear();
        self.refresh_not_before = Some(not_before);
        let mut still_waiting = VecDeque::new();
        for (place, mut waiting) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            waiting.failures += 1;
            let leads = place == 0;
            if leads || for_good || waiting.failures > 1 {
                // A caller that is gone needs no answer.
                let _ = waiting.answer.send(Err(DrawFailure::Error(error.clone())));
            } else {
                still_waiting.push_back(waiting);
            }
        }
        self.waiting = still_waiting;
        self.next_call()
    }

    /// Drops the keys, and whatever the call in flight will bring. Returns how many keys there were.
    pub(super) fn evict(&mut self) -> usize {
        self.epoch += 1;
        usize::from(self.current.take().is_some()) + usize::from(self.next.take().is_some())
    }

    /// Drops the keys that are under the KMS key `key`, however callers wrote it: `is_named` says which.
    /// Returns how many there were. What the call in flight brings is to be judged by [`Self::judge`].
    pub(super) fn evict_key(&mut self, key: &KeyId, is_named: impl Fn(&T) -> bool) -> usize {
        let named = |kept: &mut KeptKey<T>| is_named(&kept.minted.value);
        let next = self.next.take_if(named).is_some();
        let current = self.current.take_if(named).is_some();
        if self.current.is_none() {
            self.current = self.next.take();
        }
        if self.minting && !self.evicted_meanwhile.contains(key) {
            if self.evicted_meanwhile.len() < MAX_EVICTED_MEANWHILE {
                self.evicted_meanwhile.push(key.clone());
            } else {
                self.epoch += 1;
            }
        }
        usize::from(current) + usize::from(next)
    }

    /// Judges what a call to KMS brought, before [`Self::minted`]: if its KMS key was evicted meanwhile, it is never served.
    pub(super) fn judge(&mut self, arn: &KeyArn) {
        if self.evicted_meanwhile.iter().any(|key| key.names(arn)) {
            self.epoch += 1;
        }
    }

    /// Retires the slot: draws no longer find it. Returns how many keys there were.
    pub(super) fn retire(&mut self) -> usize {
        self.retired = true;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.answer.send(Err(DrawFailure::Retired));
        }
        self.evict()
    }

    /// Drops spent keys. A slot without keys and without waiting draws is retired: then true.
    pub(super) fn sweep(&mut self, now: &Moment) -> bool {
        self.drop_spent(now);
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        self.retired |=
            self.current.is_none() && self.next.is_none() && !self.minting && self.waiting.is_empty();
        self.retired
    }

    /// The kept keys, how far they are used, and how far they may be.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&MintedReply<T>, DeclaredUse, DeclaredUse)> {
        self.current.iter().chain(&self.next).map(|key| (&key.minted, key.used, key.limit))
    }

    /// The configured bounds.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn charge(&mut self, now: &Moment, demand: &Demand<R>) -> Option<Draw<T>> {
        let key = self.current.as_mut()?;
        if now.since(&key.minted.requested_at) > demand.bounds.max_age {
            return None;
        }
        let bounds = Bounds {
            max_messages: key.limit.messages.min(demand.bounds.max_messages),
            max_bytes: key.limit.bytes.min(demand.bounds.max_bytes),
            ..demand.bounds
        };
        key.used = bounds.charge(key.used, demand.declared)?;
        key.limit = DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes };
        Some(Draw {
            value: Arc::clone(&key.minted.value),
            source: key.minted.source.clone(),
            used: key.used,
            limit: key.limit,
            requested_at: key.minted.requested_at,
            called_kms: false,
        })
    }

    /// Serves waiting draws in order, as far as the current key goes.
    fn serve_waiting(&mut self, now: &Moment) {
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.answer.is_closed() {
                continue;
            }
            let Some((before, limit)) = self.current.as_ref().map(|key| (key.used, key.limit)) else {
                return self.waiting.push_front(waiting);
            };
            let Some(mut draw) = self.charge(now, &waiting.demand) else {
                if before == UNUSED {
                    // Even an unused key is too old: KMS is slower than the caller's max_age.
                    let _ = waiting.answer.send(Err(DrawFailure::Error(BrokerError::DeadlineExceeded)));
                    continue;
                }
                return self.waiting.push_front(waiting);
            };
            draw.called_kms = before == UNUSED;
            if waiting.answer.send(Ok(draw)).is_err()
                && let Some(key) = &mut self.current
            {
                // The caller is gone: nothing was handed out.
                (key.used, key.limit) = (before, limit);
            }
        }
    }

    fn next_call(&mut self) -> Option<R> {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        let request = self.waiting.front()?.demand.request.clone();
        self.minting = true;
        Some(request)
    }

    fn drop_spent(&mut self, now: &Moment) {
        let spent = |key: &KeptKey<T>| {
            // Every draw takes a message; one that declares no bytes still fits where the bytes are used up.
            key.used.messages >= key.limit.messages
                || now.since(&key.minted.requested_at) > self.bounds.max_age
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
        if self.minting || self.next.is_some() || waits {
            return false;
        }
        let age = now.since(&key.minted.requested_at) >= self.bounds.max_age.mul_f64(share);
        age || reached(key.used.messages, key.limit.messages, share)
            || reached(key.used.bytes, key.limit.bytes, share)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no precision")]
fn reached(used: u64, limit: u64, share: f64) -> bool {
    used as f64 >= limit as f64 * share
}

/// The pause after a failed background refresh; meanwhile the current key serves.
pub(super) const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Evictions remembered during one call to KMS, some tens of milliseconds. Beyond, whatever the call brings
/// is dropped.
const MAX_EVICTED_MEANWHILE: usize = 64;

#[cfg(test)]
mod tests;
