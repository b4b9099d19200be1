//! Bounds of one call, of one principal's calls and connections, and of all calls.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use key_broker_core::Principal;
use key_broker_core::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::error::BrokerError;

/// Bounds of the whole broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls at a time.
    pub calls_in_flight: u32,
    /// Connections at a time.
    pub connections: usize,
    /// What one principal may take.
    pub share: ShareLimits,
    /// The deadline of a call that has none.
    pub default_deadline: Duration,
    /// Calls with less time are refused at once.
    pub deadline_floor: Duration,
    /// How long calls in flight may take to end after SIGTERM.
    pub drain: Duration,
}

/// Bounds of one call and of all.
#[derive(Clone)]
pub(crate) struct CallLimits {
    /// Calls at a time, over all connections.
    pub max_in_flight: u32,
    /// The slots of the calls in flight.
    pub in_flight: Arc<Semaphore>,
    /// Counts them: a drain that waits takes the free slots.
    pub under_way: TaskTracker,
    /// The deadline of a call that has none.
    pub default_deadline: Duration,
    /// A call with less time than this is refused at once: it could not succeed.
    pub deadline_floor: Duration,
}

/// What one principal may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Calls at a time.
    pub calls_in_flight: usize,
    /// Calls a second, and as many at once; none is no bound.
    pub calls_per_second: Option<NonZeroU32>,
}

/// Each principal's share of the broker, so that none takes all of it.
pub(crate) struct Shares {
    limits: ShareLimits,
    clock: Arc<dyn Clock>,
    by_principal: Mutex<HashMap<Principal, Arc<Share>>>,
}

/// The share of one principal.
pub(crate) struct Share {
    connections: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Instant>>>,
}

impl CallLimits {
    /// No call is in flight yet.
    #[must_use]
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max_in_flight: limits.calls_in_flight,
            in_flight: Arc::new(Semaphore::new(limits.calls_in_flight as usize)),
            under_way: TaskTracker::new(),
            default_deadline: limits.default_deadline,
            deadline_floor: limits.deadline_floor,
        }
    }

    /// The number of calls in flight.
    #[must_use]
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(self.under_way.len()).unwrap_or(u32::MAX)
    }

    /// Waits until no call is in flight.
    pub(crate) async fn idle(&self) {
        // The semaphore is never closed.
        let _ = self.in_flight.acquire_many(self.max_in_flight).await;
    }
}

impl Shares {
    /// Nobody has taken anything yet.
    #[must_use]
    pub(crate) fn new(limits: ShareLimits, clock: Arc<dyn Clock>) -> Self {
        Self { limits, clock, by_principal: Mutex::default() }
    }

    /// The share of a principal, over all its connections. It outlives them, so that connecting anew gains nothing.
    #[must_use]
    pub(crate) fn of(&self, principal: &Principal) -> Arc<Share> {
        let mut by_principal = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = by_principal.get(principal) {
            return Arc::clone(share);
        }
        if by_principal.len() >= MAX_SHARES {
            // Of principals that are connected, there are no more than connections.
            by_principal.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let ShareLimits { connections, calls_in_flight, calls_per_second } = self.limits;
        let rate = calls_per_second.map(|n| {
            RateLimiter::direct_with_clock(Quota::per_second(n), RateClock(Arc::clone(&self.clock)))
        });
        let share = Arc::new(Share {
            connections: Arc::new(Semaphore::new(connections)),
            in_flight: Arc::new(Semaphore::new(calls_in_flight)),
            rate,
        });
        by_principal.insert(principal.clone(), Arc::clone(&share));
        share
    }
}

impl Share {
    /// Takes one connection; none if it has all that it may have.
    pub(crate) fn connect(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Takes one call.
    pub(crate) fn call(&self) -> Result<OwnedSemaphorePermit, BrokerError> {
        if let Some(rate) = &self.rate
            && let Err(too_early) = rate.check()
        {
            return Err(BrokerError::TooFast(too_early.wait_time_from(rate.clock().now())));
        }
        Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| BrokerError::TooManyOwnCalls)
    }
}

/// The broker's clock, for the rate limiter.
#[derive(Clone)]
struct RateClock(Arc<dyn Clock>);

impl GovernorClock for RateClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.instant()
    }
}

/// Each takes some 300 bytes. More principals than that are not connected at a time.
const MAX_SHARES: usize = 4_096;
