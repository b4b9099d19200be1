//! Which trail a journal belongs to, for readers other than its broker.

use std::io;
use std::path::Path;

use crate::state::State;
use crate::trail_name;

/// The trail of a journal, as noted in its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalTrail {
    /// The trail's name.
    pub name: String,
    /// The name that the configuration gave when the journal was created.
    pub configured: String,
    /// The account: 12 digits.
    pub account_id: String,
    /// The partition: `aws`, `aws-cn`, …
    pub partition: String,
    /// The region of its KMS keys.
    pub region: String,
    /// Whether the store has its first digest.
    pub has_begun: bool,
}

impl From<&str> for JournalTrail {
    /// The trail of a journal that does not exist yet: its name is made from the configured one; its account is unknown.
    fn from(configured: &str) -> Self {
        Self {
            name: trail_name::of_new_journal(configured),
            configured: configured.to_owned(),
            account_id: String::new(),
            partition: String::new(),
            region: String::new(),
            has_begun: false,
        }
    }
}

impl TryFrom<&Path> for JournalTrail {
    type Error = io::Error;

    /// The trail of the journal in this directory; [`io::ErrorKind::NotFound`] if no broker has delivered from there. Blocks.
    fn try_from(dir: &Path) -> io::Result<Self> {
        let Some(State { trail, account: Some(account), previous, .. }) = State::load(dir)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Ok(Self {
            configured: trail_name::configured(&trail).to_owned(),
            name: trail,
            account_id: account.id,
            partition: account.partition,
            region: account.region,
            has_begun: previous.is_some(),
        })
    }
}
