//! Time, passed in: everything that stamps, ages or expires takes a [`Clock`], so that tests can move it.

use std::time::Instant;

use time::OffsetDateTime;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, for people and records. It may jump.
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
