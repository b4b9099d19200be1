//! Time, passed in: everything that stamps, ages or expires takes a [`Clock`], so that tests can move it.

use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, for records and display. It may jump.
    fn now(&self) -> OffsetDateTime;

    /// A time that never goes back, for deadlines and ages.
    fn instant(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Never goes back, but may stand still while the machine is suspended.
    pub instant: Instant,
    /// May jump, but goes on while the machine is suspended.
    pub wall: OffsetDateTime,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now(clock: &dyn Clock) -> Self {
        Self { instant: clock.instant(), wall: clock.now() }
    }

    /// The time since `earlier`: the longer of what the two clocks say, so that neither a suspended machine nor a clock
    /// set back makes a data key younger.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let wall = Duration::try_from(self.wall - earlier.wall).unwrap_or_default();
        self.instant.saturating_duration_since(earlier.instant).max(wall)
    }
}
