//! What benches of calls share: the programs that are measured, the load, and the machine.
#![allow(dead_code, reason = "every bench uses another part of this")]

pub(crate) mod broker;
pub(crate) mod echo;
pub(crate) mod install;
pub(crate) mod kms;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod programs;

use std::path::{Path, PathBuf};

/// Whatever ends a measurement.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The repository.
pub(crate) fn root() -> Result<PathBuf, Failure> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|dir| dir.join("Cargo.lock").exists());
    Ok(root.ok_or("a package is in its workspace")?.to_owned())
}
