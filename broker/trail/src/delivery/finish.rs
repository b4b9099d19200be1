//! The end of a trail, if the drain's time is enough.
//!
//! A delivery makes room in which the journal writes its backlog, which has to be delivered, too; and a digest that KMS signs makes a
//! record. So both are repeated until nothing is left and, atomically with that, the journal accepts nothing more.

use std::time::{Duration, Instant};

use super::{Trail, TrailError, on_disk};
use crate::journal::hash_chain::Link;
use crate::record::BrokerEvent;
use crate::remainder::Leftover;

impl Trail {
    /// Tells, pays, delivers and makes digests until nothing is left and the journal is closed, for at most `within`. What the last digest
    /// itself asks of KMS is for the next start: where there is none, the digest names it. What else is left, `Leftover::look` finds.
    pub(crate) async fn finish(mut self, within: Duration) {
        let until = self.clock.instant() + within;
        let (mut is_told, mut is_closing) = (false, false);
        loop {
            // Some time is kept for the digest: of what is delivered, where something else cannot be.
            let rest = until.saturating_duration_since(self.clock.instant());
            if !is_told {
                is_told = self.announcer.tell(BrokerEvent::Close).await;
                // What is delivered is removed.
                self.journal.copied().await;
            }
            self.deliver_all(self.clock.instant() + rest * 3 / 4).await;
            self.deadline = Some(until);
            match self.last_digest(is_closing).await {
                Ok(closing) => is_closing = closing,
                Err(error) => {
                    tracing::warn!(%error, "cannot deliver the last digest");
                    self.pause(PAUSE, until).await;
                }
            }
            // Whatever comes after this is refused; what came before it is delivered first.
            if is_closing && self.close_journal().await || self.clock.instant() + LEAST_REST >= until {
                return;
            }
        }
    }

    /// Delivers until the backlog is written and nothing is left, or until it is late.
    async fn deliver_all(&mut self, until: Instant) {
        self.deadline = Some(until);
        let mut told = String::new();
        while self.clock.instant() < until {
            let is_told = self.announcer.announce().await;
            match self.deliver_with_signatures().await {
                Ok(()) if is_told && self.is_settled().await => return,
                Ok(()) => self.pause(SHORT_PAUSE, until).await,
                Err(error) => {
                    self.journal.failed_delivery();
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(error, "cannot deliver the end of the trail yet");
                        told = error;
                    }
                    self.pause(PAUSE, until).await;
                }
            }
        }
    }

    /// Delivers what the journal holds, and then the records of the signatures that this took.
    async fn deliver_with_signatures(&mut self) -> Result<(), TrailError> {
        let before = self.state.previous.clone();
        if self.state.sealed.is_some() {
            // One that was cut off: it does not have what was delivered since.
            self.digest().await?;
        }
        self.deliver().await?;
        if self.state.previous != before {
            self.deliver().await?;
        }
        Ok(())
    }

    /// The last digest: marked as that where nothing is left. True if the newest one is.
    async fn last_digest(&mut self, is_closing: bool) -> Result<bool, TrailError> {
        if self.is_new() {
            self.digest().await?;
        }
        let has_more = self.state.sealed.is_some() || !self.state.log_files.is_empty();
        if is_closing && !has_more {
            return Ok(true);
        }
        let is_settled = self.is_settled().await && self.state.sealed.is_none();
        if is_settled {
            self.closing_digest().await?;
        } else {
            self.digest().await?;
        }
        Ok(is_settled)
    }

    async fn is_settled(&self) -> bool {
        self.journal.backlog_bytes() == 0
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
        on_disk(move || Ok(Leftover::look(&dir, delivered, &names)?)).await.ok()
    }

    async fn pause(&self, pause: Duration, until: Instant) {
        tokio::time::sleep(pause.min(until.saturating_duration_since(self.clock.instant()))).await;
    }
}

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at what the journal pays.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// Less is not enough for another attempt.
const LEAST_REST: Duration = Duration::from_millis(100);
