//! The policy file, which may be replaced while the broker runs.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};

use super::{Policy, version_of};
use crate::watched::{Look, Reloaded, WatchedFile};

/// The policies in force and their file.
pub struct Policies {
    file: Option<Mutex<WatchedFile>>,
    current: ArcSwap<Policy>,
    home: OnceLock<Home>,
}

/// The region and account whose aliases are written without them.
struct Home {
    region: String,
    account_id: String,
}

impl Policies {
    /// Reads and validates the file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let (file, bytes) = WatchedFile::open(path)?;
        let policy = parse(path, &bytes)?;
        Ok(Self { file: Some(Mutex::new(file)), ..policy.into() })
    }

    /// Sets the broker's account and region. From then on policies that cannot apply there are refused; those in force must already be
    /// valid.
    pub(crate) fn settle(&self, region: &str, account_id: &str) -> Result<(), String> {
        self.current().check_home(region, account_id)?;
        // A broker never changes these.
        let _ = self.home.set(Home { region: region.to_owned(), account_id: account_id.to_owned() });
        Ok(())
    }

    /// The policies in force, for a call that begins now.
    #[must_use]
    pub(crate) fn current(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }

    /// Reads the file again. New policies apply from the next call on, all or none of them: if the file has a mistake, or may still be being
    /// written, the previous ones stay in force. Blocks.
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

/// Policies without a file.
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
