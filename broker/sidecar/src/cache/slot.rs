//! One partition's data keys, and who waits for one: a state machine without clocks, tasks or locks of its own.
//!
//! At most one call to KMS is under way for a slot. Those who wait are served in the order in which they came, each
//! charged before the next is looked at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Moment;
use key_broker_core::{Bounds, DeclaredUse, KeyArn, KeyId, UNUSED};
use tokio::sync::oneshot;

use crate::error::BrokerError;
use crate::kms::recorded::Source;
use crate::policy::Permit;

/// A minted key, as the slot keeps it.
pub(super) struct Minted<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Source,
    /// When KMS was asked for it: its age counts from here.
    pub(super) asked: Moment,
}

/// What one caller wants.
pub(super) struct Demand {
    pub(super) permit: Permit,
    pub(super) declared: DeclaredUse,
    /// The configured bounds, tightened by the caller's.
    pub(super) bounds: Bounds,
}

/// One draw from a key.
pub(super) struct Draw<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Source,
    /// Charged so far, this draw included.
    pub(super) used: DeclaredUse,
    /// When KMS was asked for the key.
    pub(super) asked: Moment,
    /// Whether KMS was called for this very draw. Those who waited beside it share its key.
    pub(super) called_kms: bool,
}

/// Why a draw that waited has no key.
pub(super) enum Failure {
    /// KMS or the journal could not.
    Error(BrokerError),
    /// The slot is out of use: draw from the partition's new one.
    Retired,
}

/// What a draw that waits gets.
pub(super) type Answer<T> = Result<Draw<T>, Failure>;

/// Where an answer to a demand comes from.
pub(super) enum Step<T> {
    /// From a key that is there. With a permit, a replacement is to be minted in the background.
    Drawn(Draw<T>, Option<Permit>),
    /// From a call to KMS: wait. With a permit, that call is to be made.
    Wait(oneshot::Receiver<Answer<T>>, Option<Permit>),
    /// Not from this slot: it is out of use.
    Retired,
}

/// The keys of one partition.
pub(super) struct Slot<T> {
    bounds: Bounds,
    /// From which share of age or messages on a replacement is minted; none is never.
    refresh_at: Option<f64>,
    current: Option<Key<T>>,
    next: Option<Key<T>>,
    minting: bool,
    /// After a failed refresh none is tried before this.
    refresh_not_before: Option<Moment>,
    /// Counts evictions: a key that was asked for before one is never served.
    epoch: u64,
    /// Evicted while a call to KMS is under way, which may bring a data key under one of them.
    evicted_meanwhile: Vec<KeyId>,
    waiting: VecDeque<Waiting<T>>,
    retired: bool,
}

struct Key<T> {
    minted: Minted<T>,
    used: DeclaredUse,
}

struct Waiting<T> {
    demand: Demand,
    failures: u8,
    answer: oneshot::Sender<Answer<T>>,
}

impl<T> Slot<T> {
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

    /// The number of evictions so far, to be given back with what a call to KMS brings.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Serves one demand, or makes it wait.
    pub(super) fn draw(&mut self, now: &Moment, demand: Demand) -> Step<T> {
        if self.retired {
            return Step::Retired;
        }
        self.drop_spent(now);
        if let Some(draw) = self.charge(now, &demand) {
            let refresh = self.wants_refresh(now);
            self.minting |= refresh;
            return Step::Drawn(draw, refresh.then_some(demand.permit));
        }
        // The key at hand is used up for this caller; the replacement may serve.
        if self.next.is_some() {
            self.current = self.next.take();
            if let Some(draw) = self.charge(now, &demand) {
                return Step::Drawn(draw, None);
            }
        }
        let (answer, wait) = oneshot::channel();
        let permit = (!self.minting).then(|| demand.permit.again());
        self.minting = true;
        self.waiting.push_back(Waiting { demand, failures: 0, answer });
        Step::Wait(wait, permit)
    }

    /// A call to KMS brought a key. Returns the permit for another call if somebody is still waiting.
    pub(super) fn minted(&mut self, now: &Moment, epoch: u64, minted: Minted<T>) -> Option<Permit> {
        self.minting = false;
        self.evicted_meanwhile.clear();
        self.refresh_not_before = None;
        if epoch == self.epoch {
            let key = Key { minted, used: UNUSED };
            self.drop_spent(now);
            let ahead = self.waiting.is_empty() && self.current.is_some();
            *(if ahead { &mut self.next } else { &mut self.current }) = Some(key);
        }
        self.serve_waiting(now);
        self.next_call()
    }

    /// A call to KMS failed. Those who wait get another one, once; where KMS has refused for good, all get the refusal.
    pub(super) fn failed(
        &mut self,
        not_before: Moment,
        error: &BrokerError,
        for_good: bool,
    ) -> Option<Permit> {
        self.minting = false;
        self.evicted_meanwhile.clear();
        self.refresh_not_before = Some(not_before);
        let mut still_waiting = VecDeque::new();
        for (place, mut waiting) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            waiting.failures += 1;
            let leads = place == 0;
            if leads || for_good || waiting.failures > 1 {
                // Who has gone needs no answer.
                let _ = waiting.answer.send(Err(Failure::Error(error.clone())));
            } else {
                still_waiting.push_back(waiting);
            }
        }
        self.waiting = still_waiting;
        self.next_call()
    }

    /// Drops the keys, and whatever a call to KMS that is under way will bring. Returns how many keys there were.
    pub(super) fn evict(&mut self) -> usize {
        self.epoch += 1;
        usize::from(self.current.take().is_some()) + usize::from(self.next.take().is_some())
    }

    /// Drops the keys that are under the KMS key `key`, however callers wrote it: `is_named` says which. Returns how many there
    /// were. What a call under way brings is to be judged by [`Self::judge`].
    pub(super) fn evict_key(&mut self, key: &KeyId, is_named: impl Fn(&T) -> bool) -> usize {
        let named = |kept: &mut Key<T>| is_named(&kept.minted.value);
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

    /// Takes the slot out of use, for it is no longer where draws find it. Returns how many keys there were.
    pub(super) fn retire(&mut self) -> usize {
        self.retired = true;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.answer.send(Err(Failure::Retired));
        }
        self.evict()
    }

    /// Drops keys that can serve nobody any more. A slot that has none left and is not waited for is taken out of use:
    /// then true.
    pub(super) fn sweep(&mut self, now: &Moment) -> bool {
        self.drop_spent(now);
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        self.retired |=
            self.current.is_none() && self.next.is_none() && !self.minting && self.waiting.is_empty();
        self.retired
    }

    /// The keys at hand, and how far they are used.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&Minted<T>, DeclaredUse)> {
        self.current.iter().chain(&self.next).map(|key| (&key.minted, key.used))
    }

    /// The configured bounds.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn charge(&mut self, now: &Moment, demand: &Demand) -> Option<Draw<T>> {
        let key = self.current.as_mut()?;
        if now.since(&key.minted.asked) > demand.bounds.max_age {
            return None;
        }
        key.used = demand.bounds.charge(key.used, demand.declared)?;
        Some(Draw {
            value: Arc::clone(&key.minted.value),
            source: key.minted.source.clone(),
            used: key.used,
            asked: key.minted.asked,
            called_kms: false,
        })
    }

    /// Serves those who wait, in order, as far as the key at hand goes.
    fn serve_waiting(&mut self, now: &Moment) {
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.answer.is_closed() {
                continue;
            }
            let Some(before) = self.current.as_ref().map(|key| key.used) else {
                return self.waiting.push_front(waiting);
            };
            let Some(mut draw) = self.charge(now, &waiting.demand) else {
                if before == UNUSED {
                    // Not even a key nobody has used is young enough: KMS is slower than the caller's max_age.
                    let _ = waiting.answer.send(Err(Failure::Error(BrokerError::DeadlineExceeded)));
                    continue;
                }
                return self.waiting.push_front(waiting);
            };
            draw.called_kms = before == UNUSED;
            if waiting.answer.send(Ok(draw)).is_err()
                && let Some(key) = &mut self.current
            {
                // It has gone without the key: nothing was handed out.
                key.used = before;
            }
        }
    }

    fn next_call(&mut self) -> Option<Permit> {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        let permit = self.waiting.front()?.demand.permit.again();
        self.minting = true;
        Some(permit)
    }

    fn drop_spent(&mut self, now: &Moment) {
        let spent = |key: &Key<T>| {
            // Every draw takes a message; one that declares no bytes still fits where the bytes are used up.
            key.used.messages >= self.bounds.max_messages
                || now.since(&key.minted.asked) > self.bounds.max_age
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
        let age = now.since(&key.minted.asked) >= self.bounds.max_age.mul_f64(share);
        age || reached(key.used.messages, self.bounds.max_messages, share)
            || reached(key.used.bytes, self.bounds.max_bytes, share)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no precision")]
fn reached(used: u64, limit: u64, share: f64) -> bool {
    used as f64 >= limit as f64 * share
}

/// After a refresh that failed in the background, callers go on with the key at hand.
pub(super) const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Keys that are evicted within one call to KMS, some tens of milliseconds; above, what the call brings is dropped unseen.
const MAX_EVICTED_MEANWHILE: usize = 64;

#[cfg(test)]
mod tests;
