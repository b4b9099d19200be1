//! Follows the broker's AWS sessions while it runs: reports to the trail whose access keys are whose, where records have the key alone,
//! and stops a broker whose credentials become another account's.

use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Clock;
use key_broker_trail::journal::Journal;
use key_broker_trail::record::{ActivityRecord, AwsCaller, UserIdentity};
use tokio_util::sync::CancellationToken;

use crate::kms::aws::sessions::{Session, Sessions};

/// Watches the sessions until the drain.
pub(super) struct SessionWatch {
    /// The known sessions.
    pub(super) sessions: Arc<Sessions>,
    /// The journal.
    pub(super) journal: Journal,
    /// The account and region in every record.
    pub(super) caller: Arc<AwsCaller>,
    /// The clock.
    pub(super) clock: Arc<dyn Clock>,
    /// Cancelled when the broker is to stop.
    pub(super) drain: CancellationToken,
}

impl SessionWatch {
    pub(super) async fn run(self) {
        loop {
            tokio::select! {
                () = self.drain.cancelled() => return,
                words = self.sessions.other_account() => {
                    tracing::error!(
                        "{words}: the broker stops, since it writes no record under another account; give it credentials of that \
                         account, or a journal and a trail of its own for the new one"
                    );
                    self.drain.cancel();
                    return;
                }
                sessions = self.sessions.to_report() => self.report(sessions).await,
            }
        }
    }

    async fn report(&self, sessions: Vec<Session>) {
        let mut lines = Vec::new();
        for session in &sessions {
            let identity = UserIdentity::clone(session);
            ActivityRecord::of_identity(identity, self.clock.now(), &self.caller).append_to(&mut lines);
        }
        // A duplicate record adds nothing.
        if self.journal.append_of(None, lines).wait().await.is_err() {
            self.sessions.give_back(sessions);
            let pause = tokio::time::sleep(PAUSE);
            let _ = self.drain.run_until_cancelled(pause).await;
        }
    }
}

const PAUSE: Duration = Duration::from_secs(5);
