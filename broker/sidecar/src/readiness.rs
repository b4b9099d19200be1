//! Readiness, for `grpc.health.v1` and `/readyz`: the broker is not ready while the journal cannot commit,
//! while the circuit to KMS is open (in every region, where there are several), and from the drain on.
//!
//! Liveness is another question, service "": `SERVING` from start to end, since a restart mends none of
//! these. Once its open interval has passed, the circuit counts as closed: a broker that gets no calls would
//! never probe KMS again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use key_broker_core::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Whether the broker is ready for callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Ready.
    Yes,
    /// The store does not know of the trail yet: no call is answered before it does.
    TrailNotOpen,
    /// The broker is about to stop.
    Draining,
    /// Records cannot be written.
    JournalFails,
    /// The circuit to KMS is open.
    CircuitOpen,
}

impl Ready {
    /// In one line.
    #[must_use]
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Yes => "ready",
            Self::TrailNotOpen => "not ready: the trail's first digest is not delivered",
            Self::Draining => "not ready: draining",
            Self::JournalFails => "not ready: the journal cannot commit",
            Self::CircuitOpen => "not ready: KMS has not answered lately, so it is not called for now",
        }
    }
}

/// The states that readiness depends on.
pub(crate) struct Readiness {
    /// Whether the trail is open, if there is to be one.
    pub trail_is_open: watch::Receiver<bool>,
    /// Whether the journal can commit.
    pub journal: watch::Receiver<bool>,
    /// Until when the circuit to KMS is open, in each region in which it is asked.
    pub kms: Vec<watch::Receiver<Option<Instant>>>,
    /// Cancelled when the broker is about to stop.
    pub drain: CancellationToken,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Readiness {
    /// Updates `health` and `ready`, until the end.
    pub(crate) async fn report(mut self, health: HealthReporter, ready: watch::Sender<Ready>) {
        let mut journal_lives = true;
        loop {
            let open_for = self.open_for();
            let commits = *self.journal.borrow_and_update() && journal_lives;
            let is_open = *self.trail_is_open.borrow_and_update();
            let now = if self.drain.is_cancelled() {
                Ready::Draining
            } else if !is_open {
                Ready::TrailNotOpen
            } else if !commits {
                Ready::JournalFails
            } else if open_for.is_some() {
                Ready::CircuitOpen
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
                (Ok(()), ..) = select_all(self.kms.iter_mut().map(|circuit| Box::pin(circuit.changed()))) => {}
                Ok(()) = self.trail_is_open.changed() => {}
                () = tokio::time::sleep(open_for.unwrap_or_default()), if open_for.is_some() => {}
                () = self.drain.cancelled() => {}
            }
        }
    }

    /// For how long the circuits to KMS are open in all regions.
    fn open_for(&mut self) -> Option<Duration> {
        let now = self.clock.instant();
        let left = self.kms.iter_mut().map(|circuit| {
            circuit.borrow_and_update().map(|until| until.saturating_duration_since(now)).unwrap_or_default()
        });
        left.min().filter(|left| !left.is_zero())
    }
}
