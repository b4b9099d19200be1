//! A bounded memory that several owners share: when full, the owner with most loses its least recently used entry.
//!
//! So nobody with an equal share or less loses anything to others: an owner beyond its share displaces its own entries.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use lru::LruCache;

/// Values by their owner and a key of the owner's own.
pub(crate) struct FairMemory<O, K: Eq + Hash, V> {
    most: usize,
    kept: usize,
    by_owner: HashMap<O, LruCache<K, V>>,
    /// How much each has: the owner with the most is the last.
    sizes: BTreeSet<(usize, O)>,
}

impl<O: Ord + Hash + Clone, K: Eq + Hash, V> FairMemory<O, K, V> {
    /// An empty memory for this many values, at least one.
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), kept: 0, by_owner: HashMap::new(), sizes: BTreeSet::new() }
    }

    /// The value, which counts as used now.
    pub(crate) fn get(&mut self, owner: &O, key: &K) -> Option<&V> {
        self.by_owner.get_mut(owner)?.get(key)
    }

    /// Keeps a value, in the place of the one of that key. What has given way for it is not kept any more.
    #[must_use]
    pub(crate) fn put(&mut self, owner: &O, key: K, value: V) -> Option<(O, K, V)> {
        let own = self.by_owner.entry(owner.clone()).or_insert_with(LruCache::unbounded);
        let before = own.len();
        let _ = own.put(key, value);
        let now = own.len();
        self.resized(owner, before, now);
        if self.kept <= self.most { None } else { self.give_way(owner) }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, owner: &O, key: &K) -> Option<V> {
        let own = self.by_owner.get_mut(owner)?;
        let before = own.len();
        let removed = own.pop(key);
        let now = own.len();
        self.resized(owner, before, now);
        removed
    }

    /// All values, in no order. None counts as used by this.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&O, &K, &V)> {
        self.by_owner.iter().flat_map(|(owner, own)| own.iter().map(move |(key, value)| (owner, key, value)))
    }

    fn give_way(&mut self, newcomer: &O) -> Option<(O, K, V)> {
        // If nobody has more than one, the newcomer still gets in.
        let gives = |(size, owner): &&(usize, O)| *size > 1 || owner != newcomer;
        let owner = self.sizes.iter().rev().find(gives)?.1.clone();
        let own = self.by_owner.get_mut(&owner)?;
        let before = own.len();
        let (key, value) = own.pop_lru()?;
        let now = own.len();
        self.resized(&owner, before, now);
        Some((owner, key, value))
    }

    fn resized(&mut self, owner: &O, before: usize, now: usize) {
        if before == now {
            return;
        }
        self.kept = self.kept + now - before;
        if before > 0 {
            self.sizes.remove(&(before, owner.clone()));
        }
        if now > 0 {
            self.sizes.insert((now, owner.clone()));
        } else {
            self.by_owner.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    //! No sequence of others' doings takes anything from an owner that has no more than an equal share; the bound is never crossed,
    //! and what gives way is what its owner has not used for the longest time.

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u16),
        Get(u8, u16),
        Remove(u8, u16),
    }

    fn step(owners: std::ops::Range<u8>) -> impl Strategy<Value = Step> {
        let place = || (owners.clone(), 0..200_u16);
        prop_oneof![
            6 => place().prop_map(|(owner, key)| Step::Put(owner, key)),
            2 => place().prop_map(|(owner, key)| Step::Get(owner, key)),
            1 => place().prop_map(|(owner, key)| Step::Remove(owner, key)),
        ]
    }

    /// Seven others.
    const OTHERS: std::ops::Range<u8> = 1..8;

    proptest! {
        #[test]
        fn who_has_no_more_than_its_share_loses_nothing(
            most in 8..64_usize,
            steps in prop::collection::vec(step(OTHERS), 0..600),
            when in any::<prop::sample::Index>(),
        ) {
            let mut memory = FairMemory::new(most);
            let own = most / 8;
            let arrives = when.index(steps.len() + 1);
            let keep_own = |memory: &mut FairMemory<u8, u16, u16>| {
                for key in 0..own {
                    let key = u16::try_from(key).expect("few");
                    let gone = memory.put(&0, key, key);
                    assert!(gone.is_none_or(|(owner, ..)| owner != 0));
                }
            };
            for (place, step) in steps.into_iter().enumerate() {
                if place == arrives {
                    keep_own(&mut memory);
                }
                match step {
                    Step::Put(owner, key) => {
                        let gone = memory.put(&owner, key, key);
                        prop_assert!(gone.is_none_or(|(owner, ..)| owner != 0), "somebody's share is taken");
                        prop_assert_eq!(memory.get(&owner, &key), Some(&key), "a newcomer is let in");
                    }
                    Step::Get(owner, key) => drop(memory.get(&owner, &key).copied()),
                    Step::Remove(owner, key) => drop(memory.remove(&owner, &key)),
                }
                prop_assert!(memory.kept <= most);
                prop_assert_eq!(memory.kept, memory.iter().count());
                prop_assert_eq!(memory.sizes.len(), memory.by_owner.len(), "who has nothing is forgotten");
            }
        }
    }

    #[test]
    fn the_least_recently_used_gives_way_and_nobody_is_kept_out() {
        let mut memory = FairMemory::new(3);
        for key in 0..3 {
            assert!(memory.put(&"a", key, key).is_none());
        }
        assert_eq!(memory.get(&"a", &0), Some(&0));
        let gone = memory.put(&"a", 3, 3).expect("it is full");
        assert_eq!(gone, ("a", 1, 1));
        for owner in ["b", "c", "d", "e"] {
            assert!(memory.put(&owner, 9, 9).is_some());
            assert_eq!(memory.get(&owner, &9), Some(&9), "{owner}");
        }
        assert_eq!(memory.put(&"e", 9, 10), None, "the same key takes no other place");
        assert_eq!(memory.get(&"e", &9), Some(&10));
    }
}
