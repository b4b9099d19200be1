//! Under any interleaving of draws, clock steps, evictions, KMS failures and cancellations: no key exceeds a bound, an
//! evicted key is never served again, no more calls to KMS are made than the waiting draws need, nobody is left hanging, and the number
//! of calls is that of a model which knows nothing of slots.

use std::collections::HashMap;
use std::time::Instant;

use key_broker_core::clock::{Clock, SystemClock};
use proptest::prelude::*;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::kms::{KmsError, KmsErrorKind};

const BOUNDS: Bounds = Bounds { max_age: Duration::from_secs(100), max_messages: 10, max_bytes: 1_000 };

/// A key is its serial number.
type Serial = u64;

struct Bench {
    slot: Slot<Serial, ()>,
    start: Instant,
    wall: OffsetDateTime,
    seconds: u64,
    calls: u64,
    /// The calls that are under way, and when they began.
    under_way: Vec<(Ticket, Moment)>,
    requested_after: HashMap<Serial, u64>,
    charged: HashMap<Serial, DeclaredUse>,
    /// The tightest bound of messages that a draw of a key was promised.
    promised: HashMap<Serial, u64>,
    /// Keys up to this one were evicted.
    evicted: Serial,
    waiting: Vec<Waiter>,
}

struct Waiter {
    answer: oneshot::Receiver<DrawResult<Serial>>,
    demand: (DeclaredUse, Bounds),
}

impl Bench {
    fn new(refresh_at: Option<f64>) -> Self {
        Self {
            slot: Slot::new(BOUNDS, refresh_at),
            start: SystemClock.instant(),
            wall: datetime!(2026-11-21 00:00 UTC),
            seconds: 0,
            calls: 0,
            under_way: Vec::new(),
            requested_after: HashMap::new(),
            charged: HashMap::new(),
            promised: HashMap::new(),
            evicted: 0,
            waiting: Vec::new(),
        }
    }

    fn now(&self) -> Moment {
        let passed = Duration::from_secs(self.seconds);
        Moment { instant: self.start + passed, wall: self.wall + passed }
    }

    fn begin(&mut self, mint: &Mint<()>) {
        assert_eq!(mint.ticket, Ticket(self.calls));
        self.calls += 1;
        self.under_way.push((mint.ticket, self.now()));
    }

    /// A replacement ahead.
    fn replace(&mut self, mint: Option<Mint<()>>) {
        if let Some(mint) = mint {
            assert!(self.under_way.is_empty(), "one replacement at a time");
            self.begin(&mint);
        }
    }

    /// Calls for whoever waits.
    fn begin_for_waiting(&mut self, mints: &[Mint<()>]) {
        mints.iter().for_each(|mint| self.begin(mint));
        if mints.is_empty() {
            return;
        }
        // What was evicted meanwhile brings nothing.
        let bring = self.under_way.iter().filter(|(ticket, _)| serial(*ticket) > self.evicted).count();
        assert_eq!(bring, self.needed(), "as many calls as are needed");
    }

    /// How many keys serve those who wait, one after the other.
    fn needed(&self) -> usize {
        let (mut keys, mut used, mut limit) = (0, UNUSED, BOUNDS);
        for Waiter { demand: (declared, bounds), .. } in &self.waiting {
            let both =
                |limit: Bounds| Bounds { max_messages: limit.max_messages.min(bounds.max_messages), ..limit };
            let fits = if keys > 0 { both(limit).charge(used, *declared) } else { None };
            (used, limit) = match fits {
                Some(used) => (used, both(limit)),
                None => {
                    keys += 1;
                    (both(BOUNDS).charge(UNUSED, *declared).expect("it fits"), both(BOUNDS))
                }
            };
        }
        keys
    }

    fn draw(&mut self, declared: DeclaredUse, bounds: Bounds) -> Option<Serial> {
        let demand = Demand { request: (), declared, bounds };
        match self.slot.draw(&self.now(), demand) {
            DrawStep::Drawn(draw, mint) => {
                let serial = self.check(&draw, declared, &bounds);
                self.replace(mint);
                Some(serial)
            }
            DrawStep::Wait(answer, mints) => {
                self.waiting.push(Waiter { answer, demand: (declared, bounds) });
                self.begin_for_waiting(&mints);
                None
            }
            DrawStep::Retired => panic!("nobody retires this slot"),
        }
    }

    /// Every draw that leaves the slot passes here.
    fn check(&mut self, draw: &Draw<Serial>, declared: DeclaredUse, bounds: &Bounds) -> Serial {
        let serial = *draw.value;
        assert!(serial > self.evicted, "an evicted key is served");
        assert!(
            self.seconds - self.requested_after[&serial] <= bounds.max_age.as_secs(),
            "a key is served past its age"
        );
        let charged = self.charged.entry(serial).or_insert(UNUSED);
        charged.messages += declared.messages;
        charged.bytes += declared.bytes;
        assert_eq!(
            (charged.messages, charged.bytes),
            (draw.used.messages, draw.used.bytes),
            "provenance tells the truth"
        );
        assert!(
            charged.messages <= bounds.max_messages && charged.bytes <= bounds.max_bytes,
            "a bound is crossed"
        );
        let promised = self.promised.entry(serial).or_insert(BOUNDS.max_messages);
        *promised = bounds.max_messages.min(*promised);
        assert!(charged.messages <= *promised, "a later draw goes beyond what an earlier one was promised");
        assert_eq!(draw.limit.messages, *promised, "provenance tells the truth");
        serial
    }

    /// KMS answers the call that has been under way for the longest time.
    fn kms_answers(&mut self) {
        self.kms_answers_one(0);
    }

    fn kms_answers_one(&mut self, which: usize) {
        if which >= self.under_way.len() {
            return;
        }
        let (ticket, requested_at) = self.under_way.remove(which);
        let serial = serial(ticket);
        self.requested_after.insert(serial, (requested_at.instant - self.start).as_secs());
        let source = Provenance {
            request_id: serial.to_string().into(),
            event_id: Uuid::nil(),
            at: self.wall,
            span: None,
        };
        let minted = MintedReply { value: Arc::new(serial), source, requested_at };
        let mints = self.slot.minted(&self.now(), ticket, minted);
        self.collect_before(&mints);
    }

    fn kms_fails(&mut self, blame: Blame) {
        self.kms_fails_one(0, blame);
    }

    fn kms_fails_one(&mut self, which: usize, blame: Blame) {
        if which >= self.under_way.len() {
            return;
        }
        let (ticket, _) = self.under_way.remove(which);
        let error = BrokerError::Kms(KmsError {
            kind: KmsErrorKind::Unavailable,
            code: "x".into(),
            message: None,
            request_id: None,
        });
        let mints = self.slot.failed(self.now(), ticket, &error, blame);
        self.collect_before(&mints);
    }

    fn collect_before(&mut self, mints: &[Mint<()>]) {
        self.collect();
        self.begin_for_waiting(mints);
        assert!(self.waiting.is_empty() || !self.under_way.is_empty(), "somebody waits for nothing");
    }

    fn collect(&mut self) {
        for mut waiter in std::mem::take(&mut self.waiting) {
            match waiter.answer.try_recv() {
                Ok(Ok(draw)) => drop(self.check(&draw, waiter.demand.0, &waiter.demand.1)),
                Ok(Err(_)) => {}
                Err(oneshot::error::TryRecvError::Empty) => self.waiting.push(waiter),
                Err(oneshot::error::TryRecvError::Closed) => panic!("somebody is forgotten"),
            }
        }
    }

    fn evict(&mut self) {
        self.slot.evict();
        // What is under way was asked for before: its serial is the number of calls so far.
        self.evicted = self.calls;
    }
}

/// A key is its serial number: how many calls had begun, with its own.
fn serial(Ticket(before): Ticket) -> Serial {
    before + 1
}

#[derive(Debug, Clone)]
enum Event {
    Draw { messages: u64, bytes: u64, tight: Option<(u64, u64)> },
    Pass(u64),
    KmsAnswers(prop::sample::Index),
    KmsFails(prop::sample::Index, Blame),
    Evict,
    Cancel(prop::sample::Index),
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let tight = prop::option::weighted(0.2, (1_u64..=10, 1_u64..=100));
    let blame = prop::sample::select(vec![Blame::Leader, Blame::Served, Blame::Everybody]);
    prop_oneof![
        8 => (1_u64..=4, 0_u64..=300, tight).prop_map(|(messages, bytes, tight)| Event::Draw { messages, bytes, tight }),
        3 => (0_u64..=60).prop_map(Event::Pass),
        4 => any::<prop::sample::Index>().prop_map(Event::KmsAnswers),
        1 => (any::<prop::sample::Index>(), blame).prop_map(|(which, blame)| Event::KmsFails(which, blame)),
        1 => Just(Event::Evict),
        1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
        1 => Just(Event::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bound_is_ever_crossed(events in prop::collection::vec(event(), 1..80), refresh in any::<bool>()) {
        let mut bench = Bench::new(refresh.then_some(0.8));
        for event in events {
            match event {
                Event::Draw { messages, bytes, tight } => {
                    let mut bounds = BOUNDS;
                    if let Some((messages, seconds)) = tight {
                        bounds.max_messages = messages;
                        bounds.max_age = Duration::from_secs(seconds);
                    }
                    let declared = DeclaredUse { messages, bytes };
                    // A larger declaration than the bound goes to KMS on its own and never gets here.
                    if bounds.charge(UNUSED, declared).is_some() {
                        bench.draw(declared, bounds);
                    }
                }
                Event::Pass(seconds) => bench.seconds += seconds,
                Event::KmsAnswers(which) if !bench.under_way.is_empty() => {
                    bench.kms_answers_one(which.index(bench.under_way.len()));
                }
                Event::KmsFails(which, blame) if !bench.under_way.is_empty() => {
                    bench.kms_fails_one(which.index(bench.under_way.len()), blame);
                }
                Event::KmsAnswers(_) | Event::KmsFails(..) => {}
                Event::Evict => bench.evict(),
                Event::Cancel(index) if !bench.waiting.is_empty() => {
                    let waiter = bench.waiting.remove(index.index(bench.waiting.len()));
                    drop(waiter);
                }
                Event::Cancel(_) => {}
                Event::Sweep => {
                    if bench.slot.sweep(&bench.now()) {
                        break;
                    }
                }
            }
        }
        // Whoever still waits is answered once KMS is.
        for _ in 0..bench.waiting.len() + bench.under_way.len() + 2 {
            bench.kms_answers();
        }
        prop_assert!(bench.waiting.is_empty());
    }

    /// The model: a key lasts until a draw does not fit or its age is over; then there is one call.
    #[test]
    fn calls_are_those_of_the_model(
        events in prop::collection::vec((1_u64..=4, 0_u64..=300, 0_u64..=30, prop::bool::weighted(0.05)), 1..100),
    ) {
        let mut bench = Bench::new(None);
        let (mut expected, mut key) = (0, None::<(u64, u64, u64)>);
        for (messages, bytes, seconds, evict) in events {
            bench.seconds += seconds;
            if evict {
                bench.evict();
                key = None;
            }
            bench.draw(DeclaredUse { messages, bytes }, BOUNDS);
            bench.kms_answers();
            let fits = |(at, m, b): &(u64, u64, u64)| {
                bench.seconds - at <= 100 && m + messages <= 10 && b + bytes <= 1_000
            };
            let (at, m, b) = key.filter(fits).unwrap_or_else(|| {
                expected += 1;
                (bench.seconds, 0, 0)
            });
            key = Some((at, m + messages, b + bytes));
            prop_assert_eq!(bench.calls, expected);
            prop_assert!(bench.waiting.is_empty());
        }
    }
}

fn one() -> DeclaredUse {
    DeclaredUse { messages: 1, bytes: 0 }
}

#[test]
fn n_draws_take_n_over_m_calls_and_one_more_with_refresh_ahead() {
    for (refresh_at, calls) in [(None, 100), (Some(0.8), 101)] {
        let mut bench = Bench::new(refresh_at);
        for n in 0..1_000 {
            let drawn = bench.draw(one(), BOUNDS);
            // KMS takes two draws' time in the background.
            if drawn.is_none() || n % 2 == 0 {
                bench.kms_answers();
            }
        }
        assert_eq!(bench.calls, calls, "{refresh_at:?}");
    }
}

#[test]
fn a_boundary_is_passed_without_waiting_when_refreshed_ahead() {
    let mut bench = Bench::new(Some(0.8));
    bench.draw(one(), BOUNDS);
    bench.kms_answers();
    for n in 1..500 {
        assert!(bench.draw(one(), BOUNDS).is_some(), "draw {n} waits");
        bench.kms_answers();
    }
}

#[test]
fn refresh_ahead_goes_by_age_too() {
    let mut bench = Bench::new(Some(0.8));
    bench.draw(one(), BOUNDS);
    bench.kms_answers();
    bench.seconds = 79;
    bench.draw(one(), BOUNDS);
    assert_eq!(bench.calls, 1);
    bench.seconds = 80;
    bench.draw(one(), BOUNDS);
    assert_eq!(bench.calls, 2);
    bench.kms_answers();
    bench.seconds = 101;
    assert_eq!(bench.draw(one(), BOUNDS), Some(2), "nobody waits at the boundary");
}

#[test]
fn a_failed_refresh_waits_before_the_next() {
    let mut bench = Bench::new(Some(0.5));
    bench.draw(one(), BOUNDS);
    bench.kms_answers();
    for _ in 0..4 {
        bench.draw(one(), BOUNDS);
    }
    assert_eq!(bench.calls, 2);
    let (ticket, _) = bench.under_way.remove(0);
    let later = Moment { instant: bench.now().instant + Duration::from_secs(1), ..bench.now() };
    bench.slot.failed(later, ticket, &BrokerError::Bug, Blame::Leader);
    bench.draw(one(), BOUNDS);
    assert_eq!(bench.calls, 2, "not yet");
    bench.seconds += 1;
    bench.draw(one(), BOUNDS);
    assert_eq!(bench.calls, 3);
}

#[test]
fn a_failing_or_cancelled_leader_fails_nobody_else() {
    let mut bench = Bench::new(None);
    for _ in 0..5 {
        bench.draw(one(), BOUNDS);
    }
    bench.kms_fails(Blame::Leader);
    assert_eq!(
        (bench.waiting.len(), bench.calls),
        (4, 2),
        "the leader has its error, the others another call"
    );
    bench.waiting.remove(0);
    bench.kms_answers();
    assert!(bench.waiting.is_empty());
    assert_eq!(bench.charged[&2].messages, 3, "who has gone is not charged");
}

#[test]
fn a_refusal_for_good_is_everybodys() {
    let mut bench = Bench::new(None);
    for _ in 0..5 {
        bench.draw(one(), BOUNDS);
    }
    bench.kms_fails(Blame::Everybody);
    assert_eq!((bench.waiting.len(), bench.calls), (0, 1));
}

#[test]
fn an_outage_answers_everybody_within_two_calls_for_each_key() {
    let mut bench = Bench::new(None);
    for _ in 0..1_000 {
        bench.draw(one(), BOUNDS);
    }
    assert_eq!(bench.under_way.len(), 100);
    for calls in 1..=200 {
        assert!(!bench.waiting.is_empty(), "after {calls} calls");
        bench.kms_fails(Blame::Leader);
    }
    assert!(bench.waiting.is_empty());
}

#[test]
fn as_many_keys_are_minted_at_a_time_as_the_waiting_need() {
    let small = Bounds { max_messages: 1, ..BOUNDS };
    let mut bench = Bench::new(None);
    for waiting in 1..=64 {
        bench.draw(one(), small);
        assert_eq!(bench.under_way.len(), waiting);
    }
    // In any order.
    for which in [63, 0, 10, 5] {
        bench.kms_answers_one(which);
    }
    assert_eq!((bench.waiting.len(), bench.under_way.len(), bench.calls), (60, 60, 64));
    for blame in [Blame::Leader, Blame::Served] {
        let last = bench.under_way.len() - 1;
        bench.kms_fails_one(last, blame);
    }
    assert_eq!((bench.waiting.len(), bench.under_way.len(), bench.calls), (58, 58, 64), "one each");
    bench.evict();
    assert_eq!(bench.draw(one(), small), None);
    assert_eq!((bench.waiting.len(), bench.calls), (59, 64 + 59), "what was evicted serves nobody");
    for _ in 0..58 + 59 {
        bench.kms_answers();
    }
    assert_eq!((bench.waiting.len(), bench.under_way.len(), bench.calls), (0, 0, 64 + 59));
}

#[test]
fn who_joins_a_call_that_all_others_have_given_up_has_a_call_of_its_own() {
    let mut bench = Bench::new(None);
    bench.draw(one(), BOUNDS);
    bench.draw(one(), BOUNDS);
    bench.waiting.clear();
    bench.draw(one(), BOUNDS);
    assert_eq!(bench.calls, 1, "it may still bring a key");
    bench.kms_fails(Blame::Leader);
    assert_eq!((bench.waiting.len(), bench.calls), (1, 2), "its failure is not the newcomer's");
    bench.kms_fails(Blame::Leader);
    assert!(bench.waiting.is_empty());
}

#[test]
fn a_suspended_machine_and_a_clock_set_back_make_no_key_younger() {
    let mut bench = Bench::new(None);
    bench.draw(one(), BOUNDS);
    bench.kms_answers();
    // Suspended: the monotonic clock stood still, the wall went on.
    let slept = Moment { wall: bench.wall + Duration::from_secs(101), ..bench.now() };
    let demand = || Demand { request: (), declared: one(), bounds: BOUNDS };
    assert!(matches!(bench.slot.draw(&slept, demand()), DrawStep::Wait(..)));
    // Set back: the wall says no time has passed.
    let mut bench = Bench::new(None);
    bench.draw(one(), BOUNDS);
    bench.kms_answers();
    bench.seconds = 101;
    let back = Moment { wall: bench.wall - Duration::from_hours(1), ..bench.now() };
    assert!(matches!(bench.slot.draw(&back, demand()), DrawStep::Wait(..)));
}

#[test]
fn a_key_is_evicted_by_its_own_arn_wherever_it_is() {
    let arn =
        |id: &str| KeyArn::parse(&format!("arn:aws:kms:us-west-2:111122223333:key/{id}")).expect("an ARN");
    // The alias of this partition was pointed to another KMS key between the first call and the second.
    let (old, new) = (arn("0001-aa"), arn("0002-bb"));
    let two_keys = || {
        let mut bench = Bench::new(Some(0.5));
        for _ in 0..6 {
            bench.draw(one(), BOUNDS);
            bench.kms_answers();
        }
        assert_eq!(bench.slot.kept().map(|(minted, ..)| *minted.value).collect::<Vec<_>>(), [1, 2]);
        bench
    };
    let mut bench = two_keys();
    assert_eq!(bench.slot.evict_key(&KeyId::from(&new), |serial| *serial == 2), 1);
    assert_eq!(bench.draw(one(), BOUNDS), Some(1));
    let mut bench = two_keys();
    assert_eq!(bench.slot.evict_key(&KeyId::from(&old), |serial| *serial == 1), 1);
    assert_eq!(bench.draw(one(), BOUNDS), Some(2));

    // What is under way is judged once its ARN is known.
    for (evicted, calls) in [(&new, 2), (&old, 1)] {
        let mut bench = Bench::new(None);
        bench.draw(one(), BOUNDS);
        assert_eq!(bench.slot.evict_key(&KeyId::from(evicted), |_| true), 0);
        bench.slot.judge(Ticket(0), &new);
        bench.kms_answers();
        assert_eq!((bench.calls, bench.waiting.len()), (calls, usize::from(calls == 2)));
    }
}
