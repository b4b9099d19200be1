//! What the process says of itself: one line on stderr for every lifecycle event and failure, nothing per call.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sends log lines to stderr: text for a terminal, JSON for a collector. `KEY_BROKER_LOG` filters them
/// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html>).
pub fn init_log() {
    let filter = EnvFilter::try_from_env(LOG_FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber can only be a test's: it keeps the first.
    let _ = if std::io::stderr().is_terminal() { log.try_init() } else { log.json().flatten_event(true).try_init() };
}

const LOG_FILTER_VARIABLE: &str = "KEY_BROKER_LOG";
/// The SDK's own lines can hold request bodies below `warn`.
const DEFAULT_FILTER: &str = "warn,key_broker=info";
