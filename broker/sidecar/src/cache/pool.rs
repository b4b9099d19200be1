//! The slots of one kind of key, found by their partitions, and what is said about them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::clock::Moment;
use key_broker_core::{Action, Bounds, DeclaredUse, KeyArn, KeyId, UNBOUNDED};
use moka::ops::compute::Op;
use time::OffsetDateTime;

use super::cacheable::{Cacheable, CacheableReply as _};
use super::partition::{Owner, Partition};
use super::rules::Rule;
use super::slot::{MintedReply, Slot};
use crate::kms::recorded::{CallableRequest, Provenance};
use crate::policy::Permitted;

/// Which entries to evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvictionScope<'a> {
    /// Everything.
    All,
    /// What is kept for this principal alone.
    Principal(&'a str),
    /// Keys that callers requested under this name, and keys under the KMS key that it names.
    Key(&'a KeyId),
}

/// How much the cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheSize {
    /// Keys.
    pub entries: u64,
    /// Their bytes: plaintexts and ciphertexts.
    pub bytes: u64,
}

/// A kept key, without its secrets.
pub(crate) struct EntryView<'a> {
    /// Whose it is: a principal, or a shared partition.
    pub owner: &'a str,
    /// Whether that is a shared partition.
    pub is_shared: bool,
    /// What it answers.
    pub action: Action,
    /// The KMS key as the caller wrote it.
    pub key: Option<&'a KeyId>,
    /// The KMS key's ARN.
    pub arn: &'a KeyArn,
    /// The call to KMS behind it.
    pub source: &'a Provenance,
    /// When it is handed out for the last time.
    pub expires_at: OffsetDateTime,
    /// Its usage and limits; none for a decrypt.
    pub reuse: Option<Usage>,
}

/// How far a data key has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Charged so far, this draw included.
    pub(crate) used: DeclaredUse,
    /// Allowed in all.
    pub limit: DeclaredUse,
}

/// The slots of one kind of key.
pub(crate) struct Pool<R: Cacheable>(moka::sync::Cache<Partition, Arc<Entry<R>>>);

pub(crate) struct Entry<R: Cacheable> {
    owner: String,
    is_shared: bool,
    action: Action,
    key: Option<KeyId>,
    slot: Mutex<EntrySlot<R>>,
}

/// The slot of one partition: its requests differ only in who makes them.
type EntrySlot<R> = Slot<<R as CallableRequest>::Reply, Permitted<Arc<R>>>;

impl<R: Cacheable> Pool<R> {
    pub(super) fn new(max_entries: u64) -> Self {
        // moka bounds the number; age is ours to keep. Least recently used, so that a newcomer is always let in.
        let retire = |_: Arc<Partition>, entry: Arc<Entry<R>>, _| {
            entry.slot().retire();
        };
        let cache = moka::sync::Cache::builder()
            .max_capacity(max_entries)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener(retire)
            .build();
        Self(cache)
    }

    pub(super) fn entry(&self, request: &R, rule: &Rule, owner: Owner<'_>) -> Arc<Entry<R>> {
        let bounds =
            if R::IS_CHARGED { rule.bounds } else { Bounds { max_age: rule.bounds.max_age, ..UNBOUNDED } };
        self.0.get_with(request.partition(owner), || {
            Arc::new(Entry {
                owner: owner.name().to_owned(),
                is_shared: matches!(owner, Owner::Shared(_)),
                action: request.action(),
                key: request.written_key().cloned(),
                slot: Mutex::new(Slot::new(bounds, rule.refresh_at)),
            })
        })
    }

    pub(super) fn evict(&self, scope: &EvictionScope<'_>) -> usize {
        let evicted = self.0.iter().map(|(_, entry)| entry.evict(scope)).sum();
        // An entry that moka takes out on another thread may be missed above, while a draw still holds it: its keys are
        // dropped by the listener. moka's own tasks exclude each other, so the listener has run when this returns.
        self.0.run_pending_tasks();
        evicted
    }

    pub(super) fn list(&self, show: &mut dyn FnMut(&EntryView<'_>)) {
        for (_, entry) in &self.0 {
            let slot = entry.slot();
            for (minted, used, limit) in slot.kept() {
                show(&entry.view(slot.bounds(), minted, Usage { used, limit }));
            }
        }
    }

    pub(super) fn size(&self) -> CacheSize {
        let mut size = CacheSize::default();
        for (_, entry) in &self.0 {
            for (minted, ..) in entry.slot().kept() {
                size.entries += 1;
                size.bytes += minted.value.bytes() as u64;
            }
        }
        size
    }

    pub(super) fn sweep(&self, now: &Moment) {
        for (partition, entry) in &self.0 {
            if entry.slot().sweep(now) {
                // Only this very entry: another may have taken its place.
                self.0.entry(*partition).and_compute_with(|found| match found {
                    Some(found) if Arc::ptr_eq(found.value(), &entry) => Op::Remove,
                    _ => Op::Nop,
                });
            }
        }
        self.0.run_pending_tasks();
    }
}

impl<R: Cacheable> Entry<R> {
    pub(super) fn slot(&self) -> MutexGuard<'_, EntrySlot<R>> {
        // A panic in the state machine is a defect; what it holds is still within its bounds.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn evict(&self, scope: &EvictionScope<'_>) -> usize {
        let mut slot = self.slot();
        let wholly = match scope {
            EvictionScope::All => true,
            EvictionScope::Principal(principal) => !self.is_shared && self.owner == *principal,
            EvictionScope::Key(key) if self.key.as_ref() == Some(*key) => true,
            EvictionScope::Key(key) if self.key.as_ref().is_some_and(|own| !own.may_mean(key)) => false,
            EvictionScope::Key(key) => {
                return slot.evict_key(key, |value| key.names(value.key()));
            }
        };
        if wholly { slot.evict() } else { 0 }
    }

    pub(super) fn view<'a>(
        &'a self,
        bounds: &Bounds,
        minted: &'a MintedReply<R::Reply>,
        usage: Usage,
    ) -> EntryView<'a> {
        EntryView {
            owner: &self.owner,
            is_shared: self.is_shared,
            action: self.action,
            key: self.key.as_ref(),
            arn: minted.value.key(),
            source: &minted.source,
            expires_at: minted.requested_at.wall + bounds.max_age,
            reuse: R::IS_CHARGED.then_some(usage),
        }
    }
}
