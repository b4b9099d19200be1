//! When to deliver: at intervals, when a segment of the journal is full, and when the journal has no room.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::jitter::with_jitter;
use super::{NewestDigest, Trail};

/// The channel for the result of a requested delivery: its digest, or an error.
pub(super) type FlushOrder = oneshot::Sender<Result<NewestDigest, String>>;

impl Trail {
    /// Delivers until `stop` is cancelled, then returns itself for the end.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        let mut pace = self.begin();
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                Some(done) = self.flushes.recv() => {
                    // The requester may have gone away.
                    let _ = done.send(self.flush().await);
                    continue;
                }
                () = self.journal.segment_closed() => pace.next = self.clock.instant(),
                // This asks the clock instead of tokio, since tests have a clock of their own, and a machine may be suspended.
                () = tokio::time::sleep(TICK) => {}
            }
            self.turn(&mut pace).await;
        }
    }

    /// Schedules the first delivery and the first digest.
    pub(super) fn begin(&mut self) -> Pace {
        let (now, name) = (self.clock.instant(), &self.names.trail);
        self.next_digest = self.next_digest.min(now + with_jitter(self.digest_interval, name));
        Pace { next: now + with_jitter(self.delivery_interval, name), pause: FIRST_PAUSE }
    }

    /// Delivers, if that is due.
    pub(super) async fn turn(&mut self, pace: &mut Pace) {
        let now = self.clock.instant();
        // A journal that cannot commit may need the room that a delivery makes.
        let crowded = !*self.journal.health().borrow() && !pace.has_failed();
        if now < pace.next && !crowded {
            return;
        }
        match self.deliver_due(crowded).await {
            Ok(()) => pace.rest(now, self.delivery_interval),
            Err(error) => {
                self.journal.failed_delivery();
                let pause = with_jitter(pace.pause, &self.names.trail);
                tracing::warn!(%error, retry_seconds = pause.as_secs_f64(), undelivered_bytes = self.journal.undelivered().bytes(), "cannot deliver the trail: records stay in the journal");
                pace.fail(self.clock.instant(), pause);
            }
        }
    }

    async fn flush(&mut self) -> Result<NewestDigest, String> {
        let delivered = match self.deliver().await {
            Ok(_) => self.digest().await,
            Err(error) => Err(error),
        };
        if let Err(error) = delivered {
            self.journal.failed_delivery();
            return Err(error.to_string());
        }
        self.newest_digest.borrow().clone().ok_or_else(|| "there is no digest".to_owned())
    }

    async fn deliver_due(&mut self, crowded: bool) -> Result<(), super::TrailError> {
        // By wall-clock time, since the machine may be suspended, and by the monotonic clock, since wall-clock time may have been ahead.
        let since = self.clock.now() - self.state.start;
        // A digest that is due in a moment does not wait for the next delivery, which is minutes away.
        let soon = SOON.min(self.delivery_interval / 2);
        let is_due = since >= self.digest_interval || self.clock.instant() + soon >= self.next_digest;
        let wants_digest = self.state.sealed.is_some() || is_due;
        let asked_by_others = self.journal.asked_by_others();
        // The record of a delivery's own data key waits for the next digest; otherwise each delivery would cause another.
        let has_news = self.delivered_of_others != Some(asked_by_others);
        if has_news || wants_digest || crowded {
            self.deliver().await?;
            self.delivered_of_others = Some(asked_by_others);
        }
        if wants_digest {
            self.digest().await?;
        }
        Ok(())
    }
}

/// When the next delivery is due.
pub(super) struct Pace {
    pub(super) next: Instant,
    pause: Duration,
}

impl Pace {
    fn rest(&mut self, now: Instant, interval: Duration) {
        self.next = now + interval;
        self.pause = FIRST_PAUSE;
    }

    fn has_failed(&self) -> bool {
        self.pause > FIRST_PAUSE
    }

    fn fail(&mut self, now: Instant, pause: Duration) {
        self.next = now + pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Most deliveries take less: this is how far deliveries drift against digests.
const SOON: Duration = Duration::from_secs(1);
/// How often to look at the clock.
const TICK: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A store that works again gets everything within this time.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
