//! Reloads of policy and certificates while the broker runs: at SIGHUP, and when their files have changed. A
//! file with a mistake changes nothing; log and trail report both. A file that may still be being written waits for the next look.

use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Clock;
use key_broker_trail::Reloads;
use key_broker_trail::journal::Journal;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::policy::file::Policies;
use crate::transport::tls::Tls;
use crate::watched::Reloaded;

/// What is reloaded.
pub(crate) struct Reload {
    /// Who may do what.
    pub policies: Arc<Policies>,
    /// Certificates, if there are any.
    pub tls: Option<Tls>,
    /// Has the next activity record report them.
    pub journal: Journal,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Reload {
    /// Looks at the files until the drain.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let (mut policy, mut certificates) = (FileWatch::default(), FileWatch::default());
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
            let (policies, looked_at) = (Arc::clone(&self.policies), self.clock.instant());
            let outcome = blocking(move || policies.reload(looked_at)).await;
            match policy.note("policy", outcome) {
                ReloadOutcome::Changed => {
                    let version = self.policies.current().version().clone();
                    tracing::info!(%version, "new policies are in force");
                    self.tell(Reloads { policy: 1, ..Reloads::default() }).await;
                }
                ReloadOutcome::Refused => {
                    self.tell(Reloads { policy_refused: 1, ..Reloads::default() }).await;
                }
                ReloadOutcome::Same => {}
            }
            let Some(tls) = self.tls.clone() else { continue };
            let again = tls.clone();
            match certificates.note("certificates", blocking(move || again.reload(looked_at)).await) {
                ReloadOutcome::Changed => {
                    tracing::info!(expires_at = %tls.expires_at(), "new certificates are in use for new connections");
                    self.tell(Reloads { certificates: 1, ..Reloads::default() }).await;
                }
                ReloadOutcome::Refused => {
                    self.tell(Reloads { certificates_refused: 1, ..Reloads::default() }).await;
                }
                ReloadOutcome::Same => {}
            }
            let now = self.clock.now();
            if tls.is_overdue(now) && warned_at.is_none_or(|at| now - at > WARN_EVERY) {
                warned_at = Some(now);
                tracing::warn!(expires_at = %tls.expires_at(), "the broker's certificate expires soon and has not been renewed");
            }
        }
    }
}

impl Reload {
    /// Has the trail report it, whatever becomes of this process.
    async fn tell(&self, reloads: Reloads) {
        let journal = self.journal.clone();
        let saved = tokio::task::spawn_blocking(move || journal.tell_reloads(reloads)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "cannot save the note of a reload yet: it is in memory only");
        }
    }
}

/// A file that is polled: the same mistake is reported once.
#[derive(Default)]
struct FileWatch {
    mistake: Option<String>,
}

/// What a look at a file found.
enum ReloadOutcome {
    Same,
    Changed,
    Refused,
}

impl FileWatch {
    fn note(&mut self, what: &str, outcome: Result<Reloaded, String>) -> ReloadOutcome {
        match outcome {
            Ok(Reloaded::Changed) => {
                self.mistake = None;
                ReloadOutcome::Changed
            }
            Ok(Reloaded::Same) => {
                if self.mistake.take().is_some() {
                    tracing::info!(what, "the file again has the contents that are in force");
                }
                ReloadOutcome::Same
            }
            Ok(Reloaded::NotYet) => {
                tracing::info!(
                    what,
                    "being written in place: loaded once it has stayed the same for five seconds; a file that is renamed into place is \
                     taken at once"
                );
                ReloadOutcome::Same
            }
            Err(error) if self.mistake.as_ref() == Some(&error) => ReloadOutcome::Same,
            Err(error) => {
                tracing::error!(what, error, "not loaded: the old contents stay in force");
                self.mistake = Some(error);
                ReloadOutcome::Refused
            }
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<Reloaded, String> + Send + 'static,
) -> Result<Reloaded, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("reading was cut off".into()))
}

/// Soon enough for a revoked permit; SIGHUP is sooner.
const EVERY: Duration = Duration::from_secs(5);
const WARN_EVERY: time::Duration = time::Duration::minutes(5);
