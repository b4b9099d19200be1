//! Which trail a journal belongs to, for readers other than its broker.

use std::io;
use std::path::Path;

use crate::state::State;
use crate::trail_name;

/// The trail of a journal, as its notes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalTrail {
    /// What it is called.
    pub name: String,
    /// What the configuration called it when the journal was made.
    pub configured: String,
    /// The account: 12 digits.
    pub account_id: String,
    /// The partition: `aws`, `aws-cn`, …
    pub partition: String,
    /// The region of its KMS.
    pub region: String,
    /// Whether the store knows of it: its first digest is delivered.
    pub has_begun: bool,
}

impl From<&str> for JournalTrail {
    /// That of a journal that is still to be made, by what the configuration calls it: it has a name, and nobody knows whose it is.
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

    /// That of the journal in this directory; [`io::ErrorKind::NotFound`] if no broker has delivered from there. Blocks.
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
