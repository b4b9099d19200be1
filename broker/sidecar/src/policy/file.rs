//! The file of policies, which may be replaced while the broker runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Policy;

/// The policies in force, and where they come from.
pub struct Policies {
    file: Option<PathBuf>,
    current: ArcSwap<Policy>,
}

impl Policies {
    /// Reads and checks the file.
    pub(crate) fn load(file: &Path) -> Result<Self, String> {
        let policy = read(file)?;
        Ok(Self { file: Some(file.to_owned()), current: ArcSwap::from_pointee(policy) })
    }

    /// The policies in force: what a call that begins now is held to.
    #[must_use]
    pub(crate) fn current(&self) -> Guard<Arc<Policy>> {
        self.current.load()
    }

    /// Reads the file again; true if it holds other policies now. They hold from the next call on, whole, or not at all: with a
    /// mistake in the file, those before stay in force.
    pub(crate) fn reload(&self) -> Result<bool, String> {
        let Some(file) = &self.file else { return Ok(false) };
        let policy = read(file)?;
        if policy.version() == self.current().version() {
            return Ok(false);
        }
        self.current.store(Arc::new(policy));
        Ok(true)
    }
}

/// Policies that come from no file.
impl From<Policy> for Policies {
    fn from(policy: Policy) -> Self {
        Self { file: None, current: ArcSwap::from_pointee(policy) }
    }
}

fn read(file: &Path) -> Result<Policy, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Policy::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}
