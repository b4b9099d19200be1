//! Which of several brokers tells: one id for a broker's spans, metrics, log lines and trail.

use std::path::Path;

use key_broker_trail::JournalTrail;
use uuid::Uuid;

/// The name of the trail of the journal in `journal_dir`, or the one that its trail is to have. A broker without a trail has a random id.
pub(crate) fn of_journal(journal_dir: &Path, trail: Option<&str>) -> String {
    let Some(configured) = trail else { return Uuid::new_v4().to_string() };
    // What cannot be read, the start tells.
    JournalTrail::try_from(journal_dir).unwrap_or_else(|_| JournalTrail::from(configured)).name
}
