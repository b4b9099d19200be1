//! The slots of one kind of reply, found by their partitions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::clock::Moment;
use key_broker_core::{Action, Bounds, DeclaredUse, KeyArn, KeyId, Principal};
use time::OffsetDateTime;

use super::cacheable::{Cacheable, CacheableReply as _};
use super::key_index::KeyIndex;
use super::partition::{Owner, Partition};
use super::rules::Rule;
use super::slot::{MintedReply, Slot};
use crate::fair_memory::FairMemory;
use crate::kms::recorded::{CallableRequest, Provenance};
use crate::policy::Permitted;

/// Which entries to evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvictionScope<'a> {
    /// Everything.
    All,
    /// Everything cached for this principal alone.
    Principal(&'a str),
    /// Keys that callers requested by this name, and all keys under the KMS key that it names.
    Key(&'a KeyId),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheSize {
    /// The number of keys.
    pub entries: u64,
    /// The bytes of their plaintexts and ciphertexts.
    pub bytes: u64,
}

/// A cached key without its secrets.
pub(crate) struct EntryView<'a> {
    /// A principal, or the name of a shared partition.
    pub owner: &'a str,
    /// Whether `owner` is a shared partition.
    pub is_shared: bool,
    /// The action whose requests it answers.
    pub action: Action,
    /// The KMS key as the caller wrote it.
    pub key: Option<&'a KeyId>,
    /// The KMS key's ARN.
    pub arn: &'a KeyArn,
    /// The call to KMS behind it.
    pub source: &'a Provenance,
    /// When it expires.
    pub expires_at: OffsetDateTime,
    /// Its usage and limits; `None` for a decrypt.
    pub reuse: Option<Usage>,
}

/// The usage of a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Charged so far, this draw included.
    pub(crate) used: DeclaredUse,
    /// The most that may be charged.
    pub limit: DeclaredUse,
}

/// The slots of one kind of reply. Each principal, and each shared partition, has a share of them.
pub(crate) struct Pool<R: Cacheable>(Mutex<PoolState<R>>);

struct PoolState<R: Cacheable> {
    entries: FairMemory<Holder, Partition, Arc<Entry<R>>>,
    by_key: KeyIndex<Partition, Entry<R>>,
    /// Entries with a call to KMS that names no key: it may bring a data key under any.
    unnamed_calls: Vec<Arc<Entry<R>>>,
}

/// The owner of an entry: its share of the pool counts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Holder {
    Principal(Principal),
    Shared(String),
}

pub(crate) struct Entry<R: Cacheable> {
    holder: Holder,
    partition: Partition,
    action: Action,
    key: Option<KeyId>,
    /// The KMS key of all its data keys, if its requests name one.
    arn: Option<KeyArn>,
    slot: Mutex<EntrySlot<R>>,
}

/// Marks that KMS is being called for an entry, until this is dropped.
pub(super) struct CallUnderWay<'a, R: Cacheable> {
    pool: &'a Pool<R>,
    entry: Option<Arc<Entry<R>>>,
}

/// The slot of one partition, whose requests differ only in their principal.
type EntrySlot<R> = Slot<<R as CallableRequest>::Reply, Permitted<Arc<R>>>;

/// A pool of any kind of reply.
pub(super) trait AnyPool {
    /// Drops the data keys under a KMS key, including those that calls under way will bring. Returns how many were dropped.
    fn refuse(&self, arn: &KeyArn) -> usize;

    /// Drops the keys in `scope` and returns how many were dropped.
    fn evict(&self, scope: &EvictionScope<'_>) -> usize;

    /// Shows every cached key to `show`.
    fn list(&self, show: &mut dyn FnMut(&EntryView<'_>));

    /// How much is cached.
    fn size(&self) -> CacheSize;

    /// Drops what may no longer be drawn.
    fn sweep(&self, now: &Moment);
}

impl<R: Cacheable> Pool<R> {
    pub(super) fn new(max_entries: u64) -> Self {
        let most = usize::try_from(max_entries).unwrap_or(usize::MAX);
        let (entries, by_key) = (FairMemory::new(most), KeyIndex::default());
        Self(Mutex::new(PoolState { entries, by_key, unnamed_calls: Vec::new() }))
    }

    pub(super) fn entry(&self, request: &R, rule: &Rule, principal: &Principal) -> Arc<Entry<R>> {
        let (owner, holder) = match &rule.partition {
            Some(name) => (Owner::Shared(name), Holder::Shared(name.clone())),
            None => (Owner::Principal(principal.as_str()), Holder::Principal(principal.clone())),
        };
        let partition = request.partition(owner);
        let mut kept = self.lock();
        if let Some(entry) = kept.entries.get(&holder, &partition) {
            return Arc::clone(entry);
        }
        let bounds = R::bounds(rule);
        let entry = Arc::new(Entry {
            holder: holder.clone(),
            partition,
            action: request.action(),
            key: request.written_key().cloned(),
            arn: request.sent_key().and_then(|key| KeyArn::parse(key.as_str())),
            slot: Mutex::new(Slot::new(bounds, rule.refresh_at)),
        });
        if let Some((_, place, gone)) = kept.entries.put(&holder, partition, Arc::clone(&entry)) {
            kept.by_key.remove(&place);
            // A draw may still hold the entry, so its keys are dropped before the pool is unlocked.
            gone.slot().retire();
        }
        entry
    }

    /// Notes that KMS is called for `entry`: from here on a refusal of its key also covers what the call brings.
    pub(super) fn begin_call(&self, entry: &Arc<Entry<R>>) -> CallUnderWay<'_, R> {
        let mut kept = self.lock();
        let unnamed = match &entry.arn {
            Some(arn) => {
                kept.will_keep(entry, arn);
                None
            }
            None => Some(Arc::clone(entry)),
        };
        kept.unnamed_calls.extend(unnamed.clone());
        drop(kept);
        CallUnderWay { pool: self, entry: unnamed }
    }

    /// Notes that `entry` is about to hold a data key under `arn`.
    pub(super) fn answered(&self, entry: &Arc<Entry<R>>, arn: &KeyArn) {
        if entry.arn.is_none() {
            self.lock().will_keep(entry, arn);
        }
    }

    fn remove(&self, entry: &Arc<Entry<R>>) {
        let PoolState { entries, by_key, .. } = &mut *self.lock();
        // Another entry may have taken its place.
        if entries.get(&entry.holder, &entry.partition).is_some_and(|kept| Arc::ptr_eq(kept, entry)) {
            entries.remove(&entry.holder, &entry.partition);
            by_key.remove(&entry.partition);
        }
    }

    fn entries(&self) -> Vec<Arc<Entry<R>>> {
        self.lock().entries.iter().map(|(_, _, entry)| Arc::clone(entry)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, PoolState<R>> {
        // Secrets are only in the slots, which stay within their bounds even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Cacheable> AnyPool for Pool<R> {
    fn refuse(&self, arn: &KeyArn) -> usize {
        let mut kept = self.lock();
        let mut entries = kept.by_key.take(arn);
        entries.extend(kept.unnamed_calls.iter().cloned());
        drop(kept);
        entries.iter().map(|entry| entry.refuse(arn)).sum()
    }

    fn evict(&self, scope: &EvictionScope<'_>) -> usize {
        self.entries().iter().map(|entry| entry.evict(scope)).sum()
    }

    fn list(&self, show: &mut dyn FnMut(&EntryView<'_>)) {
        for entry in self.entries() {
            let slot = entry.slot();
            for (minted, used, limit) in slot.kept() {
                show(&entry.view(slot.bounds(), minted, Usage { used, limit }));
            }
        }
    }

    fn size(&self) -> CacheSize {
        let mut size = CacheSize::default();
        for entry in self.entries() {
            for (minted, ..) in entry.slot().kept() {
                size.entries += 1;
                size.bytes += minted.value.bytes() as u64;
            }
        }
        size
    }

    fn sweep(&self, now: &Moment) {
        for entry in self.entries() {
            let is_over = entry.slot().sweep(now);
            if is_over {
                self.remove(&entry);
            }
        }
    }
}

impl<R: Cacheable> PoolState<R> {
    fn will_keep(&mut self, entry: &Arc<Entry<R>>, arn: &KeyArn) {
        // An entry that was removed is retired and holds nothing.
        if self.entries.get(&entry.holder, &entry.partition).is_some_and(|kept| Arc::ptr_eq(kept, entry)) {
            self.by_key.add(arn, entry.partition, entry);
        }
    }
}

impl<R: Cacheable> Drop for CallUnderWay<'_, R> {
    fn drop(&mut self) {
        let Some(entry) = &self.entry else { return };
        let mut kept = self.pool.lock();
        if let Some(place) = kept.unnamed_calls.iter().position(|other| Arc::ptr_eq(other, entry)) {
            kept.unnamed_calls.swap_remove(place);
        }
    }
}

impl<R: Cacheable> Entry<R> {
    pub(super) fn slot(&self) -> MutexGuard<'_, EntrySlot<R>> {
        // After a panic the slot's keys are still within their bounds.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn evict(&self, scope: &EvictionScope<'_>) -> usize {
        let mut slot = self.slot();
        let wholly = match scope {
            EvictionScope::All => true,
            EvictionScope::Principal(principal) => {
                matches!(&self.holder, Holder::Principal(own) if own.as_str() == *principal)
            }
            EvictionScope::Key(key) if self.key.as_ref() == Some(*key) => true,
            EvictionScope::Key(key) => {
                return slot.evict_key(key, |value| key.names(value.key()));
            }
        };
        if wholly { slot.evict() } else { 0 }
    }

    fn refuse(&self, arn: &KeyArn) -> usize {
        if self.arn.as_ref() == Some(arn) {
            return self.slot().evict();
        }
        self.slot().evict_key(&KeyId::from(arn), |value| value.key() == arn)
    }

    pub(super) fn view<'a>(
        &'a self,
        bounds: &Bounds,
        minted: &'a MintedReply<R::Reply>,
        usage: Usage,
    ) -> EntryView<'a> {
        let (owner, is_shared) = match &self.holder {
            Holder::Principal(principal) => (principal.as_str(), false),
            Holder::Shared(name) => (name.as_str(), true),
        };
        EntryView {
            owner,
            is_shared,
            action: self.action,
            key: self.key.as_ref(),
            arn: minted.value.key(),
            source: &minted.source,
            expires_at: minted.requested_at.wall + bounds.max_age,
            reuse: R::IS_CHARGED.then_some(usage),
        }
    }
}
