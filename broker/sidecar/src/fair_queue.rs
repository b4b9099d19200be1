//! A queue for a bounded number of slots, with a share for each taker.
//!
//! The next free slot goes to the waiting taker with the fewest slots; among equals, to the one that got its last slot longer ago. So
//! takers take turns, however many requests one of them has waiting.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use key_broker_core::FairShares;
use tokio::sync::oneshot;

/// Slots, and who waits for one.
pub(crate) struct FairQueue<K: Eq + Hash + Clone>(Mutex<State<K>>);

struct State<K: Eq + Hash + Clone> {
    shares: FairShares<K>,
    /// The waiting turns of each taker, in order of arrival.
    waiting: HashMap<K, VecDeque<Waiter<K>>>,
    arrivals: u64,
    /// When each taker that has a slot, or waits, had its last one: a count of slots.
    served: HashMap<K, u64>,
    slots_given: u64,
}

struct Waiter<K: Eq + Hash + Clone> {
    arrival: u64,
    turn: oneshot::Sender<Turn<K>>,
}

/// A slot, given back when this is dropped.
pub(crate) struct Turn<K: Eq + Hash + Clone> {
    turns: Arc<FairQueue<K>>,
    taker: K,
}

impl<K: Eq + Hash + Clone> FairQueue<K> {
    /// So many slots, all free.
    #[must_use]
    pub(crate) fn new(slots: u32) -> Arc<Self> {
        let shares = FairShares::new(slots.into());
        Arc::new(Self(Mutex::new(State {
            shares,
            waiting: HashMap::new(),
            arrivals: 0,
            served: HashMap::new(),
            slots_given: 0,
        })))
    }

    /// A slot for `taker`, as soon as it may have one. Dropped, this no longer waits.
    pub(crate) async fn take(self: &Arc<Self>, taker: &K) -> Turn<K> {
        loop {
            let Err(wait) = self.take_or_wait(taker) else {
                return Turn { turns: Arc::clone(self), taker: taker.clone() };
            };
            // Every waiter is let in at some time. If a defect drops one, it queues again.
            if let Ok(turn) = wait.await {
                return turn;
            }
        }
    }

    /// A slot for `taker` now, unless others are waiting.
    pub(crate) fn take_what_is_left(self: &Arc<Self>, taker: &K) -> Option<Turn<K>> {
        let mut state = self.lock();
        let waits = state.waiting.values().flatten().any(|waiter| !waiter.turn.is_closed());
        if waits || !state.shares.admits(taker, 1) {
            return None;
        }
        state.give(taker);
        Some(Turn { turns: Arc::clone(self), taker: taker.clone() })
    }

    fn take_or_wait(&self, taker: &K) -> Result<(), oneshot::Receiver<Turn<K>>> {
        let mut state = self.lock();
        let own = state.waiting.get(taker).is_some_and(|own| own.iter().any(|other| !other.turn.is_closed()));
        if !own && state.shares.admits(taker, 1) {
            state.give(taker);
            return Ok(());
        }
        let (turn, wait) = oneshot::channel();
        let arrival = state.arrivals;
        state.arrivals += 1;
        let own = state.waiting.entry(taker.clone()).or_default();
        own.retain(|other| !other.turn.is_closed());
        own.push_back(Waiter { arrival, turn });
        Err(wait)
    }

    fn give_back(self: &Arc<Self>, taker: &K) {
        let mut state = self.lock();
        state.shares.give_back(taker, 1);
        let mut admitted = Vec::new();
        while let Some(next) = state.next() {
            admitted.push(next);
        }
        state.forget();
        // Dropping an unused turn gives it back.
        drop(state);
        for (taker, turn) in admitted {
            let _ = turn.send(Turn { turns: Arc::clone(self), taker });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // Between any two statements its numbers are whole, or too many are taken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn taken_by(&self, taker: &K) -> u64 {
        self.lock().shares.taken_by(taker)
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    /// Takes a slot for the next in turn.
    fn next(&mut self) -> Option<(K, oneshot::Sender<Turn<K>>)> {
        self.waiting.retain(|_, own| {
            while own.front().is_some_and(|first| first.turn.is_closed()) {
                own.pop_front();
            }
            !own.is_empty()
        });
        let may = self.waiting.iter().filter(|(taker, _)| self.shares.admits(taker, 1));
        let order = |taker: &K, own: &VecDeque<Waiter<K>>| {
            let served = self.served.get(taker).copied().unwrap_or_default();
            (self.shares.taken_by(taker), served, own.front().map(|first| first.arrival))
        };
        let taker = may.min_by_key(|(taker, own)| order(taker, own))?.0.clone();
        let first = self.waiting.get_mut(&taker)?.pop_front()?;
        self.give(&taker);
        Some((taker, first.turn))
    }

    fn give(&mut self, taker: &K) {
        self.shares.take(taker, 1);
        self.slots_given += 1;
        self.served.insert(taker.clone(), self.slots_given);
    }

    /// Forgets takers that hold nothing and wait for nothing.
    fn forget(&mut self) {
        let Self { shares, waiting, served, .. } = self;
        served.retain(|taker, _| shares.taken_by(taker) > 0 || waiting.contains_key(taker));
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        self.turns.give_back(&self.taker);
    }
}

#[cfg(test)]
mod tests {
    //! Whatever others do: no slot is taken twice, none is lost, nobody waits who may have one, and whoever has nothing finds its least
    //! share.

    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    type Taking = Pin<Box<dyn Future<Output = Turn<u8>>>>;

    /// Takers that have a turn, or wait for one.
    struct Bench {
        turns: Arc<FairQueue<u8>>,
        waiting: Vec<(u8, Taking)>,
        held: Vec<Turn<u8>>,
    }

    impl Bench {
        fn take(&mut self, taker: u8) {
            let turns = Arc::clone(&self.turns);
            self.waiting.push((taker, Box::pin(async move { turns.take(&taker).await })));
            self.poll();
        }

        fn poll(&mut self) {
            let mut context = Context::from_waker(Waker::noop());
            for (taker, mut taking) in std::mem::take(&mut self.waiting) {
                match taking.as_mut().poll(&mut context) {
                    Poll::Ready(turn) => self.held.push(turn),
                    Poll::Pending => self.waiting.push((taker, taking)),
                }
            }
        }

        fn check(&mut self, slots: u32) {
            self.poll();
            let state = self.turns.lock();
            let taken: u64 = (0..=u8::MAX).map(|taker| state.shares.taken_by(&taker)).sum();
            assert_eq!(taken, self.held.len() as u64, "a slot is lost, or taken twice");
            assert!(self.held.len() as u64 <= u64::from(slots));
            for (taker, _) in &self.waiting {
                assert!(!state.shares.admits(taker, 1), "{taker} waits for nothing");
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        End(usize),
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            // Fifteen others.
            5 => (1..16_u8).prop_map(Step::Take),
            2 => any::<usize>().prop_map(Step::End),
            1 => any::<usize>().prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        #[test]
        fn slots_are_shared_whatever_anybody_does(
            slots in 1..200_u32,
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let mut bench = Bench { turns: FairQueue::new(slots), waiting: Vec::new(), held: Vec::new() };
            for step in steps {
                match step {
                    Step::Take(taker) => bench.take(taker),
                    Step::End(which) if !bench.held.is_empty() => {
                        let turn = bench.held.swap_remove(which % bench.held.len());
                        drop(turn);
                    }
                    Step::GiveUp(which) if !bench.waiting.is_empty() => {
                        let taking = bench.waiting.swap_remove(which % bench.waiting.len());
                        drop(taking);
                    }
                    Step::End(_) | Step::GiveUp(_) => {}
                }
                bench.check(slots);
            }
            if slots >= 64 {
                let before = bench.held.len();
                bench.take(0);
                prop_assert_eq!(bench.held.len(), before + 1, "the least share is there");
            }
            bench.waiting.clear();
            bench.held.clear();
            prop_assert!((0..=u8::MAX).all(|taker| bench.turns.taken_by(&taker) == 0));
            // The next slot given back finds no waiter left.
            bench.take(0);
            bench.held.clear();
            prop_assert!(bench.turns.lock().served.is_empty());
        }
    }

    #[test]
    fn who_has_the_fewest_is_next_and_one_alone_has_half() {
        let mut bench = Bench { turns: FairQueue::new(128), waiting: Vec::new(), held: Vec::new() };
        for _ in 0..100 {
            bench.take(1);
        }
        assert_eq!((bench.held.len(), bench.waiting.len()), (64, 36));
        bench.take(2);
        assert_eq!(bench.held.len(), 65, "another does not wait behind it");
        bench.held.clear();
        bench.poll();
        assert_eq!((bench.held.len(), bench.waiting.len()), (36, 0));
    }

    #[test]
    fn takers_take_turns_however_many_of_one_wait() {
        let mut bench = Bench { turns: FairQueue::new(1), waiting: Vec::new(), held: Vec::new() };
        for _ in 0..50 {
            bench.take(1);
        }
        bench.take(2);
        bench.take(3);
        let mut order = Vec::new();
        while let Some(turn) = bench.held.pop() {
            order.push(turn.taker);
            drop(turn);
            bench.poll();
        }
        assert_eq!(order[..4], [1, 2, 3, 1]);
        assert_eq!(order.len(), 52);
        assert!(bench.turns.lock().served.is_empty(), "who wants nothing is forgotten");
    }

    #[test]
    fn a_turn_that_nobody_waits_for_any_more_goes_to_the_next() {
        let turns = FairQueue::<u8>::new(1);
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(held) = pin!(turns.take(&1)).poll(&mut context) else { panic!("it is free") };
        let (mut one, mut two) = (Box::pin(turns.take(&2)), Box::pin(turns.take(&3)));
        assert!(one.as_mut().poll(&mut context).is_pending() && two.as_mut().poll(&mut context).is_pending());
        drop(held);
        // Given to the first, which goes away without having seen it.
        drop(one);
        assert!(two.as_mut().poll(&mut context).is_ready());
    }
}
