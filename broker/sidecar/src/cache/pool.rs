//! The slots of one kind of key, found by their partitions, and what is said about them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::clock::Moment;
use key_broker_core::{Action, Bounds, DeclaredUse, KeyArn, KeyId, UNBOUNDED};
use moka::ops::compute::Op;
use time::OffsetDateTime;

use super::Reused;
use super::mint::Mint;
use super::partition::{Owner, Partition};
use super::rules::Rule;
use super::slot::{Minted, Slot};
use crate::kms::recorded::Source;

/// Which kept keys to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen<'a> {
    /// Everything.
    All,
    /// What is kept for this principal alone.
    Principal(&'a str),
    /// What callers asked for by the same words, and what is under the KMS key that these words name.
    Key(&'a KeyId),
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Keys.
    pub entries: u64,
    /// Their bytes: plaintexts and ciphertexts.
    pub bytes: u64,
}

/// A kept key, without its secrets.
pub struct Listed<'a> {
    /// Whose it is: a principal, or a shared partition.
    pub owner: &'a str,
    /// Whether that is a shared partition.
    pub is_shared: bool,
    /// What it answers.
    pub action: Action,
    /// The KMS key as the caller wrote it.
    pub key: Option<&'a KeyId>,
    /// The KMS key's ARN.
    pub arn: Option<&'a KeyArn>,
    /// The call to KMS behind it.
    pub source: &'a Source,
    /// When it is handed out for the last time.
    pub expires_at: OffsetDateTime,
    /// How far it is used; none for what is no data key.
    pub reuse: Option<Reused>,
}

/// The slots of one kind of key.
pub(super) struct Pool<T>(moka::sync::Cache<Partition, Arc<Entry<T>>>);

pub(super) struct Entry<T> {
    owner: String,
    is_shared: bool,
    action: Action,
    key: Option<KeyId>,
    slot: Mutex<Slot<T>>,
}

impl<T: Mint> Pool<T> {
    pub(super) fn new(max_entries: u64) -> Self {
        // moka bounds the number; age is ours to keep. Least recently used, so that a newcomer is always let in.
        let retire = |_: Arc<Partition>, entry: Arc<Entry<T>>, _| {
            entry.slot().retire();
        };
        let cache = moka::sync::Cache::builder()
            .max_capacity(max_entries)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener(retire)
            .build();
        Self(cache)
    }

    pub(super) fn entry(
        &self,
        partition: Partition,
        rule: &Rule,
        owner: Owner<'_>,
        action: Action,
        key: Option<&KeyId>,
    ) -> Arc<Entry<T>> {
        let bounds =
            if T::IS_CHARGED { rule.bounds } else { Bounds { max_age: rule.bounds.max_age, ..UNBOUNDED } };
        self.0.get_with(partition, || {
            Arc::new(Entry {
                owner: owner.name().to_owned(),
                is_shared: matches!(owner, Owner::Shared(_)),
                action,
                key: key.cloned(),
                slot: Mutex::new(Slot::new(bounds, rule.refresh_at)),
            })
        })
    }

    pub(super) fn evict(&self, chosen: &Chosen<'_>) -> usize {
        let evicted = self.0.iter().map(|(_, entry)| entry.evict(chosen)).sum();
        // An entry that moka takes out on another thread may be missed above, while a draw still holds it: its keys are
        // dropped by the listener. moka's own tasks exclude each other, so the listener has run when this returns.
        self.0.run_pending_tasks();
        evicted
    }

    pub(super) fn list(&self, show: &mut dyn FnMut(&Listed<'_>)) {
        for (_, entry) in &self.0 {
            let slot = entry.slot();
            for (minted, used) in slot.kept() {
                show(&entry.listed(slot.bounds(), minted, used));
            }
        }
    }

    pub(super) fn size(&self) -> Size {
        let mut size = Size::default();
        for (_, entry) in &self.0 {
            for (minted, _) in entry.slot().kept() {
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

impl<T: Mint> Entry<T> {
    pub(super) fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        // A panic in the state machine is a defect; what it holds is still within its bounds.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn evict(&self, chosen: &Chosen<'_>) -> usize {
        let mut slot = self.slot();
        let wholly = match chosen {
            Chosen::All => true,
            Chosen::Principal(principal) => !self.is_shared && self.owner == *principal,
            Chosen::Key(key) if self.key.as_ref() == Some(*key) => true,
            Chosen::Key(key) if self.key.as_ref().is_some_and(|own| !own.may_mean(key)) => false,
            Chosen::Key(key) => {
                return slot.evict_key(key, |value| value.used_key().is_some_and(|(arn, _)| key.names(arn)));
            }
        };
        if wholly { slot.evict() } else { 0 }
    }

    pub(super) fn listed<'a>(
        &'a self,
        bounds: &Bounds,
        minted: &'a Minted<T>,
        used: DeclaredUse,
    ) -> Listed<'a> {
        let limit = DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes };
        Listed {
            owner: &self.owner,
            is_shared: self.is_shared,
            action: self.action,
            key: self.key.as_ref(),
            arn: minted.value.used_key().map(|(arn, _)| arn),
            source: &minted.source,
            expires_at: minted.asked.wall + bounds.max_age,
            reuse: T::IS_CHARGED.then_some(Reused { used, limit }),
        }
    }
}
