//! Places for connections on one socket: a newcomer finds one, whatever the others hold.
//!
//! A place is taken without waiting. If none is free, a principal with fewer connections displaces one of the principal with most: the
//! longest idle one or, if none is idle, the oldest. That connection is asked to leave, and cut off only if it does not, or if too many
//! are leaving.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::FairShares;
use tokio_util::sync::CancellationToken;

/// The places of one socket, each held by somebody.
pub(crate) struct Places<K: Eq + Hash + Clone> {
    taken: Mutex<TakenPlaces<K>>,
    /// So many may be leaving at a time.
    leaving: usize,
    /// Counts what becomes idle, so that of two idle ones it is known which has been so for longer.
    turn: AtomicU64,
}

struct TakenPlaces<K> {
    shares: FairShares<K>,
    /// By number: the oldest first.
    open: BTreeMap<u64, (K, Arc<Occupant>)>,
    leaving: VecDeque<(u64, Arc<Occupant>)>,
    next: u64,
}

/// A place that is taken, until this is dropped.
pub(crate) struct Place<K: Eq + Hash + Clone> {
    places: Arc<Places<K>>,
    number: u64,
    occupant: Arc<Occupant>,
}

/// A connection that has a place.
struct Occupant {
    /// How much is under way on it, and since which turn nothing is.
    work: Mutex<(usize, u64)>,
    leave: CancellationToken,
    cut: CancellationToken,
}

/// Something that is under way on a connection, until this is dropped.
pub(crate) struct Work<K: Eq + Hash + Clone> {
    places: Arc<Places<K>>,
    occupant: Arc<Occupant>,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// So many places, none taken.
    #[must_use]
    pub(crate) fn new(total: usize) -> Arc<Self> {
        Self::at_most(total, total)
    }

    /// The same, with `most` as an upper limit for each principal.
    #[must_use]
    pub(crate) fn at_most(total: usize, most: usize) -> Arc<Self> {
        let shares = FairShares::new(total as u64).at_most(most as u64);
        let taken = TakenPlaces { shares, open: BTreeMap::new(), leaving: VecDeque::new(), next: 0 };
        Arc::new(Self { taken: Mutex::new(taken), leaving: Self::leaving(total), turn: AtomicU64::new(1) })
    }

    /// How many connections may be leaving, beside those that have the places.
    #[must_use]
    pub(crate) const fn leaving(total: usize) -> usize {
        total / LEAVING + 1
    }

    /// Takes a place for `who`; none if it has its share, or nobody with more can give way. Never waits.
    pub(crate) fn take(self: &Arc<Self>, who: &K) -> Option<Place<K>> {
        let mut taken = self.lock();
        if taken.shares.taken_by(who) >= taken.shares.most() {
            return None;
        }
        if !taken.shares.admits(who, 1) {
            let leaver = taken.leaver_for(who)?;
            taken.dismiss(leaver, self.leaving);
        }
        let occupant = Arc::new(Occupant {
            work: Mutex::new((0, self.turn.fetch_add(1, Ordering::Relaxed))),
            leave: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let number = taken.next;
        taken.next += 1;
        taken.shares.take(who, 1);
        taken.open.insert(number, (who.clone(), Arc::clone(&occupant)));
        Some(Place { places: Arc::clone(self), number, occupant })
    }

    fn lock(&self) -> MutexGuard<'_, TakenPlaces<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> TakenPlaces<K> {
    /// Who leaves its place to `who`, if anybody.
    fn leaver_for(&self, who: &K) -> Option<u64> {
        let own = self.shares.taken_by(who);
        let mut numbers: HashMap<&K, usize> = HashMap::new();
        for (holder, _) in self.open.values() {
            *numbers.entry(holder).or_default() += 1;
        }
        let (richest, most) = numbers.into_iter().max_by_key(|(_, number)| *number)?;
        // Among equals, everybody makes room for itself.
        let leaver = if most as u64 > own { richest } else { who };
        let of_leaver = || self.open.iter().filter(|(_, (holder, _))| holder == leaver);
        let idle = of_leaver().filter_map(|(number, (_, occupant))| Some((occupant.idle_since()?, *number)));
        let has_least = own >= self.shares.least();
        idle.min().map(|(_, number)| number).or_else(|| {
            // Work is interrupted only for somebody who has less than everybody is to have.
            if has_least || leaver == who { None } else { of_leaver().next().map(|(number, _)| *number) }
        })
    }

    fn dismiss(&mut self, number: u64, most: usize) {
        let Some((holder, occupant)) = self.open.remove(&number) else { return };
        self.shares.give_back(&holder, 1);
        occupant.leave.cancel();
        self.leaving.push_back((number, occupant));
        while self.leaving.len() > most {
            if let Some((_, longest)) = self.leaving.pop_front() {
                longest.cut.cancel();
            }
        }
    }

    fn release(&mut self, number: u64) {
        if let Some((holder, _)) = self.open.remove(&number) {
            self.shares.give_back(&holder, 1);
        } else {
            self.leaving.retain(|(leaving, _)| *leaving != number);
        }
    }
}

impl<K: Eq + Hash + Clone> Place<K> {
    /// Something is under way, until what this returns is dropped.
    pub(crate) fn work(&self) -> Work<K> {
        self.occupant.work().0 += 1;
        Work { places: Arc::clone(&self.places), occupant: Arc::clone(&self.occupant) }
    }

    /// The holder is to finish what is in flight, and leave.
    pub(crate) fn is_to_leave(&self) -> CancellationToken {
        self.occupant.leave.clone()
    }

    /// Whoever holds the place is cut off.
    pub(crate) fn is_cut(&self) -> CancellationToken {
        self.occupant.cut.clone()
    }
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.lock().release(self.number);
    }
}

impl Occupant {
    /// Since which turn nothing is under way; none while something is.
    fn idle_since(&self) -> Option<u64> {
        let (work, since) = *self.work();
        (work == 0).then_some(since)
    }

    fn work(&self) -> MutexGuard<'_, (usize, u64)> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Drop for Work<K> {
    fn drop(&mut self) {
        let turn = self.places.turn.fetch_add(1, Ordering::Relaxed);
        let mut work = self.occupant.work();
        *work = (work.0.saturating_sub(1), turn);
    }
}

/// Such a part of all may be leaving beside them: each has a file descriptor still.
const LEAVING: usize = 4;

#[cfg(test)]
mod tests {
    //! Whoever has none finds a place, whatever others hold and do; who leaves for it is idle, if anybody is, and of those with most.

    use proptest::prelude::*;

    use super::*;

    fn take(places: &Arc<Places<u8>>, who: u8, number: usize) -> Vec<Place<u8>> {
        (0..number).map_while(|_| places.take(&who)).collect()
    }

    fn has_left(place: &Place<u8>) -> bool {
        place.is_to_leave().is_cancelled()
    }

    #[test]
    fn the_longest_idle_of_the_richest_leaves() {
        let places = Places::new(8);
        let held = take(&places, 1, 4);
        assert_eq!(held.len(), 4, "half");
        let busy: Vec<_> = held[..2].iter().map(Place::work).collect();
        drop(held[2].work());
        // The fourth has been idle for longest now. Half is what one alone gets: it makes room for itself.
        let fifth = places.take(&1).expect("its own leaves");
        assert_eq!(held.iter().map(has_left).collect::<Vec<_>>(), [false, false, false, true]);
        drop((busy, fifth));
    }

    #[test]
    fn work_is_interrupted_only_for_who_has_less_than_its_least_share() {
        let places = Places::new(256);
        let mut held = Vec::new();
        for who in 0..40 {
            held.extend(take(&places, who, 256));
        }
        let held: Vec<_> = held.into_iter().filter(|place| !has_left(place)).collect();
        let work: Vec<_> = held.iter().map(Place::work).collect();
        let newcomer = take(&places, 200, 10);
        assert_eq!(newcomer.len(), 4, "its least share, and no more");
        assert_eq!(held.iter().filter(|place| has_left(place)).count(), 4);
        drop(work);
    }

    #[test]
    fn a_bound_is_not_widened_by_leaving() {
        let places = Places::at_most(16, 3);
        let held = take(&places, 1, 10);
        assert_eq!(held.len(), 3);
        assert!(!held.iter().any(has_left));
    }

    #[test]
    fn who_does_not_leave_is_cut_off_once_too_many_are_leaving() {
        let places = Places::new(8);
        let held: Vec<_> = (0..20).filter_map(|_| places.take(&1)).collect();
        let cut = held.iter().filter(|place| place.is_cut().is_cancelled()).count();
        let leaving = held.iter().filter(|place| has_left(place)).count() - cut;
        assert_eq!((held.len() - cut - leaving, leaving), (4, Places::<u8>::leaving(8)));
        drop(held);
        let taken = places.lock();
        assert_eq!((taken.shares.taken_by(&1), taken.open.len(), taken.leaving.len()), (0, 0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        Leave(usize),
        Work(usize),
        Rest(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (1..60_u8).prop_map(Step::Take),
            1 => any::<usize>().prop_map(Step::Leave),
            3 => any::<usize>().prop_map(Step::Work),
            1 => any::<usize>().prop_map(Step::Rest),
        ]
    }

    proptest! {
        #[test]
        fn who_has_none_finds_a_place(total in 2..80_usize, steps in prop::collection::vec(step(), 0..300)) {
            let places = Places::new(total);
            let (mut held, mut work) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Take(who) => held.extend(places.take(&who)),
                    Step::Leave(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                    Step::Work(which) if !held.is_empty() => work.push(held[which % held.len()].work()),
                    Step::Rest(which) if !work.is_empty() => drop(work.swap_remove(which % work.len())),
                    _ => {}
                }
                held.retain(|place| !place.is_cut().is_cancelled());
                prop_assert!(places.lock().open.len() <= total);
                prop_assert!(places.lock().leaving.len() <= Places::<u8>::leaving(total));
            }
            prop_assert!(places.take(&0).is_some());
        }
    }
}
