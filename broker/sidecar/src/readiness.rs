//! Whether callers should come, for `grpc.health.v1` and for `/readyz`: not while the journal cannot commit or KMS is not asked,
//! and not from the drain on.
//!
//! That the process lives is another question, service "": `SERVING` from the start to the end, for a restart mends nothing of
//! these. After its time the breaker counts as closed: a broker that nobody calls would never ask KMS again.

use std::sync::Arc;
use std::time::Instant;

use key_broker_core::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Whether callers should come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// They should.
    Yes,
    /// The broker is about to stop.
    Draining,
    /// Records cannot be written.
    JournalFails,
    /// KMS has not answered lately.
    KmsRests,
}

impl Ready {
    /// In one line.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Yes => "ready",
            Self::Draining => "not ready: draining",
            Self::JournalFails => "not ready: the journal cannot commit",
            Self::KmsRests => "not ready: KMS has not answered lately, so it is not asked",
        }
    }
}

/// What it depends on.
pub struct Readiness {
    /// Whether the journal can commit.
    pub journal: watch::Receiver<bool>,
    /// Until when KMS is not asked.
    pub kms: watch::Receiver<Option<Instant>>,
    /// Cancelled when the broker is about to stop.
    pub drain: CancellationToken,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Readiness {
    /// Tells `health` and whoever watches `ready`, until the end.
    pub async fn report(mut self, health: HealthReporter, ready: watch::Sender<Ready>) {
        let mut journal_lives = true;
        loop {
            let rest = self
                .kms
                .borrow_and_update()
                .map(|until| until.saturating_duration_since(self.clock.instant()));
            let rest = rest.filter(|rest| !rest.is_zero());
            let commits = *self.journal.borrow_and_update() && journal_lives;
            let now = if self.drain.is_cancelled() {
                Ready::Draining
            } else if !commits {
                Ready::JournalFails
            } else if rest.is_some() {
                Ready::KmsRests
            } else {
                Ready::Yes
            };
            let status = if now == Ready::Yes { ServingStatus::Serving } else { ServingStatus::NotServing };
            health.set_service_status("keybroker.v1.KeyBroker", status).await;
            ready.send_replace(now);
            if self.drain.is_cancelled() || !journal_lives {
                return;
            }
            tokio::select! {
                changed = self.journal.changed() => journal_lives = changed.is_ok(),
                Ok(()) = self.kms.changed() => {}
                () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => {}
                () = self.drain.cancelled() => {}
            }
        }
    }
}
