//! The end of a trail, if the drain lasts long enough.
//!
//! A delivery makes room in which the journal writes its backlog, which must be delivered, too; and a digest that KMS signs makes
//! another record. So both are repeated until nothing is left and, atomically with that, the journal accepts nothing more.

use std::time::{Duration, Instant};

use super::{Trail, TrailError, on_disk};
use crate::journal::hash_chain::Link;
use crate::record::BrokerEvent;
use crate::remainder::Leftover;

impl Trail {
    /// Writes the last records, delivers, and makes digests until nothing is left and the journal is closed, for at most `within`. The record
    /// of the last digest's own signature is left to the next start; if none comes, the digest itself names that call. `Leftover::look` finds
    /// what else is left.
    pub(crate) async fn finish(mut self, within: Duration) {
        let until = self.clock.instant() + within;
        let (mut is_told, mut is_closing) = (false, false);
        loop {
            // Leaves time for a digest of what is delivered, if the rest cannot be.
            let rest = until.saturating_duration_since(self.clock.instant());
            if !is_told {
                is_told = self.announcer.tell(BrokerEvent::Close).await;
                // Delivery removes what the copy reads.
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
            // Later records are refused; earlier ones are delivered first.
            if is_closing && self.close_journal().await || self.clock.instant() + LEAST_REST >= until {
                return;
            }
        }
    }

    /// Delivers until the backlog is written and nothing is left, or time is up.
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

    /// Delivers what the journal holds, and then the records of signatures made on the way.
    async fn deliver_with_signatures(&mut self) -> Result<(), TrailError> {
        let before = self.state.previous.clone();
        if self.state.sealed.is_some() {
            // An interrupted digest, which does not have what was delivered since.
            self.digest().await?;
        }
        self.deliver().await?;
        if self.state.previous != before {
            self.deliver().await?;
        }
        Ok(())
    }

    /// Makes the last digest, marked as that if nothing is left. Returns whether the newest digest is so marked.
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

/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause between looks at whether the journal has written its backlog.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// Too little for another attempt.
const LEAST_REST: Duration = Duration::from_millis(100);
