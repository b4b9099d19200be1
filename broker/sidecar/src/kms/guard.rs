//! The guard before KMS: a limit on concurrent calls, of which each principal has a share, and a circuit breaker.
//!
//! A call that the guard refuses has not reached KMS, so it has no KMS record.

pub(crate) mod breaker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use key_broker_core::Principal;
use key_broker_core::clock::Clock;
use tokio::sync::watch;
use uuid::Uuid;

use super::Attempt;
use crate::error::{BrokerError, KmsError, KmsErrorKind};
use crate::fair_queue::{FairQueue, Turn};
pub(crate) use breaker::BreakerSettings;
use breaker::{Breaker, HealthSignal, Ticket};

/// Limits on calls to KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardSettings {
    /// The most concurrent calls to KMS; one principal may have at most half of them.
    pub max_in_flight: u32,
    /// How long a call waits for a slot, if its own deadline is not earlier.
    pub queue_wait: Duration,
    /// The time in which a healthy KMS should answer: a timeout before that says nothing about KMS.
    pub fair_time: Duration,
    /// When the circuit opens.
    pub breaker: BreakerSettings,
}

/// Whose share of the slots a call uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Taker {
    /// A principal's own request, and the lookups it needs.
    Principal(Principal),
    /// The broker's refreshing of what it already knows.
    Broker,
    /// The trail's calls, without which there is no delivery.
    Trail,
    /// Revocation checks, which take only slots that are free, without waiting.
    Check,
}

/// The guard before KMS.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Inner>);

struct Inner {
    settings: GuardSettings,
    region: Arc<str>,
    clock: Arc<dyn Clock>,
    queue: Arc<FairQueue<Taker>>,
    breaker: Mutex<Breaker>,
    open_until: watch::Sender<Option<Instant>>,
}

impl Guard {
    /// A guard before KMS in `region`, with the circuit closed.
    #[must_use]
    pub(crate) fn new(settings: GuardSettings, region: &str, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            settings,
            region: region.into(),
            clock,
            queue: FairQueue::new(settings.max_in_flight),
            breaker: Mutex::new(Breaker::new(settings.breaker)),
            open_until: watch::Sender::new(None),
        }))
    }

    /// When the open circuit lets a probe through; a past time or none while calls go through.
    #[must_use]
    pub(crate) fn open_until(&self) -> watch::Receiver<Option<Instant>> {
        self.0.open_until.subscribe()
    }

    /// The region of the KMS behind this guard.
    #[must_use]
    pub(crate) fn region(&self) -> &Arc<str> {
        &self.0.region
    }

    /// The time in which a healthy KMS should answer.
    pub(super) fn fair_time(&self) -> Duration {
        self.0.settings.fair_time
    }

    /// Admits one call. The pass must be given the outcome.
    pub(super) async fn enter(&self, taker: &Taker, until: Instant) -> Result<Pass, BrokerError> {
        let inner = &*self.0;
        let arrived = inner.clock.instant();
        // A call that the circuit breaker refuses need not wait for a slot.
        self.breaker().refusal(arrived).map_or(Ok(()), |delay| Err(BrokerError::CircuitOpen(delay)))?;
        let remaining = until.saturating_duration_since(arrived);
        let wait = remaining.min(inner.settings.queue_wait);
        let turn = match taker {
            Taker::Check => Ok(inner.queue.take_what_is_left(taker).ok_or(BrokerError::KmsBusy)?),
            _ => tokio::time::timeout(wait, inner.queue.take(taker)).await,
        };
        let turn = match turn {
            Ok(turn) => turn,
            Err(_) if remaining <= inner.settings.queue_wait => return Err(BrokerError::DeadlineExceeded),
            Err(_) => return Err(BrokerError::KmsBusy),
        };
        let began = inner.clock.instant();
        let ticket = self.breaker().begin(began).map_err(BrokerError::CircuitOpen)?;
        Ok(Pass { guard: self.clone(), ticket: Some(ticket), began, _turn: turn })
    }

    fn settle(&self, ticket: Ticket, signal: Option<HealthSignal>) {
        let now = self.0.clock.instant();
        let mut breaker = self.breaker();
        let before = breaker.open_until();
        breaker.end(now, ticket, signal, jitter());
        let after = breaker.open_until();
        if before == after {
            return;
        }
        // Under the lock, so that watchers see the changes in order.
        self.0.open_until.send_replace(after);
        drop(breaker);
        let region = &**self.region();
        if let Some(until) = after {
            let seconds = until.saturating_duration_since(now).as_secs_f32();
            tracing::warn!(
                region,
                seconds,
                "circuit open: KMS has failed too often in a row, and calls to it are refused"
            );
        } else {
            tracing::info!(region, "circuit closed: KMS answers again");
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // No panic can leave the breaker half changed.
        self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The admission of one call. If it is dropped without [`Pass::end`], the call says nothing about KMS.
pub(super) struct Pass {
    guard: Guard,
    ticket: Option<Ticket>,
    began: Instant,
    _turn: Turn<Taker>,
}

impl Pass {
    /// Ends the call, in which KMS answered these attempts.
    pub(super) fn end<T>(mut self, result: &Result<T, BrokerError>, attempts: &[Attempt]) {
        let took = self.guard.0.clock.instant().saturating_duration_since(self.began);
        let fair = took >= self.guard.0.settings.fair_time;
        if let Some(ticket) = self.ticket.take() {
            self.guard.settle(ticket, health_signal(result, attempts, fair));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.guard.settle(ticket, None);
        }
    }
}

/// What a call says about KMS's health: refusals and throttling are answers, too.
fn health_signal<T>(
    result: &Result<T, BrokerError>,
    attempts: &[Attempt],
    fair: bool,
) -> Option<HealthSignal> {
    match result {
        Err(BrokerError::Kms(error)) if is_failure(error) => Some(HealthSignal::Failure),
        // It concerns the role for one account, not KMS.
        Err(BrokerError::Kms(KmsError { kind: KmsErrorKind::AccountCredentials, .. })) => None,
        Ok(_) | Err(BrokerError::Kms(_)) => Some(HealthSignal::Success),
        // If KMS did answer attempts, the deadline passed in the SDK's own pauses.
        Err(BrokerError::DeadlineExceeded) if fair && attempts.is_empty() => Some(HealthSignal::Failure),
        Err(_) => None,
    }
}

/// Whether the error means that KMS fails as a whole, or fails for the broker whatever it asks for. An error about a single key
/// (`KeyUnavailableException`: its custom key store is down) or an unknown one counts as an answer.
pub(super) fn is_failure(error: &KmsError) -> bool {
    match error.kind {
        KmsErrorKind::Credentials => true,
        KmsErrorKind::Unavailable => error.request_id.is_none() || KMS_FAILS.contains(&error.code.as_str()),
        _ => false,
    }
}

/// A random share from 0 to 1, so that the brokers of a fleet do not all try again at once.
fn jitter() -> f64 {
    let [first, second, ..] = *Uuid::new_v4().as_bytes();
    f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
}

/// KMS's own failures (API reference, "Errors" of each operation, and "Common Errors"), and the broker's name for an answer that
/// makes no sense.
const KMS_FAILS: [&str; 7] = [
    "KMSInternalException",
    "DependencyTimeoutException",
    "InternalFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
    "KMSUnexpectedAnswer",
];

#[cfg(test)]
mod tests {
    //! What counts as a failure of KMS, and how many calls pass at a time.

    use super::*;
    use key_broker_core::clock::SystemClock;

    fn guard(max_in_flight: u32, queue_wait: Duration) -> Guard {
        let breaker = BreakerSettings {
            failures: 2,
            open: Duration::from_mins(1),
            longest_open: Duration::from_mins(1),
        };
        let fair_time = Duration::from_secs(3);
        let settings = GuardSettings { max_in_flight, queue_wait, fair_time, breaker };
        Guard::new(settings, "us-west-2", Arc::new(SystemClock))
    }

    fn kms(kind: KmsErrorKind, code: &str, request_id: Option<&str>) -> BrokerError {
        let request_id = request_id.map(str::to_owned);
        BrokerError::Kms(KmsError { kind, code: code.into(), message: None, request_id })
    }

    #[test]
    fn only_kms_failing_as_a_whole_is_a_failure() {
        use KmsErrorKind::{AccessDenied, Credentials, Disabled, OtherKey, Throttled, Unavailable};
        let of = |error, fair| health_signal::<()>(&Err(error), &[], fair);
        for error in [
            kms(Unavailable, "KMSUnavailable", None),
            kms(Unavailable, "KMSInternalException", Some("id")),
            kms(Unavailable, "KMSUnexpectedAnswer", Some("id")),
            kms(Credentials, "ExpiredTokenException", Some("id")),
            kms(Credentials, "NoCredentials", None),
        ] {
            assert_eq!(of(error, false), Some(HealthSignal::Failure));
        }
        for error in [
            kms(Throttled, "ThrottlingException", Some("id")),
            kms(AccessDenied, "AccessDeniedException", Some("id")),
            kms(Disabled, "DisabledException", Some("id")),
            kms(Unavailable, "KeyUnavailableException", Some("id")),
            kms(OtherKey, "KMSUnexpectedAnswer", None),
        ] {
            assert_eq!(of(error, true), Some(HealthSignal::Success));
        }
        let of_an_account = kms(KmsErrorKind::AccountCredentials, "NoCredentials", None);
        assert_eq!(of(of_an_account, true), None, "a role that cannot be assumed stops no other calls");
        assert_eq!(of(BrokerError::DeadlineExceeded, true), Some(HealthSignal::Failure));
        assert_eq!(of(BrokerError::DeadlineExceeded, false), None, "the caller gave KMS too little time");
    }

    #[tokio::test]
    async fn a_call_that_finds_no_slot_in_time_is_told_to_come_back() {
        let guard = guard(1, Duration::from_millis(20));
        let (one, other) = (Taker::Principal(Principal::of_uid(1)), Taker::Broker);
        let later = SystemClock.instant() + Duration::from_secs(5);
        let first = guard.enter(&one, later).await;
        assert!(first.is_ok() && guard.0.queue.taken_by(&one) == 1);
        assert!(matches!(guard.enter(&other, later).await, Err(BrokerError::KmsBusy)));
        let soon = SystemClock.instant() + Duration::from_millis(5);
        assert!(matches!(guard.enter(&one, soon).await, Err(BrokerError::DeadlineExceeded)));
        drop(first);
        assert!(guard.enter(&other, later).await.is_ok() && guard.0.queue.taken_by(&other) == 0);
        assert_eq!(guard.breaker().open_until(), None);
    }

    #[tokio::test]
    async fn a_check_takes_what_is_left_and_waits_for_nothing() {
        let guard = guard(2, Duration::from_secs(20));
        let later = SystemClock.instant() + Duration::from_secs(5);
        let one = Taker::Principal(Principal::of_uid(1));
        let check = guard.enter(&Taker::Check, later).await;
        assert!(check.is_ok());
        let call = guard.enter(&one, later).await;
        assert!(call.is_ok());
        assert!(matches!(guard.enter(&Taker::Check, later).await, Err(BrokerError::KmsBusy)));
        drop(check);
        let waits = std::pin::pin!(guard.enter(&one, later));
        assert!(futures_util::poll!(waits).is_pending(), "one alone has half");
        assert!(
            matches!(guard.enter(&Taker::Check, later).await, Err(BrokerError::KmsBusy)),
            "somebody waits"
        );
    }

    #[tokio::test]
    async fn calls_of_one_do_not_keep_others_waiting() {
        let guard = guard(128, Duration::from_millis(20));
        let later = SystemClock.instant() + Duration::from_secs(5);
        let (many, other) = (Taker::Principal(Principal::of_uid(1)), Taker::Principal(Principal::of_uid(2)));
        let mut passes = Vec::new();
        while let Ok(pass) = guard.enter(&many, later).await {
            passes.push(pass);
        }
        assert_eq!(passes.len(), 64);
        for taker in [&other, &Taker::Broker, &Taker::Trail] {
            passes
                .push(guard.enter(taker, later).await.unwrap_or_else(|error| panic!("{taker:?}: {error:?}")));
        }
    }
}
