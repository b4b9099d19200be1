//! The policy file, which may be replaced while the broker runs.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};

use super::{Policy, version_of};
use crate::watched::{Look, Reloaded, WatchedFile};

/// The policies in force, and where they come from.
pub struct Policies {
    file: Option<Mutex<WatchedFile>>,
    current: ArcSwap<Policy>,
    home: OnceLock<Home>,
}

/// The region and account in which aliases go by their short name.
struct Home {
    region: String,
    account_id: String,
}

impl Policies {
    /// Reads and checks the file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let (file, bytes) = WatchedFile::open(path)?;
        let policy = parse(path, &bytes)?;
        Ok(Self { file: Some(Mutex::new(file)), ..policy.into() })
    }

    /// Sets the broker's account and region: from then on policies that cannot apply there are refused, and those in force have to
    /// be right already.
    pub(crate) fn settle(&self, region: &str, account_id: &str) -> Result<(), String> {
        self.current().check_home(region, account_id)?;
        // One broker has one home.
        let _ = self.home.set(Home { region: region.to_owned(), account_id: account_id.to_owned() });
        Ok(())
    }

    /// The policies in force, for a call that begins now.
    #[must_use]
    pub(crate) fn current(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }

    /// Reads the file again. Other policies hold from the next call on, whole, or not at all: with a mistake in the file, or while it
    /// may still be being written, those before stay in force. Blocks.
    pub(crate) fn reload(&self, now: Instant) -> Result<Reloaded, String> {
        let Some(file) = &self.file else { return Ok(Reloaded::Same) };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let Look { bytes, is_whole } = file.look(now)?;
        if version_of(&bytes) == *self.current().version() {
            return Ok(Reloaded::Same);
        }
        if !is_whole {
            return Ok(Reloaded::NotYet);
        }
        let policy = parse(file.path(), &bytes)?;
        if let Some(Home { region, account_id }) = self.home.get() {
            policy
                .check_home(region, account_id)
                .map_err(|mistake| format!("{}: {mistake}", file.path().display()))?;
        }
        self.current.store(Arc::new(policy));
        Ok(Reloaded::Changed)
    }
}

/// Policies that come from no file.
impl From<Policy> for Policies {
    fn from(policy: Policy) -> Self {
        Self { file: None, current: ArcSwap::from_pointee(policy), home: OnceLock::new() }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Policy, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| format!("{}: not UTF-8: {error}", path.display()))?;
    Policy::read(text).map_err(|mistake| mistake.in_file(path))
}
