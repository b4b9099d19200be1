//! Policy and certificates, taken anew while the broker runs: at SIGHUP, and when their files have changed. Whole or not at all; log
//! and trail tell.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::audit::journal::Notices;
use crate::clock::Clock;
use crate::policy::file::Policies;
use crate::transport::tls::Tls;

/// What can be taken anew.
pub struct Reload {
    /// Who may do what.
    pub policies: Arc<Policies>,
    /// Certificates, if there are any.
    pub tls: Option<Tls>,
    /// For the next activity record.
    pub told: Arc<Notices>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What was taken anew since the record before, and what could not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reloads {
    /// Other policies are in force: their version is in the record.
    #[serde(skip_serializing_if = "is_zero")]
    pub policy: u64,
    /// Other policies had a mistake, and the ones before stay in force.
    #[serde(skip_serializing_if = "is_zero")]
    pub policy_refused: u64,
    /// Other certificates are in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub certificates: u64,
    /// Other certificates had a mistake, and the ones before stay in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub certificates_refused: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl std::ops::AddAssign for Reloads {
    fn add_assign(&mut self, other: Self) {
        self.policy += other.policy;
        self.policy_refused += other.policy_refused;
        self.certificates += other.certificates;
        self.certificates_refused += other.certificates_refused;
    }
}

impl Reload {
    /// Looks at the files until the drain.
    pub async fn run(self, drain: CancellationToken) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let (mut policy, mut certificates) = (Watched::default(), Watched::default());
        let mut warned_at = None::<OffsetDateTime>;
        loop {
            let told = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
                _ = told => {}
            }
            let policies = Arc::clone(&self.policies);
            let outcome = blocking(move || policies.reload()).await;
            match policy.note("policy", outcome) {
                Outcome::Changed => {
                    let version = self.policies.current().version().clone();
                    tracing::info!(%version, "other policies are in force");
                    self.tell(Reloads { policy: 1, ..Reloads::default() }).await;
                }
                Outcome::Refused => self.tell(Reloads { policy_refused: 1, ..Reloads::default() }).await,
                Outcome::Same => {}
            }
            let Some(tls) = self.tls.clone() else { continue };
            let again = tls.clone();
            match certificates.note("certificates", blocking(move || again.reload()).await) {
                Outcome::Changed => {
                    tracing::info!(expires_at = %tls.expires_at(), "other certificates are in use for new connections");
                    self.tell(Reloads { certificates: 1, ..Reloads::default() }).await;
                }
                Outcome::Refused => {
                    self.tell(Reloads { certificates_refused: 1, ..Reloads::default() }).await;
                }
                Outcome::Same => {}
            }
            let now = self.clock.now();
            if tls.is_overdue(now) && warned_at.is_none_or(|at| now - at > WARN_EVERY) {
                warned_at = Some(now);
                tracing::warn!(expires_at = %tls.expires_at(), "the broker's certificate expires soon, and nobody has renewed it");
            }
        }
    }
}

impl Reload {
    /// Has the trail tell it, whatever becomes of this process.
    async fn tell(&self, reloads: Reloads) {
        self.told.tell_reloads(reloads);
        let told = Arc::clone(&self.told);
        let saved = tokio::task::spawn_blocking(move || told.save()).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "cannot note yet what was taken anew: it is in memory");
        }
    }
}

/// A file that is looked at again and again: a mistake in it is told once.
#[derive(Default)]
struct Watched {
    mistake: Option<String>,
}

enum Outcome {
    Same,
    Changed,
    Refused,
}

impl Watched {
    fn note(&mut self, what: &str, outcome: Result<bool, String>) -> Outcome {
        match outcome {
            Ok(changed) => {
                if self.mistake.take().is_some() && !changed {
                    tracing::info!(what, "the file is again what is in force");
                }
                if changed { Outcome::Changed } else { Outcome::Same }
            }
            Err(error) if self.mistake.as_ref() == Some(&error) => Outcome::Same,
            Err(error) => {
                tracing::error!(what, error, "not taken: what was in force stays so");
                self.mistake = Some(error);
                Outcome::Refused
            }
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<bool, String> + Send + 'static) -> Result<bool, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("reading was cut off".into()))
}

/// Soon enough for a revoked permit; SIGHUP is sooner.
const EVERY: Duration = Duration::from_secs(5);
const WARN_EVERY: time::Duration = time::Duration::minutes(5);
