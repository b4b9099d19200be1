//! A clock that tests move.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use key_broker_core::clock::{Clock, SystemClock};
use time::OffsetDateTime;

/// Time runs as it does, from where it was moved to.
pub struct TestClock(Mutex<(OffsetDateTime, Instant, Instant)>);

impl TestClock {
    /// It is `start` now.
    pub fn at(start: OffsetDateTime) -> Arc<Self> {
        let now = SystemClock.instant();
        Arc::new(Self(Mutex::new((start, now, now))))
    }

    /// So much time passes, on both clocks.
    pub fn pass(&self, time: Duration) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.0 += time;
        places.1 += time;
    }

    /// The time of day is set back; the machine does not get younger.
    pub fn set_back(&self, time: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 -= time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.0 + places.2.elapsed()
    }

    fn instant(&self) -> Instant {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.1 + places.2.elapsed()
    }
}
