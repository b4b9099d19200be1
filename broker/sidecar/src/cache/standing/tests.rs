//! The two promises of revocation, against a KMS that withdraws and restores permissions at any time: a withdrawn data key is not
//! drawn beyond the interval, or `unverified_max` while KMS cannot be asked; and one that stays allowed is not lost.

use key_broker_core::clock::{Clock as _, SystemClock};
use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const CONTEXTS: usize = 3;
const INTERVAL: u64 = 60;
const UNVERIFIED_MAX: u64 = 300;

#[derive(Debug, Clone)]
enum Step {
    Draw(usize),
    /// The oldest check ends; KMS may have decided when it began, or only now.
    Answer {
        looked_at_once: bool,
    },
    Pass(u64),
    /// The key is disabled or enabled.
    Key(bool),
    /// A context is denied or allowed.
    Context(usize, bool),
    /// KMS becomes unreachable or reachable.
    Reach(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..CONTEXTS).prop_map(Step::Draw),
        5 => any::<bool>().prop_map(|looked_at_once| Step::Answer { looked_at_once }),
        4 => (0..40_u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Key),
        1 => (0..CONTEXTS, any::<bool>()).prop_map(|(context, is_allowed)| Step::Context(context, is_allowed)),
        1 => any::<bool>().prop_map(Step::Reach),
    ]
}

/// A permission and the second from which it applies.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Permission {
    is_given: bool,
    since: u64,
}

impl Permission {
    fn set(&mut self, is_given: bool, now: u64) {
        if self.is_given != is_given {
            *self = Self { is_given, since: now };
        }
    }
}

struct UnderWay {
    check: Check,
    context: usize,
    began: u64,
    answer: Answer,
}

#[derive(Clone, Copy)]
enum Answer {
    Allowed,
    Denied,
    Disabled,
    None,
}

struct Bench {
    start: std::time::Instant,
    now: u64,
    key: Permission,
    contexts: [Permission; CONTEXTS],
    can_be_asked: bool,
    /// When the last check failed.
    trouble_at: Option<u64>,
    standings: Vec<Arc<Standing>>,
    kept: [u64; CONTEXTS],
    under_way: Vec<UnderWay>,
    /// When KMS last refused each context, or the key, in an answer.
    refused_at: [u64; CONTEXTS],
    by_context: bool,
    checks: u64,
}

impl Bench {
    fn new(by_context: bool) -> Self {
        let check = RevocationCheck {
            interval: Duration::from_secs(INTERVAL),
            by_context,
            unverified_max: Duration::from_secs(UNVERIFIED_MAX),
        };
        let arn =
            KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab");
        let key = Arc::new(KeyStanding::new(arn.expect("an ARN"), "us-west-2".into(), Some(check)));
        let given = Permission { is_given: true, since: 0 };
        let bench = Self {
            start: SystemClock.instant(),
            now: 1,
            key: given,
            contexts: [given; CONTEXTS],
            can_be_asked: true,
            trouble_at: None,
            standings: (0..CONTEXTS).map(|_| Arc::new(Standing::new(Arc::clone(&key)))).collect(),
            kept: [1; CONTEXTS],
            under_way: Vec::new(),
            refused_at: [0; CONTEXTS],
            by_context,
            checks: 0,
        };
        bench.standings.iter().for_each(|standing| standing.allowed(bench.at(1), source()));
        bench
    }

    fn at(&self, seconds: u64) -> Moment {
        let passed = Duration::from_secs(seconds);
        Moment { instant: self.start + passed, wall: datetime!(2026-11-30 00:00 UTC) + passed }
    }

    fn says(&self, context: usize) -> Answer {
        match (self.can_be_asked, self.key.is_given, self.contexts[context].is_given) {
            (false, ..) => Answer::None,
            (_, false, _) => Answer::Disabled,
            (.., false) => Answer::Denied,
            (true, true, true) => Answer::Allowed,
        }
    }

    fn begin(&mut self, check: Option<Check>, context: usize) {
        if let Some(check) = check {
            self.checks += 1;
            self.under_way.push(UnderWay { check, context, began: self.now, answer: self.says(context) });
        }
    }

    fn answer(&mut self, looked_at_once: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let UnderWay { check, context, began, answer } = self.under_way.remove(0);
        let now = self.at(self.now);
        match if looked_at_once { answer } else { self.says(context) } {
            Answer::Allowed => check.standing.allowed(self.at(began), source()),
            Answer::Denied => {
                check.standing.denied(now);
                self.refused_at[context] = self.now;
            }
            Answer::Disabled => {
                check.standing.ended(now);
                self.refused_at = [self.now; CONTEXTS];
            }
            Answer::None => {
                check.standing.failed(now, Some(Uuid::nil()));
                self.trouble_at = Some(self.now);
            }
        }
    }

    fn draw(&mut self, context: usize) {
        let (now, kept) = (self.at(self.now), self.at(self.kept[context]));
        match Arc::clone(&self.standings[context]).judge(&now, &kept) {
            Verdict::Drawable(evidence, check) => {
                self.check_promise(context, &evidence);
                self.begin(check, context);
            }
            Verdict::Due(due) => {
                assert!(due.check.is_some() || !due.ended.is_cancelled(), "somebody waits for nothing");
                self.begin(due.check, context);
            }
            Verdict::Stale => {
                let kept_at = self.kept[context];
                let was_allowed = [self.key, self.contexts[context]]
                    .iter()
                    .all(|permission| permission.is_given && permission.since <= kept_at);
                // The refusal was still under way when KMS restored the permission.
                let was_refused = kept_at <= self.refused_at[context];
                let could_not_ask = self.trouble_at.is_some_and(|at| self.now - at <= 30);
                let is_old = self.now - kept_at > INTERVAL;
                assert!(!was_allowed || was_refused || (could_not_ask && is_old), "what is allowed was lost");
                self.mint(context);
            }
        }
    }

    /// KMS is called for a new data key.
    fn mint(&mut self, context: usize) {
        if let Answer::Allowed = self.says(context) {
            self.kept[context] = self.now;
            self.standings[context].allowed(self.at(self.now), source());
        }
    }

    fn check_promise(&self, context: usize, evidence: &Evidence) {
        let longest = if evidence.failed.is_some() { UNVERIFIED_MAX } else { INTERVAL };
        let gone_for =
            |permission: &Permission| if permission.is_given { 0 } else { self.now - permission.since };
        assert!(gone_for(&self.key) <= longest, "a disabled key is used after {} s", gone_for(&self.key));
        let context = &self.contexts[context];
        assert!(
            !self.by_context || gone_for(context) <= longest,
            "a denied context is used after {} s",
            gone_for(context)
        );
    }
}

fn source() -> Provenance {
    Provenance {
        request_id: "1".into(),
        event_id: Uuid::nil(),
        at: datetime!(2026-11-30 00:00 UTC),
        span: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_taken_away_is_gone_in_time_and_nothing_else_is(
        by_context in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut bench = Bench::new(by_context);
        for step in steps {
            match step {
                Step::Draw(context) => bench.draw(context),
                Step::Answer { looked_at_once } => bench.answer(looked_at_once),
                Step::Pass(seconds) => bench.now += seconds,
                Step::Key(is_given) => bench.key.set(is_given, bench.now),
                Step::Context(context, is_given) => bench.contexts[context].set(is_given, bench.now),
                Step::Reach(can_be_asked) => bench.can_be_asked = can_be_asked,
            }
        }
    }
}

/// Draws in every context each second, and answers each check a second later.
fn draw_all(bench: &mut Bench, seconds: u64) {
    for _ in 0..seconds {
        bench.now += 1;
        while !bench.under_way.is_empty() {
            bench.answer(true);
        }
        (0..CONTEXTS).for_each(|context| bench.draw(context));
    }
}

#[test]
fn one_context_speaks_for_the_key_or_each_for_itself() {
    for (by_context, contexts) in [(false, 1), (true, CONTEXTS as u64)] {
        let mut bench = Bench::new(by_context);
        draw_all(&mut bench, 600);
        // Checks ahead of time: one every 48 seconds, and a second until its answer.
        assert!((11 * contexts..=13 * contexts).contains(&bench.checks), "{}", bench.checks);
    }
}

#[test]
fn what_nobody_draws_is_not_asked_about() {
    let mut bench = Bench::new(false);
    bench.now += 3_000;
    assert_eq!(bench.checks, 0);
    bench.draw(0);
    bench.draw(1);
    assert_eq!(bench.checks, 1, "two wait for one check");
}

#[test]
fn a_denied_context_has_the_others_asked_about_once_an_interval() {
    let mut bench = Bench::new(false);
    draw_all(&mut bench, 10);
    bench.contexts[0].set(false, bench.now);
    for _ in 0..20 {
        bench.standings[0].denied(bench.at(bench.now));
        draw_all(&mut bench, 1);
    }
    assert_eq!(bench.checks, 2, "each of the other contexts, once");
    assert!(bench.kept[1..].iter().all(|kept| *kept == 1), "and they are kept");
}

#[test]
fn while_kms_cannot_be_asked_nobody_waits_and_kms_is_asked_now_and_then() {
    let mut bench = Bench::new(false);
    draw_all(&mut bench, 40);
    bench.can_be_asked = false;
    draw_all(&mut bench, 600);
    assert!((30..=60).contains(&bench.checks), "{} checks in ten minutes", bench.checks);
    bench.can_be_asked = true;
    draw_all(&mut bench, 30);
    // One key may have been replaced by the first successful call to KMS.
    let drawn_again = bench.kept.iter().filter(|kept| **kept == 1).count();
    assert!(drawn_again >= CONTEXTS - 1, "what was kept is drawn again: {:?}", bench.kept);
}

/// The number of checks in an hour in which each of the contexts under each of the KMS keys is drawn every 24 seconds.
fn checks_in_an_hour(keys: usize, contexts: usize, by_context: bool) -> usize {
    let bench = Bench::new(by_context);
    let check = bench.standings[0].key.check;
    let arn = bench.standings[0].key().clone();
    let of_key = |_| Arc::new(KeyStanding::new(arn.clone(), "us-west-2".into(), check));
    let keys: Vec<_> = (0..keys).map(of_key).collect();
    let standings: Vec<_> =
        (0..contexts).map(|n| Arc::new(Standing::new(Arc::clone(&keys[n % keys.len()])))).collect();
    let minted_at = bench.at(1);
    for standing in &standings {
        standing.allowed(minted_at, source());
    }
    let mut checks = 0;
    for second in 2..3_602_u64 {
        let now = bench.at(second);
        // Each at its own second, so that draws are spread over time.
        let first = usize::try_from(second % 24).expect("small");
        for standing in standings.iter().skip(first).step_by(24) {
            match standing.judge(&now, &minted_at) {
                Verdict::Drawable(_, Some(_)) | Verdict::Due(_) => {
                    checks += 1;
                    standing.allowed(now, source());
                }
                Verdict::Drawable(_, None) => {}
                Verdict::Stale => panic!("KMS allows it all the time"),
            }
        }
    }
    checks
}

/// The table in docs/performance.md.
#[test]
fn checks_grow_with_keys_in_use_and_only_where_asked_for_with_contexts() {
    for contexts in [1, 100, 10_000] {
        for keys in [1, 50] {
            let (by_key, by_context) =
                (checks_in_an_hour(keys, contexts, false), checks_in_an_hour(keys, contexts, true));
            println!(
                "{contexts} contexts of {keys} KMS keys: {by_key} checks an hour, {by_context} with \"context\""
            );
            let keys = keys.min(contexts);
            assert!(by_key <= keys * 75 && by_key >= keys * 45, "{by_key}");
            assert!(by_context <= contexts * 75 && by_context >= contexts * 45, "{by_context}");
        }
    }
}

#[test]
fn a_failed_check_that_cannot_be_recorded_excuses_nothing_and_pauses_all_the_same() {
    let bench = Bench::new(false);
    let (standing, minted) = (&bench.standings[0], bench.at(1));
    standing.failed(bench.at(70), None);
    assert!(matches!(standing.judge(&bench.at(70), &minted), Verdict::Stale), "KMS is not asked at once");
    assert!(matches!(standing.judge(&bench.at(71), &minted), Verdict::Due(Due { check: Some(_), .. })));
}
