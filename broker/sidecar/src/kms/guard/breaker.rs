//! The circuit breaker before KMS: a state machine without clock or lock.
//!
//! While the circuit is closed, every call goes through. A run of failures opens it, and all calls are
//! refused for an interval that doubles from one opening to the next. Then one call goes through as a probe:
//! if KMS answers it, the circuit closes; if it fails, the circuit opens again.

use std::time::{Duration, Instant};

/// When the circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Consecutive failures that open the circuit.
    pub failures: u32,
    /// The first open interval, whose upper half is jitter.
    pub open: Duration,
    /// The interval doubles with each consecutive opening, up to this.
    pub longest_open: Duration,
}

/// What the outcome of a call says about KMS's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthSignal {
    /// KMS answered, whatever it said.
    Success,
    /// KMS failed or did not answer.
    Failure,
}

/// The admission of one call. Its outcome counts only if the circuit has not changed since: a call that began before
/// says nothing about what came after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    epoch: u64,
}

#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Consecutive failures while closed.
    failures: u32,
    /// Consecutive openings.
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

    /// When the current or the last open interval ends; `None` while closed.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { until } | Phase::Probing { since: until } => Some(until),
        }
    }

    /// How long a call that would be refused now should wait.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } if now < until => Some(until - now),
            // The probe ends within the time of one call.
            Phase::Probing { .. } => Some(self.settings.open),
            Phase::Closed | Phase::Open { .. } => None,
        }
    }

    /// Admits a call, or says how long to wait.
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

    /// Ends an admitted call; without a signal it says nothing about KMS. `jitter` is from 0 to 1.
    pub(super) fn end(&mut self, now: Instant, ticket: Ticket, signal: Option<HealthSignal>, jitter: f64) {
        if ticket.epoch != self.epoch {
            return;
        }
        match (self.phase, signal) {
            (Phase::Closed, Some(HealthSignal::Success)) => self.failures = 0,
            (Phase::Closed, Some(HealthSignal::Failure)) => {
                self.failures += 1;
                if self.failures >= self.settings.failures {
                    self.open(now, jitter);
                }
            }
            (Phase::Probing { .. }, Some(HealthSignal::Success)) => {
                *self = Self { epoch: self.epoch + 1, ..Self::new(self.settings) };
            }
            (Phase::Probing { .. }, Some(HealthSignal::Failure)) => self.open(now, jitter),
            // The probe was inconclusive: the next call is the probe.
            (Phase::Probing { since }, None) => self.phase = Phase::Open { until: since },
            (Phase::Closed, None) | (Phase::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Instant, jitter: f64) {
        let doubled = self.settings.open.saturating_mul(1 << self.openings.min(MOST_DOUBLINGS));
        let longest = doubled.min(self.settings.longest_open);
        self.phase = Phase::Open { until: now + longest.mul_f64(f64::midpoint(1.0, jitter)) };
        self.failures = 0;
        self.openings += 1;
        self.epoch += 1;
    }
}

/// More doublings than any configuration can use, without overflow.
const MOST_DOUBLINGS: u32 = 20;

#[cfg(test)]
mod tests {
    //! Consecutive failures open the circuit for a growing interval; then exactly one probe decides.

    use proptest::prelude::*;

    use super::*;
    use key_broker_core::clock::{Clock, SystemClock};

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, open: Duration::from_secs(1), longest_open: Duration::from_secs(5) };
    /// Makes open intervals as long as possible.
    const LONGEST: f64 = 1.0;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum State {
        /// All calls go through.
        Closed,
        /// All calls are refused.
        Open,
        /// The next call is the probe, or the probe is in flight.
        HalfOpen,
    }

    fn state(breaker: &Breaker, now: Instant) -> State {
        match breaker.phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::Probing { .. } => State::HalfOpen,
        }
    }

    fn call(breaker: &mut Breaker, now: Instant, signal: HealthSignal) {
        let ticket = breaker.begin(now).expect("lets calls through");
        breaker.end(now, ticket, Some(signal), LONGEST);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..SETTINGS.failures {
            call(&mut breaker, now, HealthSignal::Failure);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_between_them_does_not() {
        let now = SystemClock.instant();
        let mut breaker = Breaker::new(SETTINGS);
        for signal in [
            HealthSignal::Failure,
            HealthSignal::Failure,
            HealthSignal::Success,
            HealthSignal::Failure,
            HealthSignal::Failure,
        ] {
            call(&mut breaker, now, signal);
        }
        assert_eq!(state(&breaker, now), State::Closed);
        call(&mut breaker, now, HealthSignal::Failure);
        assert_eq!(state(&breaker, now), State::Open);
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
        assert_eq!(state(&breaker, later), State::HalfOpen);
        breaker.end(later, probe, Some(HealthSignal::Success), LONGEST);
        assert_eq!((state(&breaker, later), breaker.open_until()), (State::Closed, None));
        // The count starts again.
        call(&mut breaker, later, HealthSignal::Failure);
        assert_eq!(state(&breaker, later), State::Closed);
    }

    #[test]
    fn every_opening_in_a_row_is_longer_up_to_the_cap() {
        let mut now = SystemClock.instant();
        let mut breaker = opened(now);
        for seconds in [1, 2, 4, 5, 5] {
            let until = breaker.open_until().expect("open");
            assert_eq!(until - now, Duration::from_secs(seconds));
            now = until;
            call(&mut breaker, now, HealthSignal::Failure);
        }
        now = breaker.open_until().expect("open");
        call(&mut breaker, now, HealthSignal::Success);
        for _ in 0..SETTINGS.failures {
            call(&mut breaker, now, HealthSignal::Failure);
        }
        assert_eq!(breaker.open_until().expect("open") - now, SETTINGS.open, "an answer forgets the past");
    }

    #[test]
    fn chance_takes_at_most_half() {
        let now = SystemClock.instant();
        let mut breaker = Breaker::new(BreakerSettings { failures: 1, ..SETTINGS });
        let ticket = breaker.begin(now).expect("closed");
        breaker.end(now, ticket, Some(HealthSignal::Failure), 0.0);
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
            breaker.end(now, *ticket, Some(HealthSignal::Failure), LONGEST);
        }
        let until = breaker.open_until();
        for (ticket, signal) in early[3..].iter().zip([HealthSignal::Failure, HealthSignal::Success]) {
            breaker.end(now, *ticket, Some(signal), LONGEST);
        }
        assert_eq!(breaker.open_until(), until, "neither a longer time nor a close");
    }

    proptest! {
        /// In any order of events, there are never two probes, and no call passes an open circuit.
        #[test]
        fn never_two_probes(steps in prop::collection::vec((0_u64..400, 0_usize..4, any::<prop::sample::Index>()), 1..200)) {
            let mut now = SystemClock.instant();
            let mut breaker = Breaker::new(SETTINGS);
            let mut under_way: Vec<(Ticket, bool)> = Vec::new();
            for (millis, step, which) in steps {
                now += Duration::from_millis(millis);
                let before = state(&breaker, now);
                if step == 0 || under_way.is_empty() {
                    if let Ok(ticket) = breaker.begin(now) {
                        prop_assert_ne!(before, State::Open);
                        under_way.push((ticket, before == State::HalfOpen));
                    }
                } else {
                    let (ticket, _) = under_way.swap_remove(which.index(under_way.len()));
                    let signal = [None, Some(HealthSignal::Success), Some(HealthSignal::Failure)][step - 1];
                    breaker.end(now, ticket, signal, 0.5);
                }
                prop_assert!(under_way.iter().filter(|(_, probe)| *probe).count() <= 1);
            }
        }
    }
}
