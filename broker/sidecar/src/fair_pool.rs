//! A pool of units that many threads take from, each caller no more than its fair share.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::FairShares;

/// A pool that many threads take from.
#[derive(Debug)]
pub(crate) struct FairPool<K: Eq + Hash + Clone>(Mutex<FairShares<K>>);

/// Units of a pool, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash + Clone> {
    pool: Arc<FairPool<K>>,
    taker: K,
    units: u64,
}

impl<K: Eq + Hash + Clone> FairPool<K> {
    /// A pool of these shares.
    #[must_use]
    pub(crate) fn new(shares: FairShares<K>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(shares)))
    }

    /// Takes this many for `taker`, or none if they exceed its share. Never waits.
    pub(crate) fn take(self: &Arc<Self>, taker: &K, units: u64) -> Option<Share<K>> {
        let mut shares = self.lock();
        if !shares.admits(taker, units) {
            return None;
        }
        shares.take(taker, units);
        Some(Share { pool: Arc::clone(self), taker: taker.clone(), units })
    }

    /// Whether `taker` has its least share at least, or the most that it may have: what it does not get, it has itself.
    #[must_use]
    pub(crate) fn has_its_share(&self, taker: &K) -> bool {
        let shares = self.lock();
        shares.taken_by(taker) >= shares.least().min(shares.most())
    }

    fn lock(&self) -> MutexGuard<'_, FairShares<K>> {
        // Between any two statements its numbers are whole, or too many are taken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        self.pool.lock().give_back(&self.taker, self.units);
    }
}

#[cfg(test)]
mod tests {
    //! What is dropped is given back, and nobody gets more than the most.

    use super::*;

    #[test]
    fn units_are_given_back_when_they_are_dropped() {
        let pool = FairPool::new(FairShares::new(512));
        let taken: Vec<_> = std::iter::from_fn(|| pool.take(&0, 1)).collect();
        assert_eq!((taken.len(), pool.lock().taken_by(&0)), (256, 256));
        drop(taken);
        assert_eq!(pool.lock().taken_by(&0), 0);
    }

    #[test]
    fn who_has_the_most_has_its_share() {
        let pool = FairPool::new(FairShares::new(512).at_most(3));
        let own: Vec<_> = std::iter::from_fn(|| pool.take(&0, 1)).collect();
        assert_eq!(own.len(), 3);
        assert!(pool.has_its_share(&0) && !pool.has_its_share(&1));
        assert!(pool.take(&1, 3).is_some());
    }
}
