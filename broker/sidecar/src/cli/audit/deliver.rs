//! `key-broker audit deliver`: delivers a dead broker's journal.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;

use super::{CommandResult, Failure};
use crate::app;
use crate::cli::{DEFAULT_CONFIG, stopped};
use crate::config::Config;
use crate::telemetry::{self, trace::Traces};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The dead broker's journal
    #[arg(long, value_name = "DIR")]
    journal: PathBuf,
    /// A configuration with the broker's store, keys and region
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Seconds to try, once the trail's keys answer
    #[arg(long, value_name = "N", default_value_t = 60)]
    timeout_seconds: u64,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit deliver --journal /var/lib/key-broker/journal\n  \
    key-broker audit deliver --journal /mnt/lost-pod/journal --config key-broker.toml";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { journal, config, timeout_seconds } = arguments;
    let config = Config::load(&config).map_err(Failure::Configuration)?;
    check(&journal)?;
    telemetry::init(&Traces::default(), None, telemetry::USUAL_LINES);
    let within = Duration::from_secs(timeout_seconds);
    let remainder = Box::pin(app::deliver(config, &journal, within)).await.map_err(Failure::Unavailable)?;
    if remainder.is_nothing() {
        tracing::info!("delivered");
    } else {
        tracing::error!("something is left: {remainder}");
    }
    Ok(stopped(&remainder))
}

/// Only the journal's own user writes there: what that user has put in root's way, root must not follow.
fn check(journal: &Path) -> Result<(), Failure> {
    let explain = |why: &dyn std::fmt::Display| Failure::Unavailable(format!("{}: {why}", journal.display()));
    let metadata = fs::symlink_metadata(journal).map_err(|error| explain(&error))?;
    if !metadata.is_dir() {
        return Err(explain(&"no directory: give that of the broker's audit.journal_dir"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(explain(&format_args!(
            "it belongs to user {}: run this as that user, as the broker ran",
            metadata.uid()
        )));
    }
    let has_journal = fs::read_dir(journal)
        .map_err(|error| explain(&error))?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("journal-"));
    if has_journal { Ok(()) } else { Err(explain(&"there is no journal in it")) }
}
