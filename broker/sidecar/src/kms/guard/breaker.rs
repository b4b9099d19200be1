//! When to stop asking KMS, and when to ask again: a state machine without a clock or a lock of its own.
//!
//! Closed, every call goes through. After so many failures in a row it opens and refuses all, for a time that grows from one
//! opening to the next. Then one call goes through, the probe: KMS answers, and it closes; KMS fails, and it opens again.

use std::time::{Duration, Instant};

/// When to stop asking, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Calls in a row on which KMS failed.
    pub failures: u32,
    /// How long it stays open the first time, at most: half of that is sure, the rest is chance.
    pub open: Duration,
    /// It doubles with every opening in a row, up to this.
    pub longest_open: Duration,
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets all through.
    Closed,
    /// Refuses all.
    Open,
    /// Lets one through to see, or waits for how that one ends.
    HalfOpen,
}

/// What the end of a call says about KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answers, whatever its answer is.
    Answers,
    /// It fails or does not answer.
    Fails,
}

/// Which calls a verdict may come from: those that began before the last change say nothing about what came after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    epoch: u64,
}

#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Failures in a row while closed.
    failures: u32,
    /// Openings in a row.
    openings: u32,
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Instant },
    Probing { since: Instant },
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self { settings, phase: Phase::Closed, failures: 0, openings: 0, epoch: 0 }
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    /// Until when it is, or was last, open; none while closed.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { until } | Phase::Probing { since: until } => Some(until),
        }
    }

    /// When to come back, for a call that would not be let through now.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } if now < until => Some(until - now),
            // How the probe ends is known within the time of a call.
            Phase::Probing { .. } => Some(self.settings.open),
            Phase::Closed | Phase::Open { .. } => None,
        }
    }

    /// Lets a call through, or tells when to come back.
    pub(super) fn begin(&mut self, now: Instant) -> Result<Ticket, Duration> {
        if let Some(delay) = self.refusal(now) {
            return Err(delay);
        }
        if let Phase::Open { until } = self.phase {
            self.phase = Phase::Probing { since: until };
            self.epoch += 1;
        }
        Ok(Ticket { epoch: self.epoch })
    }

    /// A call that was let through has ended; no verdict where it says nothing. `spread` is from 0 to 1.
    pub(super) fn end(&mut self, now: Instant, ticket: Ticket, verdict: Option<Verdict>, spread: f64) {
        if ticket.epoch != self.epoch {
            return;
        }
        match (self.phase, verdict) {
            (Phase::Closed, Some(Verdict::Answers)) => self.failures = 0,
            (Phase::Closed, Some(Verdict::Fails)) => {
                self.failures += 1;
                if self.failures >= self.settings.failures {
                    self.open(now, spread);
                }
            }
            (Phase::Probing { .. }, Some(Verdict::Answers)) => {
                *self = Self { epoch: self.epoch + 1, ..Self::new(self.settings) };
            }
            (Phase::Probing { .. }, Some(Verdict::Fails)) => self.open(now, spread),
            // The probe has not found out: the next call is the probe.
            (Phase::Probing { since }, None) => self.phase = Phase::Open { until: since },
            (Phase::Closed, None) | (Phase::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Instant, spread: f64) {
        let doubled = self.settings.open.saturating_mul(1 << self.openings.min(MOST_DOUBLINGS));
        let longest = doubled.min(self.settings.longest_open);
        self.phase = Phase::Open { until: now + longest.mul_f64(f64::midpoint(1.0, spread)) };
        self.failures = 0;
        self.openings += 1;
        self.epoch += 1;
    }
}

/// More than any configuration can use, and no overflow.
const MOST_DOUBLINGS: u32 = 20;

#[cfg(test)]
mod tests {
    //! Opens after so many failures in a row, for a growing time; then exactly one probe decides.

    use proptest::prelude::*;

    use super::*;
    use key_broker_core::clock::{Clock, SystemClock};

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, open: Duration::from_secs(1), longest_open: Duration::from_secs(5) };
    /// With this, open times are as long as they get.
    const LONGEST: f64 = 1.0;

    fn call(breaker: &mut Breaker, now: Instant, verdict: Verdict) {
        let ticket = breaker.begin(now).expect("lets calls through");
        breaker.end(now, ticket, Some(verdict), LONGEST);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..SETTINGS.failures {
            call(&mut breaker, now, Verdict::Fails);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_between_them_does_not() {
        let now = SystemClock.instant();
        let mut breaker = Breaker::new(SETTINGS);
        for verdict in [Verdict::Fails, Verdict::Fails, Verdict::Answers, Verdict::Fails, Verdict::Fails] {
            call(&mut breaker, now, verdict);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        call(&mut breaker, now, Verdict::Fails);
        assert_eq!(breaker.state(now), BreakerState::Open);
        let half = Duration::from_millis(500);
        assert_eq!(breaker.begin(now + half), Err(half), "refusals tell the remaining time");
    }

    #[test]
    fn exactly_one_call_is_the_probe_and_its_answer_closes() {
        let now = SystemClock.instant();
        let mut breaker = opened(now);
        let later = now + SETTINGS.open;
        let probe = breaker.begin(later).expect("the probe");
        assert!((0..50).all(|_| breaker.begin(later).is_err()));
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        breaker.end(later, probe, Some(Verdict::Answers), LONGEST);
        assert_eq!((breaker.state(later), breaker.open_until()), (BreakerState::Closed, None));
        // The count starts anew.
        call(&mut breaker, later, Verdict::Fails);
        assert_eq!(breaker.state(later), BreakerState::Closed);
    }

    #[test]
    fn every_opening_in_a_row_is_longer_up_to_the_cap() {
        let mut now = SystemClock.instant();
        let mut breaker = opened(now);
        for seconds in [1, 2, 4, 5, 5] {
            let until = breaker.open_until().expect("open");
            assert_eq!(until - now, Duration::from_secs(seconds));
            now = until;
            call(&mut breaker, now, Verdict::Fails);
        }
        now = breaker.open_until().expect("open");
        call(&mut breaker, now, Verdict::Answers);
        for _ in 0..SETTINGS.failures {
            call(&mut breaker, now, Verdict::Fails);
        }
        assert_eq!(breaker.open_until().expect("open") - now, SETTINGS.open, "an answer forgets the past");
    }

    #[test]
    fn chance_takes_at_most_half() {
        let now = SystemClock.instant();
        let mut breaker = Breaker::new(BreakerSettings { failures: 1, ..SETTINGS });
        let ticket = breaker.begin(now).expect("closed");
        breaker.end(now, ticket, Some(Verdict::Fails), 0.0);
        assert_eq!(breaker.open_until().expect("open") - now, SETTINGS.open / 2);
    }

    #[test]
    fn a_probe_that_finds_nothing_out_makes_way_for_the_next() {
        let now = SystemClock.instant();
        let mut breaker = opened(now);
        let later = now + SETTINGS.open;
        let probe = breaker.begin(later).expect("the probe");
        breaker.end(later, probe, None, LONGEST);
        assert!(breaker.begin(later).is_ok());
        assert!(breaker.begin(later).is_err());
    }

    #[test]
    fn calls_from_before_a_change_say_nothing_after_it() {
        let now = SystemClock.instant();
        let mut breaker = Breaker::new(SETTINGS);
        let early: Vec<Ticket> = (0..8).map(|_| breaker.begin(now).expect("closed")).collect();
        for ticket in &early[..3] {
            breaker.end(now, *ticket, Some(Verdict::Fails), LONGEST);
        }
        let until = breaker.open_until();
        for (ticket, verdict) in early[3..].iter().zip([Verdict::Fails, Verdict::Answers]) {
            breaker.end(now, *ticket, Some(verdict), LONGEST);
        }
        assert_eq!(breaker.open_until(), until, "neither a longer time nor a close");
    }

    proptest! {
        /// Whatever happens in whatever order, there are never two probes, and while it is open nobody passes.
        #[test]
        fn never_two_probes(steps in prop::collection::vec((0_u64..400, 0_usize..4, any::<prop::sample::Index>()), 1..200)) {
            let mut now = SystemClock.instant();
            let mut breaker = Breaker::new(SETTINGS);
            let mut under_way: Vec<(Ticket, bool)> = Vec::new();
            for (millis, step, which) in steps {
                now += Duration::from_millis(millis);
                let before = breaker.state(now);
                if step == 0 || under_way.is_empty() {
                    if let Ok(ticket) = breaker.begin(now) {
                        prop_assert_ne!(before, BreakerState::Open);
                        under_way.push((ticket, before == BreakerState::HalfOpen));
                    }
                } else {
                    let (ticket, _) = under_way.swap_remove(which.index(under_way.len()));
                    let verdict = [None, Some(Verdict::Answers), Some(Verdict::Fails)][step - 1];
                    breaker.end(now, ticket, verdict, 0.5);
                }
                prop_assert!(under_way.iter().filter(|(_, probe)| *probe).count() <= 1);
            }
        }
    }
}
