//! Under any interleaving of draws, clock steps, evictions, KMS failures and cancellations: no key exceeds a bound, an evicted key is
//! never served again, KMS is not called more often than the waiting draws need, every draw ends, and the number of calls equals that
//! of a model without slots.

mod bench;

use proptest::prelude::*;

use super::*;
use crate::cache::rules::RevocationCheck;
use crate::cache::standing::KeyStanding;
use bench::{BOUNDS, Bench};

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
                    // A declaration larger than the bound goes to KMS on its own and never gets here.
                    if bounds.charge(DeclaredUse::default(), declared).is_some() {
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
                Event::Evict => bench.evict(),
                Event::Cancel(index) if !bench.waiting.is_empty() => {
                    let waiter = bench.waiting.remove(index.index(bench.waiting.len()));
                    drop(waiter);
                }
                Event::KmsAnswers(_) | Event::KmsFails(..) | Event::Cancel(_) => {}
                Event::Sweep => {
                    if bench.slot.sweep(&bench.now()) {
                        break;
                    }
                }
            }
        }
        // Once KMS answers, every draw that still waits must end.
        for _ in 0..bench.waiting.len() + bench.under_way.len() + 2 {
            bench.kms_answers();
        }
        prop_assert!(bench.waiting.is_empty());
    }

    /// The model: a key lasts until a draw does not fit or it is too old; then KMS is called once.
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
            // In the background KMS takes as long as two draws.
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

/// A clock that is set ahead during a call makes its key too old, and fails nobody: KMS is called again.
#[test]
fn a_clock_that_is_set_ahead_during_a_call_costs_one_more() {
    let mut bench = Bench::new(None);
    for _ in 0..3 {
        bench.draw(one(), BOUNDS);
    }
    bench.wall += Duration::from_hours(1);
    bench.kms_answers();
    assert_eq!((bench.waiting.len(), bench.calls), (3, 2), "all still wait, for the second call");
    bench.kms_answers();
    assert!(bench.waiting.is_empty());
    assert_eq!((bench.calls, bench.charged[&2].messages), (2, 3));
}

/// KMS that takes longer than a key may be old, by either clock, is asked once.
#[test]
fn a_key_that_took_too_long_is_nobodys() {
    let mut bench = Bench::new(None);
    bench.draw(one(), BOUNDS);
    bench.seconds += 101;
    bench.kms_answers();
    assert!(bench.waiting.is_empty() && bench.charged.is_empty());
    assert_eq!(bench.calls, 1);
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
    // After a suspend the monotonic clock has stood still while the wall clock went on.
    let slept = Moment { wall: bench.wall + Duration::from_secs(101), ..bench.now() };
    let demand = || Demand { request: (), declared: one(), bounds: BOUNDS };
    assert!(matches!(bench.slot.draw(&slept, demand()), DrawStep::Wait(..)));
    // After the wall clock was set back, it says that no time has passed.
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
    // The alias of this partition was moved to another KMS key between the first call and the second.
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

    // A reply to a call in flight is judged once its ARN is known.
    for (evicted, calls) in [(&new, 2), (&old, 1)] {
        let mut bench = Bench::new(None);
        bench.draw(one(), BOUNDS);
        assert_eq!(bench.slot.evict_key(&KeyId::from(evicted), |_| true), 0);
        bench.slot.judge(Ticket(0), &new);
        bench.kms_answers();
        assert_eq!((bench.calls, bench.waiting.len()), (calls, usize::from(calls == 2)));
    }
}

/// KMS could not be asked about the cached key, and the reply to a call made meanwhile is evicted: no draw gets the cached key.
#[test]
fn who_came_too_late_for_a_key_does_not_get_it_after_all() {
    let arn =
        |id: &str| KeyArn::parse(&format!("arn:aws:kms:us-west-2:111122223333:key/{id}")).expect("an ARN");
    let check = RevocationCheck {
        interval: Duration::from_secs(10),
        by_context: false,
        unverified_max: Duration::from_secs(20),
    };
    let key = Arc::new(KeyStanding::new(arn("0001-aa"), "us-west-2".into(), Some(check)));
    let standing = Arc::new(Standing::new(key));
    let mut bench = Bench::new(None);
    let demand = || Demand { request: (), declared: one(), bounds: BOUNDS };
    let reply = |value: u64, requested_at| {
        let source =
            Provenance { request_id: "1".into(), event_id: uuid::Uuid::nil(), at: bench.wall, span: None };
        MintedReply { value: Arc::new(value), source, requested_at, standing: Arc::clone(&standing) }
    };
    let begun = bench.now();
    let (first, second) = (reply(1, begun), reply(2, begun));
    let DrawStep::Wait(_first, _) = bench.slot.draw(&begun, demand()) else { panic!("nothing is cached") };
    bench.slot.minted(&begun, Ticket(0), first);
    bench.seconds = 15;
    let late = bench.now();
    standing.failed(late, None);
    let DrawStep::Wait(mut answer, mints) = bench.slot.draw(&late, demand()) else { panic!("it is stale") };
    assert_eq!(mints.len(), 1);
    bench.slot.evict_key(&KeyId::from(&arn("0002-bb")), |_| false);
    bench.slot.judge(Ticket(1), &arn("0002-bb"));
    let mints = bench.slot.minted(&late, Ticket(1), second);
    assert!(answer.try_recv().is_err() && mints.len() == 1, "it waits for another call");
}
