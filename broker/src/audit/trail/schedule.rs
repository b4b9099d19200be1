//! When the trail delivers: at intervals, when a file of the journal is full, and at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Trail;
use crate::audit::journal::chain::Link;
use crate::audit::remainder::Leftover;

impl Trail {
    /// Delivers until `stop` is cancelled, then gives itself back for the end.
    pub async fn run(mut self, stop: CancellationToken) -> Self {
        let mut pace = Pace { next: self.clock.instant() + self.delivery_interval, pause: FIRST_PAUSE };
        let journal_commits = self.journal.health();
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                () = self.journal.segment_closed() => pace.next = self.clock.instant(),
                // The clock is asked, not tokio: it may be a test's, and a machine may sleep.
                () = tokio::time::sleep(TICK) => {}
            }
            let now = self.clock.instant();
            // A journal that cannot commit may need the room that a delivery makes.
            let crowded = !*journal_commits.borrow() && !pace.has_failed();
            if now < pace.next && !crowded {
                continue;
            }
            match self.deliver_due().await {
                Ok(()) => pace.rest(now, self.delivery_interval),
                Err(error) => {
                    self.journal.failed_delivery();
                    tracing::warn!(%error, retry_seconds = pace.pause.as_secs(), undelivered_bytes = self.journal.undelivered().bytes(), "cannot deliver the trail: records stay in the journal");
                    pace.fail(self.clock.instant());
                }
            }
        }
    }

    /// The end: tells, pays, delivers and makes digests until nothing is left and nothing can come any more, for at most `within`.
    /// The records of its own last calls to KMS are for the next start. What else is left, [`Leftover::look`] finds.
    pub async fn finish(mut self, within: Duration) {
        let (clock, began) = (Arc::clone(&self.clock), self.clock.instant());
        let rest = move || within.saturating_sub(clock.instant().saturating_duration_since(began));
        let mut has_last_digest = false;
        loop {
            // Some time is kept for the digest: of what is delivered, where something else cannot be.
            let _ = tokio::time::timeout(rest() * 3 / 4, self.deliver_all()).await;
            match tokio::time::timeout(rest(), self.digest_rest(has_last_digest)).await {
                Ok(Ok(())) => has_last_digest = true,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot deliver the last digest");
                    tokio::time::sleep(LAST_PAUSE.min(rest())).await;
                }
                Err(_) => {}
            }
            // Whatever comes after this is refused; what came before it is delivered first.
            if has_last_digest && self.close_journal().await || rest() < LEAST_REST {
                return;
            }
        }
    }

    /// Delivers until nothing is owed and nothing is left: a delivery makes the room in which more is paid.
    async fn deliver_all(&mut self) {
        let mut told = String::new();
        loop {
            let is_told = self.announcer.announce().await;
            match self.deliver().await {
                Ok(_) if is_told && self.is_settled().await => return,
                Ok(_) => tokio::time::sleep(SHORT_PAUSE).await,
                Err(error) => {
                    self.journal.failed_delivery();
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(error, "cannot deliver the end of the trail yet");
                        told = error;
                    }
                    tokio::time::sleep(LAST_PAUSE).await;
                }
            }
        }
    }

    /// The last digest, and others where something was delivered after it.
    async fn digest_rest(&mut self, has_last: bool) -> Result<(), super::TrailError> {
        if self.state.sealed.is_some() {
            // One that was cut off: it does not have what was delivered since.
            self.digest().await?;
        }
        if !has_last || !self.state.log_files.is_empty() {
            self.digest().await?;
        }
        Ok(())
    }

    async fn is_settled(&self) -> bool {
        self.journal.owed_bytes() == 0
            && self.journal.notices().untold() == 0
            && self.left().await.is_some_and(|(left, _)| left == Leftover::default())
    }

    /// Closes the journal if all of it is delivered and in a digest.
    async fn close_journal(&self) -> bool {
        let Some((left, Some(end))) = self.left().await else { return false };
        left == Leftover::default() && self.state.log_files.is_empty() && self.journal.close_at(end).await
    }

    async fn left(&self) -> Option<(Leftover, Option<Link>)> {
        let (dir, delivered, names) = (self.journal_dir.clone(), self.state.delivered, self.names.clone());
        super::on_disk(move || Ok(Leftover::look(&dir, delivered, &names)?)).await.ok()
    }

    async fn deliver_due(&mut self) -> Result<(), super::TrailError> {
        self.deliver().await?;
        // By the wall clock, which a restart does not set back; a clock that goes back itself delays a digest by as much.
        let since = self.clock.now() - self.state.start;
        if self.state.sealed.is_some() || since >= self.digest_interval {
            self.digest().await?;
        }
        Ok(())
    }
}

struct Pace {
    next: Instant,
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

    fn fail(&mut self, now: Instant) {
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// How often to look at the clock.
const TICK: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// At the end, between two attempts; and between two looks at what the journal pays.
const LAST_PAUSE: Duration = Duration::from_millis(500);
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// Less is not enough for another attempt.
const LEAST_REST: Duration = Duration::from_millis(100);
/// A store that is back gets everything within this.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
