//! The slots of one kind of key, found by their partitions, and what is said about them.

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

/// The slots of one kind of key. Each principal, and each shared partition, has a share of them.
pub(crate) struct Pool<R: Cacheable>(Mutex<PoolState<R>>);

struct PoolState<R: Cacheable> {
    entries: FairMemory<Holder, Partition, Arc<Entry<R>>>,
    by_key: KeyIndex<Partition, Entry<R>>,
    /// Those for which a call to KMS is under way that names no key: what it brings may be of any.
    unnamed_calls: Vec<Arc<Entry<R>>>,
}

/// Whose share of a pool an entry is of.
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
    /// The KMS key that all of its data keys are under, where requests name one.
    arn: Option<KeyArn>,
    slot: Mutex<EntrySlot<R>>,
}

/// A call to KMS for an entry, until this is dropped.
pub(super) struct CallUnderWay<'a, R: Cacheable> {
    pool: &'a Pool<R>,
    entry: Option<Arc<Entry<R>>>,
}

/// The slot of one partition: its requests differ only in who makes them.
type EntrySlot<R> = Slot<<R as CallableRequest>::Reply, Permitted<Arc<R>>>;

/// A pool, whatever is in it.
pub(super) trait AnyPool {
    /// Drops what is kept under a KMS key, and what calls under way will bring of it. Returns how many keys were dropped.
    fn refuse(&self, arn: &KeyArn) -> usize;

    /// Drops what is in `scope`. Returns how many keys were dropped.
    fn evict(&self, scope: &EvictionScope<'_>) -> usize;

    /// Shows every kept key to `show`.
    fn list(&self, show: &mut dyn FnMut(&EntryView<'_>));

    /// How much is kept.
    fn size(&self) -> CacheSize;

    /// Drops what may not be drawn any more.
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
            // A draw may still hold it: its keys are gone before anybody else is let in here.
            gone.slot().retire();
        }
        entry
    }

    /// Notes that KMS is asked for `entry`: from here on a refusal of its key finds what the call brings.
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

    /// Notes that `entry` is about to keep a data key under `arn`.
    pub(super) fn answered(&self, entry: &Arc<Entry<R>>, arn: &KeyArn) {
        if entry.arn.is_none() {
            self.lock().will_keep(entry, arn);
        }
    }

    fn remove(&self, entry: &Arc<Entry<R>>) {
        let PoolState { entries, by_key, .. } = &mut *self.lock();
        // Only this very entry: another may have taken its place.
        if entries.get(&entry.holder, &entry.partition).is_some_and(|kept| Arc::ptr_eq(kept, entry)) {
            entries.remove(&entry.holder, &entry.partition);
            by_key.remove(&entry.partition);
        }
    }

    fn entries(&self) -> Vec<Arc<Entry<R>>> {
        self.lock().entries.iter().map(|(_, _, entry)| Arc::clone(entry)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, PoolState<R>> {
        // A panic in it is a defect; it holds no secrets but through slots, which are within their bounds.
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
        // One that is gone is retired, and keeps nothing.
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
        // A panic in the state machine is a defect; what it holds is still within its bounds.
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
