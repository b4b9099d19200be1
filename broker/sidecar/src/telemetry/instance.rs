//! The instance id of a broker, the same for its spans, metrics, log lines and trail.

use std::path::Path;

use key_broker_trail::JournalTrail;
use uuid::Uuid;

/// The name of the trail of the journal in `journal_dir`, or the one that its trail is to have. A broker without a trail has a random id.
pub(crate) fn of_journal(journal_dir: &Path, trail: Option<&str>) -> String {
    let Some(configured) = trail else { return Uuid::new_v4().to_string() };
    // The start reports what cannot be read.
    JournalTrail::try_from(journal_dir).unwrap_or_else(|_| JournalTrail::from(configured)).name
}
