//! How much of a limited resource one principal may take, so that some is left for all others.
//!
//! Connections, calls in flight, calls to KMS, request bytes and journal bytes are each a pool of units.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// How much each taker has of a pool.
///
/// A taker may have its *least share*, a 64th of all unless told otherwise, for the asking. Beyond that it may take only while as much as
/// it has is left free, and a quarter of all: one alone gets half of the pool, and each of the next sixteen finds its least share,
/// whatever the others do.
#[derive(Debug)]
pub struct FairShares<K> {
    total: u64,
    most: u64,
    least: u64,
    taken: u64,
    /// By a fast hash: takers are principals, whom the kernel or a certificate names, and not strings that callers choose.
    by: HashMap<K, u64, RandomState>,
}

impl<K: Eq + Hash + Clone> FairShares<K> {
    /// A pool of this many units, all free.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self { total, most: total, least: (total / LEAST).max(1), taken: 0, by: HashMap::default() }
    }

    /// The same, with `most` as an upper limit for each taker.
    #[must_use]
    pub fn at_most(self, most: u64) -> Self {
        Self { most, ..self }
    }

    /// The same, with another least share: of a quarter of all, so much is there for each.
    #[must_use]
    pub fn at_least(self, least: u64) -> Self {
        Self { least, ..self }
    }

    /// Whether `taker` may take this many more.
    #[must_use]
    pub fn admits(&self, taker: &K, more: u64) -> bool {
        let Some(then) = self.taken.checked_add(more).filter(|then| *then <= self.total) else {
            return false;
        };
        let own = self.taken_by(taker).saturating_add(more);
        let free = self.total - then;
        own <= self.most && (own <= self.least || (own <= free && free >= self.total / RESERVED))
    }

    /// Counts units that `taker` has taken, whether or not it [may](Self::admits).
    pub fn take(&mut self, taker: &K, more: u64) {
        self.taken = self.taken.saturating_add(more);
        if let Some(own) = self.by.get_mut(taker) {
            *own = own.saturating_add(more);
        } else if more > 0 {
            self.by.insert(taker.clone(), more);
        }
    }

    /// `taker` gives this many back.
    pub fn give_back(&mut self, taker: &K, units: u64) {
        let Some(own) = self.by.get_mut(taker) else { return };
        let units = units.min(*own);
        *own -= units;
        if *own == 0 {
            self.by.remove(taker);
        }
        self.taken = self.taken.saturating_sub(units);
    }

    /// How many `taker` has.
    #[must_use]
    pub fn taken_by(&self, taker: &K) -> u64 {
        self.by.get(taker).copied().unwrap_or_default()
    }

    /// The most that anybody may have.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The least share, which every taker can have.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.least
    }
}

/// The least share is such a part of all.
const LEAST: u64 = 64;
/// Such a part is left to those who have no more than that.
const RESERVED: u64 = 4;

#[cfg(test)]
mod tests {
    //! No sequence of others' doings makes somebody fail for want of a share that it has not used.

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8, u64),
        GiveBack(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Fifteen others, and one to whom this is done.
        prop_oneof![
            4 => (1..16_u8, 1..400_u64).prop_map(|(who, units)| Step::Take(who, units)),
            1 => any::<usize>().prop_map(Step::GiveBack),
        ]
    }

    fn take(shares: &mut FairShares<u8>, who: u8, units: u64) -> bool {
        let admits = shares.admits(&who, units);
        if admits {
            shares.take(&who, units);
        }
        admits
    }

    /// How often `who` may take so many.
    fn takes(shares: &mut FairShares<u8>, who: u8, units: u64) -> usize {
        std::iter::from_fn(|| take(shares, who, units).then_some(())).count()
    }

    proptest! {
        #[test]
        fn a_least_share_is_there_whatever_fifteen_others_do(
            total in 64..4_096_u64,
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let mut shares = FairShares::new(total);
            let mut held = Vec::new();
            for step in steps {
                match step {
                    Step::Take(who, units) => {
                        if take(&mut shares, who, units) {
                            held.push((who, units));
                        }
                    }
                    Step::GiveBack(which) if !held.is_empty() => {
                        let (who, units) = held.swap_remove(which % held.len());
                        shares.give_back(&who, units);
                    }
                    Step::GiveBack(_) => {}
                }
                prop_assert!(shares.taken <= total);
            }
            for _ in 0..total / LEAST {
                prop_assert!(take(&mut shares, 0, 1));
                held.push((0, 1));
            }
            for (who, units) in held {
                shares.give_back(&who, units);
            }
            prop_assert_eq!(shares.taken, 0);
            prop_assert!(shares.by.is_empty(), "who has nothing is forgotten");
        }
    }

    #[test]
    fn nobody_gets_more_than_the_most() {
        let mut shares = FairShares::new(512).at_most(3);
        assert_eq!(takes(&mut shares, 0, 1), 3);
        assert!(take(&mut shares, 1, 3));
    }

    #[test]
    fn a_least_share_may_be_larger() {
        let mut shares = FairShares::new(32 * 512).at_least(512);
        let sizes: Vec<_> = (0..12).map(|who| takes(&mut shares, who, 512)).collect();
        assert_eq!(sizes, [16, 8, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0], "what is left goes to eight others");
    }

    #[test]
    fn one_alone_gets_half_and_who_comes_later_finds_something() {
        let mut shares = FairShares::new(512);
        let sizes: Vec<_> = (0..20).map(|who| takes(&mut shares, who, 1)).collect();
        assert_eq!(sizes[..3], [256, 128, 8]);
        assert!(sizes[3..].iter().all(|size| *size <= 8) && sizes[17] > 0);
    }
}
