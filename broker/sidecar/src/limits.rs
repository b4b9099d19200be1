//! Limits of one call, and each principal's share of call slots, streams, request bytes and turns at being read.

mod read_turns;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use key_broker_core::clock::Clock;
use key_broker_core::{FairShares, Principal};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::BrokerError;
use crate::fair_pool::{self, FairPool};
use crate::method::{LARGEST_MESSAGE_REQUEST_BYTES, LARGEST_REQUEST_BYTES};
use read_turns::Reader;
pub(crate) use read_turns::{ReadTurn, ReadTurns};

/// The limits of the whole broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls at a time.
    pub calls_in_flight: u32,
    /// Connections at a time, on each socket.
    pub connections: usize,
    /// The limits of one principal.
    pub share: ShareLimits,
    /// The deadline of a call that has none.
    pub default_deadline: Duration,
    /// Calls with less time are refused at once.
    pub deadline_floor: Duration,
    /// How long it may take from SIGTERM to the end.
    pub drain: Duration,
}

/// The limits of one principal, where they are below its fair share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// Connections at a time, on each socket.
    pub connections: usize,
    /// Calls at a time.
    pub calls_in_flight: usize,
    /// Calls a second, and as many at once; none is no bound.
    pub calls_per_second: Option<NonZeroU32>,
}

/// Checks each call against the limits, and counts calls.
#[derive(Clone)]
pub(crate) struct CallLimits {
    /// Counts the calls that the limits admitted.
    pub under_way: TaskTracker,
    /// The deadline of a call that has none.
    pub default_deadline: Duration,
    /// A call with less time than this is refused at once: it could not succeed.
    pub deadline_floor: Duration,
}

/// The pools that all principals share.
pub(crate) struct Shares {
    pools: Arc<Pools>,
    turns: Arc<ReadTurns>,
    calls_per_second: Option<NonZeroU32>,
    clock: Arc<dyn Clock>,
    by_principal: Mutex<HashMap<Principal, Arc<Share>>>,
}

/// The size of each pool.
struct Pools {
    calls: Arc<FairPool<Principal>>,
    streams: Arc<FairPool<Principal>>,
    standard: Arc<FairPool<Principal>>,
    request_bytes: Arc<FairPool<Principal>>,
    message_bytes: Arc<FairPool<Principal>>,
}

/// The share of one principal, over all its connections.
pub(crate) struct Share {
    principal: Principal,
    pools: Arc<Pools>,
    reader: Reader,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Instant>>>,
}

/// A part of a pool; dropping this gives it back.
pub(crate) type Taken = fair_pool::Share<Principal>;

impl CallLimits {
    /// Starts without a call in flight.
    #[must_use]
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
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

    /// Counts one call until the returned value is dropped.
    pub(crate) fn count(&self) -> TaskTrackerToken {
        self.under_way.token()
    }

    /// Waits until no call is in flight, once no more are admitted.
    pub(crate) async fn idle(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }
}

impl Shares {
    /// Starts with full pools.
    #[must_use]
    pub(crate) fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        let calls = u64::from(limits.calls_in_flight);
        let pools = Pools {
            calls: FairPool::new(FairShares::new(calls).at_most(limits.share.calls_in_flight as u64)),
            streams: FairPool::new(FairShares::new(
                calls.saturating_mul(STREAMS_PER_CALL).max(LEAST_STREAMS),
            )),
            standard: FairPool::new(FairShares::new(STANDARD_CALLS)),
            request_bytes: FairPool::new(FairShares::new(32 * LARGEST_REQUEST).at_least(LARGEST_REQUEST)),
            message_bytes: FairPool::new(FairShares::new(MESSAGE_BYTES).at_least(LARGEST_MESSAGE)),
        };
        let calls_per_second = limits.share.calls_per_second;
        let (pools, turns) = (Arc::new(pools), Arc::default());
        Self { pools, turns, calls_per_second, clock, by_principal: Mutex::default() }
    }

    /// The turns of all principals.
    #[must_use]
    pub(crate) fn turns(&self) -> &Arc<ReadTurns> {
        &self.turns
    }

    /// The share of a principal. It outlives connections, so that reconnecting gains nothing.
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
        let rate = self.calls_per_second.map(|n| {
            RateLimiter::direct_with_clock(Quota::per_second(n), RateClock(Arc::clone(&self.clock)))
        });
        let (pools, reader) = (Arc::clone(&self.pools), self.turns.reader());
        let share = Arc::new(Share { principal: principal.clone(), pools, reader, rate });
        by_principal.insert(principal.clone(), Arc::clone(&share));
        share
    }
}

impl Share {
    /// Takes one call.
    pub(crate) fn call(&self) -> Result<Taken, BrokerError> {
        if let Some(rate) = &self.rate
            && let Err(too_early) = rate.check()
        {
            return Err(BrokerError::TooFast(too_early.wait_time_from(rate.clock().now())));
        }
        let calls = &self.pools.calls;
        calls.take(&self.principal, 1).ok_or_else(|| {
            if calls.has_its_share(&self.principal) {
                BrokerError::TooManyOwnCalls
            } else {
                BrokerError::TooManyCalls
            }
        })
    }

    /// The turns of one more connection.
    pub(crate) fn turn(&self) -> ReadTurn {
        self.reader.turn()
    }

    /// Takes one stream of HTTP/2, for whatever is asked on it.
    pub(crate) fn stream(&self) -> Option<Taken> {
        self.pools.streams.take(&self.principal, 1)
    }

    /// Takes one call of health or reflection.
    pub(crate) fn standard_call(&self) -> Option<Taken> {
        self.pools.standard.take(&self.principal, 1)
    }

    /// Takes bytes for a request.
    pub(crate) fn request_bytes(&self, bytes: usize) -> Option<Taken> {
        self.pools.request_bytes.take(&self.principal, bytes as u64)
    }

    /// Takes bytes for a request with a whole message, which may be longer than others: from a separate pool.
    pub(crate) fn message_bytes(&self, bytes: usize) -> Option<Taken> {
        self.pools.message_bytes.take(&self.principal, bytes as u64)
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

/// The metadata of a call that is answered, as HTTP/2 counts it: names and values, and 32 bytes for each. gRPC's own default.
pub(crate) const MAX_METADATA_BYTES: usize = 8 << 10;
/// The largest metadata that is refused with an error and a record; HTTP/2 refuses more.
pub(crate) const MAX_HEADER_BYTES: u32 = 256 << 10;
/// Each takes some 300 bytes. More principals than that are not connected at a time.
const MAX_SHARES: usize = 4_096;
/// A call that is refused has a stream, too, and so has a reply that is on its way.
const STREAMS_PER_CALL: u64 = 2;
/// Where few calls are allowed: a hundred of one connection, twice over, since one principal gets half.
const LEAST_STREAMS: u64 = 256;
/// Health and reflection, watchers included: two probes of each of many principals, and a few people's tools.
const STANDARD_CALLS: u64 = 256;
/// What one of the largest takes of the pool of bytes. All requests in flight that are not small take 16 MiB together; the least share of
/// a principal holds one of the largest, and there are eight of those left whatever others do.
const LARGEST_REQUEST: u64 = LARGEST_REQUEST_BYTES as u64 + 8;
/// The same of messages.
const LARGEST_MESSAGE: u64 = LARGEST_MESSAGE_REQUEST_BYTES as u64 + 8;
/// All requests with messages in flight. What they become is as long again: three times this is in memory at most.
const MESSAGE_BYTES: u64 = 6 * LARGEST_MESSAGE;
