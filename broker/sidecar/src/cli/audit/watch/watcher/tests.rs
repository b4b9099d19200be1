//! Uses wait until every trail can tell, alarms ring until they are acknowledged or explained; and over a day of brokers that are drained,
//! killed and late, no use of theirs rings, while each theft rings that nobody has used the key after.

use std::collections::{BTreeMap, BTreeSet};

use key_broker_trail::Vouching;
use proptest::prelude::*;
use time::macros::datetime;

use super::super::judgement::{Reason, Standing};
use super::*;

const START: OffsetDateTime = datetime!(2026-11-21 0:00 UTC);

/// What there is to judge by, made by hand.
#[derive(Default)]
struct Made {
    records: BTreeMap<String, bool>,
    of_the_trail: bool,
    standings: Vec<Vouching>,
    troubles: Vec<Reason>,
}

impl Evidence for Made {
    fn record_of(&self, request_id: &str) -> Option<(String, bool)> {
        self.records.get(request_id).map(|is_dry_run| ("t".into(), *is_dry_run))
    }

    fn of_the_trail(&self, _key: &str, _sighting: &Sighting) -> Option<&'static str> {
        self.of_the_trail.then_some("a reader's")
    }

    fn standings(&self, _at: OffsetDateTime) -> Vec<Standing> {
        let of = |vouching: &Vouching| Standing {
            trail: "t".into(),
            place: Some("shop/orders-0".into()),
            vouching: *vouching,
        };
        self.standings.iter().map(of).collect()
    }

    fn troubles(&self, _key: &str, _sighting: &Sighting) -> Vec<Reason> {
        self.troubles.clone()
    }
}

fn last_use(minute: i64, request_id: &str) -> LastUse {
    LastUse {
        at: START + Duration::minutes(minute),
        operation: "Decrypt".into(),
        request_id: Some(request_id.into()),
        cloudtrail_event_id: Some("e".into()),
    }
}

/// A key that is watched, and a use of it since.
fn seen() -> WatchState {
    let mut state = WatchState::new("b");
    see(&mut state, "k", None, START).expect("room");
    see(&mut state, "k", Some(last_use(10, "r")), START + Duration::minutes(20)).expect("room");
    state
}

#[test]
fn a_use_is_decided_only_where_all_trails_can_tell() {
    use Vouching::{Abandoned, Broken, Late, NotOpen, NotYet, Unsigned, Whole};
    let trouble = Reason { trail: None, place: None, why: "killed" };
    for (standings, troubles, expected, is_kept) in [
        (vec![], vec![], "alarm", false),
        (vec![Whole, NotOpen], vec![], "alarm", false),
        (vec![Whole, NotYet], vec![], "waiting", true),
        (vec![Whole, NotYet], vec![trouble.clone()], "waiting", true),
        (vec![Whole, Late], vec![], "untold", true),
        (vec![NotYet, Abandoned], vec![], "untold", true),
        (vec![Unsigned], vec![], "untold", true),
        (vec![Broken], vec![], "untold", true),
        (vec![Whole], vec![trouble], "untold", true),
    ] {
        let mut state = seen();
        let made = Made { standings: standings.clone(), troubles, ..Made::default() };
        let judged = judge_pending(&mut state, &made, START + Duration::HOUR);
        let word = match &judged[0].ruling {
            Ruling::Alarm => "alarm",
            Ruling::Waiting => "waiting",
            Ruling::CannotTell(reasons) => {
                assert!(!reasons.is_empty());
                "untold"
            }
            other => panic!("{other:?}"),
        };
        let of_key = &state.keys["k"];
        assert_eq!((word, of_key.pending.len()), (expected, usize::from(is_kept)), "{standings:?}");
        assert_eq!(of_key.alarms.len(), usize::from(word == "alarm"));
    }
}

#[test]
fn a_record_explains_it_whatever_else_is() {
    for (is_dry_run, of_the_trail, expected) in [
        (Some(false), false, Ruling::Ours("t".into())),
        (Some(true), false, Ruling::Blind("t".into())),
        (None, true, Ruling::OfTheTrail("a reader's")),
    ] {
        let mut state = seen();
        let records = is_dry_run.map(|is_dry_run| ("r".to_owned(), is_dry_run)).into_iter().collect();
        let made = Made { records, of_the_trail, standings: vec![Vouching::Late], ..Made::default() };
        let judged = judge_pending(&mut state, &made, START + Duration::HOUR);
        assert_eq!(judged[0].ruling, expected);
        assert!(state.keys["k"].pending.is_empty() && state.keys["k"].alarms.is_empty());
        assert_eq!(state.keys["k"].is_blind, is_dry_run == Some(true));
    }
}

#[test]
fn an_alarm_rings_until_it_is_acknowledged_or_explained() {
    let now = START + Duration::HOUR;
    let mut state = seen();
    judge_pending(&mut state, &Made::default(), now);
    assert!(judge_pending(&mut state, &Made::default(), now).is_empty());
    assert_eq!(state.keys["k"].alarms.len(), 1, "still");
    see(&mut state, "k", Some(last_use(10, "r")), now).expect("room");
    assert!(state.keys["k"].pending.is_empty(), "it is known");
    let mut explained = state.clone();
    judge_pending(
        &mut explained,
        &Made { records: BTreeMap::from([("r".into(), false)]), ..Made::default() },
        now,
    );
    assert!(explained.keys["k"].alarms.is_empty(), "a trail came late");
    assert!(!acknowledge(&mut state, "other") && acknowledge(&mut state, "r"));
    assert!(state.keys["k"].alarms.is_empty());
}

#[test]
fn what_nobody_will_tell_any_more_is_dropped_and_all_is_bounded() {
    let mut state = seen();
    let late = Made { standings: vec![Vouching::Abandoned], ..Made::default() };
    for (days, is_kept) in [(3, true), (4, false)] {
        let judged = judge_pending(&mut state, &late, START + Duration::days(days));
        assert!(matches!(judged[0].ruling, Ruling::CannotTell(_)), "it is told for the last time");
        assert_eq!(state.keys["k"].pending.len(), usize::from(is_kept), "after {days} days");
    }
    let mut full = seen();
    let told: Vec<_> = (0..200)
        .map(|n| see(&mut full, "k", Some(last_use(20 + n, &format!("r{n}"))), START + Duration::DAY).is_ok())
        .collect();
    assert_eq!(told.iter().filter(|ok| **ok).count(), MOST_PENDING - 1);
    assert_eq!(full.keys["k"].pending.len(), MOST_PENDING);
    let mut many = WatchState::new("b");
    assert!((0..=MOST_KEYS).all(|n| see(&mut many, &n.to_string(), None, START).is_ok() == (n < MOST_KEYS)));
}

#[test]
fn what_was_before_the_watch_and_what_has_no_request_id_is_not_judged() {
    let mut state = WatchState::new("b");
    let now = START + Duration::HOUR;
    see(&mut state, "k", Some(last_use(59, "r")), now).expect("room");
    assert!(state.keys["k"].pending.is_empty() && state.keys["k"].last.is_some());
    let nameless = LastUse { request_id: None, ..last_use(70, "x") };
    assert!(see(&mut state, "k", Some(nameless), now).is_err());
}

/// A broker's trail over a day, in minutes.
#[derive(Debug, Clone)]
struct Broker {
    /// Every sixty minutes from here on it makes a digest of all before, while its store takes it.
    offset: i64,
    store_is_down: (i64, i64),
    /// When it ends, and how.
    end: i64,
    is_killed: bool,
}

impl Broker {
    /// The ends of its digests until `now`, the first of them the opening one.
    fn digests(&self, now: i64) -> Vec<i64> {
        // Before the first one is there, no call is answered.
        let is_there =
            |at: &i64| *at == self.offset || !(self.store_is_down.0..self.store_is_down.1).contains(at);
        let regular = (0..).map(|hour| self.offset + 60 * hour).take_while(|at| *at < self.end.min(now));
        let mut digests: Vec<i64> = regular.filter(is_there).collect();
        if !self.is_killed && self.end <= now {
            digests.push(self.end);
        }
        digests
    }

    /// Whether a digest that is there by `now` has the record of a call at `at`.
    fn has(&self, at: i64, now: i64) -> bool {
        self.digests(now).into_iter().any(|digest| digest > at)
    }

    /// As the trail's own code goes by its digests.
    fn vouching(&self, at: i64, now: i64) -> Vouching {
        let digests = self.digests(now);
        let (Some(first), Some(newest)) = (digests.first(), digests.last()) else { return Vouching::NotOpen };
        let is_closed = !self.is_killed && self.end <= now;
        if *first > at + 5 || (is_closed && *newest < at - 5) || at - 5 > newest + 25 * 60 {
            Vouching::NotOpen
        } else if is_closed || digests.windows(2).any(|pair| pair[0] > at + 5) {
            Vouching::Whole
        } else if now > newest + 25 * 60 {
            Vouching::Abandoned
        } else if now > newest + 120 {
            Vouching::Late
        } else {
            Vouching::NotYet
        }
    }
}

/// All that happens to one key.
struct Day<'a> {
    brokers: &'a [Broker],
    /// Minute, and whose it is: a broker's, or a thief's.
    uses: &'a BTreeMap<i64, Option<usize>>,
    now: i64,
}

impl Evidence for Day<'_> {
    fn record_of(&self, request_id: &str) -> Option<(String, bool)> {
        let at: i64 = request_id.parse().ok()?;
        let broker = self.uses.get(&at).copied().flatten()?;
        self.brokers[broker].has(at, self.now).then(|| (broker.to_string(), false))
    }

    fn of_the_trail(&self, _key: &str, _sighting: &Sighting) -> Option<&'static str> {
        None
    }

    fn standings(&self, at: OffsetDateTime) -> Vec<Standing> {
        let at = (at - START).whole_minutes();
        let of = |(name, broker): (usize, &Broker)| Standing {
            trail: name.to_string(),
            place: None,
            vouching: broker.vouching(at, self.now),
        };
        self.brokers.iter().enumerate().map(of).collect()
    }

    fn troubles(&self, _key: &str, _sighting: &Sighting) -> Vec<Reason> {
        Vec::new()
    }
}

fn brokers() -> impl Strategy<Value = Vec<Broker>> {
    let one = (0_i64..60, 0_i64..1_440, 0_i64..600, 300_i64..3_000, any::<bool>());
    prop::collection::vec(one, 1..5).prop_map(|all| {
        let of = |(offset, down, length, end, is_killed)| Broker {
            offset,
            store_is_down: (down, down + length),
            end,
            is_killed,
        };
        all.into_iter().map(of).collect()
    })
}

proptest! {
    #[test]
    fn a_day_of_brokers_rings_for_thefts_alone(
        brokers in brokers(),
        calls in prop::collection::vec((60_i64..1_440, 0_usize..5), 0..60),
        thefts in prop::collection::btree_set(60_i64..1_440, 0..4),
        delay in 0_i64..60,
    ) {
        let mut uses = BTreeMap::new();
        for (at, broker) in calls {
            let broker = broker % brokers.len();
            if at > brokers[broker].offset && at < brokers[broker].end {
                uses.insert(at, Some(broker));
            }
        }
        uses.extend(thefts.iter().map(|at| (*at, None)));
        let mut state = WatchState::new("b");
        see(&mut state, "k", None, START).expect("room");
        let mut rung = BTreeSet::new();
        let mut untold = BTreeSet::new();
        let mut sampled = BTreeSet::new();
        for now in (0..=3 * 1_440).step_by(60) {
            let day = Day { brokers: &brokers, uses: &uses, now };
            for judged in judge_pending(&mut state, &day, START + Duration::minutes(now)) {
                let at: i64 = judged.sighting.request_id.parse().expect("a minute");
                match judged.ruling {
                    Ruling::Alarm => { rung.insert(at); }
                    Ruling::CannotTell(_) => { untold.insert(at); }
                    _ => {}
                }
            }
            if let Some((at, _)) = uses.range(..=now - delay).next_back() {
                sampled.insert(*at);
                see(&mut state, "k", Some(last_use(*at, &at.to_string())), START + Duration::minutes(now)).expect("room");
            }
        }
        let is_theft = |at: &i64| uses[at].is_none();
        prop_assert!(rung.iter().all(is_theft), "false alarms: {:?}", rung);
        let missed: Vec<_> = sampled.iter().filter(|at| is_theft(at) && !rung.contains(at) && !untold.contains(at)).collect();
        prop_assert!(missed.is_empty(), "thefts that were sampled, and neither rang nor were told of: {:?}", missed);
    }
}

/// How many of a hundred thefts in a day are found by a run each hour, beside a broker that mints under each key every so many minutes, or
/// never, and whom the thief makes mint a minute after him, or not.
fn found(every: Option<i64>, mints_after: bool) -> usize {
    let broker = Broker { offset: 0, store_is_down: (0, 0), end: 9_999, is_killed: false };
    // Any sequence will do, as long as it is always the same (Knuth's multiplier).
    let mut seed = 1_u64;
    let mut random = |below: i64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(seed >> 33).expect("31 bits") % below
    };
    let found = (0..100).filter(|_| {
        let theft = 60 + random(1_380);
        let mut uses = BTreeMap::new();
        if let Some(every) = every {
            let phase = random(every);
            uses.extend(
                (0..).map(|n| phase + n * every).take_while(|at| *at < 1_800).map(|at| (at, Some(0))),
            );
        }
        if mints_after {
            uses.insert(theft + 1, Some(0));
        }
        uses.insert(theft, None);
        let mut state = WatchState::new("b");
        see(&mut state, "k", None, START).expect("room");
        for now in (0..1_800).step_by(60) {
            let day = Day { brokers: std::slice::from_ref(&broker), uses: &uses, now };
            judge_pending(&mut state, &day, START + Duration::minutes(now));
            if let Some((at, _)) = uses.range(..=now).next_back() {
                see(&mut state, "k", Some(last_use(*at, &at.to_string())), START + Duration::minutes(now))
                    .expect("room");
            }
        }
        let alarms = &state.keys["k"].alarms;
        assert!(alarms.iter().all(|alarm| alarm.request_id == theft.to_string()), "a false alarm");
        !alarms.is_empty()
    });
    found.count()
}

/// The figures of docs/audit.md.
#[test]
fn of_a_hundred_thefts_as_many_are_found_as_the_broker_leaves_to_be_seen() {
    let table = [
        (None, false),
        (Some(180), false),
        (Some(30), false),
        (Some(5), false),
        (None, true),
        (Some(5), true),
    ];
    let counts = table.map(|(every, mints_after)| found(every, mints_after));
    assert_eq!(counts, [100, 76, 23, 2, 2, 0]);
}
