//! Reports what the broker has found out about its trail in a record of the broker's own, if no call's record does soon.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use key_broker_core::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, JournalUnavailable, files};
use super::origin::Origin;
use super::record::{ActivityRecord, AwsCaller, BrokerData, BrokerEvent, UserIdentity};

/// Writes records of the broker's own.
#[derive(Clone)]
pub(crate) struct Announcer {
    /// Where they are written.
    pub(crate) journal: Journal,
    /// The journal's directory.
    pub(crate) journal_dir: PathBuf,
    /// The account and region in every record.
    pub(crate) caller: Arc<AwsCaller>,
    /// Where the broker runs.
    pub(crate) origin: Origin,
    /// The clock for their times.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Announcer {
    /// Reports what no call's record has reported within some seconds, until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let notices = Arc::clone(self.journal.notices());
        let healthy = self.journal.health();
        let mut waited = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if notices.is_changed() {
                let notices = Arc::clone(&notices);
                // It is tried again with the next tick. It fails only if the journal's disk does.
                let _ = tokio::task::spawn_blocking(move || notices.save()).await;
            }
            waited = if notices.untold() == 0 { 0 } else { waited + 1 };
            if (waited >= PATIENCE || notices.is_uncertain()) && *healthy.borrow() && !self.announce().await {
                waited = 0;
            }
        }
    }

    /// Reports every notice, and waits until the backlog is written.
    pub(crate) async fn write_backlog(&self) {
        while !self.announce().await || self.journal.backlog_bytes() > 0 {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Records an event in the broker's life. False if the journal cannot take it now.
    pub(crate) async fn tell(&self, event: BrokerEvent) -> bool {
        let mut line = Vec::new();
        let data = BrokerData::default();
        ActivityRecord::of_broker(event, data, None, self.clock.now(), &self.caller).append_to(&mut line);
        self.journal.append_for_the_trail(line).wait().await.is_ok()
    }

    /// The same for an event that happens whether or not the journal can be written: it is recorded as soon as it can.
    pub(crate) fn tell_later(
        &self,
        event: BrokerEvent,
        data: BrokerData<'_>,
        identity: Option<UserIdentity<'static>>,
    ) {
        let mut line = Vec::new();
        ActivityRecord::of_broker(event, data, identity, self.clock.now(), &self.caller).append_to(&mut line);
        self.journal.defer_for_the_trail(&line);
    }

    /// Reports every pending notice. False if the journal cannot take it now.
    pub(crate) async fn announce(&self) -> bool {
        while let Some(taken) = self.journal.notices().take_for_own_record() {
            if taken.may_be_told() {
                let (dir, id) = (self.journal_dir.clone(), taken.untold().id.to_string());
                let found = tokio::task::spawn_blocking(move || is_in(&dir, id.as_bytes())).await;
                match found {
                    Ok(Ok(true)) => {
                        taken.told();
                        continue;
                    }
                    Ok(Ok(false)) => {}
                    // The journal's directory cannot be read, or the runtime ends.
                    Ok(Err(_)) | Err(_) => return false,
                }
            }
            let mut record = Vec::new();
            ActivityRecord::of_notice(taken.untold(), self.clock.now(), &self.caller).append_to(&mut record);
            match self.journal.append(record).wait().await {
                Ok(()) => taken.told(),
                Err(JournalUnavailable(Some(_))) => {
                    taken.give_back();
                    return false;
                }
                // It may still be written: the next look into the journal shows that.
                Err(JournalUnavailable(None)) => return false,
            }
        }
        true
    }
}

/// Whether a file of the journal contains this text.
fn is_in(journal_dir: &Path, text: &[u8]) -> io::Result<bool> {
    let finder = memchr::memmem::Finder::new(text);
    for file in files(journal_dir)? {
        if finder.find(&fs::read(&file.path)?).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

const TICK: Duration = Duration::from_millis(100);
/// Five seconds in ticks. Most brokers are called within that time.
const PATIENCE: u32 = 50;
