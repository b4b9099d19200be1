//! The broker's own life, recorded: that it starts, and with what; that it takes no new calls. How it ends, the trail records.

use std::sync::Arc;

use key_broker_core::clock::Clock;
use key_broker_trail::Origin;
use key_broker_trail::journal::{Journal, JournalUnavailable};
use key_broker_trail::record::{ActivityRecord, AwsCaller, BrokerData, BrokerEvent, UserIdentity};

/// Records moments of a broker's life.
pub(super) struct Life {
    pub(super) journal: Journal,
    pub(super) caller: Arc<AwsCaller>,
    pub(super) clock: Arc<dyn Clock>,
    /// Where it runs.
    pub(super) origin: Origin,
    /// SHA-256, in hex, of its configuration file.
    pub(super) configuration_sha256: Option<String>,
    /// What the journal held when it was opened.
    pub(super) recovered_bytes: u64,
}

impl Life {
    /// It is about to serve, with these policies and, if that is known, as this AWS session.
    pub(super) async fn starts(&self, policy_version: &str, identity: Option<UserIdentity<'static>>) {
        let data = BrokerData {
            configuration_sha256: self.configuration_sha256.as_ref().map(Into::into),
            policy_version: Some(policy_version.into()),
            origin: Some(self.origin.clone()),
            recovered_bytes: Some(self.recovered_bytes).filter(|bytes| *bytes > EMPTY_JOURNAL_BYTES),
            ..BrokerData::default()
        };
        self.tell(BrokerEvent::Start, data, identity).await;
    }

    /// It takes no new calls.
    pub(super) async fn drains(&self) {
        self.tell(BrokerEvent::Drain, BrokerData::default(), None).await;
    }

    async fn tell(
        &self,
        event: BrokerEvent,
        data: BrokerData<'_>,
        identity: Option<UserIdentity<'static>>,
    ) {
        let mut line = Vec::new();
        ActivityRecord::of_broker(event, data, identity, self.clock.now(), &self.caller).append_to(&mut line);
        // It happens whether or not the journal can be written.
        if let Err(JournalUnavailable(Some(line))) = self.journal.append_for_the_trail(line).wait().await {
            self.journal.defer_for_the_trail(&line);
        }
    }
}

/// The beginning of a file, without records.
const EMPTY_JOURNAL_BYTES: u64 = 160;
