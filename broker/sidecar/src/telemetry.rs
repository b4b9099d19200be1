//! What the process says of itself: one line on stderr for every lifecycle event and failure, nothing per call; metrics; spans.

pub(crate) mod export;
pub(crate) mod http;
pub(crate) mod instance;
mod log_limit;
pub(crate) mod metrics;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod vocabulary;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use export::LogBridge;
use key_broker_core::clock::SystemClock;
use log_limit::LogLimit;
use trace::{Traces, lines};

/// Where a broker reports its work, beside its log. By default nowhere.
#[derive(Default)]
pub struct Telemetry {
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub http: Option<SocketAddr>,
    /// Decides which calls are traced.
    pub traces: Traces,
    /// Where metrics are pushed.
    pub push: Option<metrics::Push>,
    /// Counts the spans that were not exported.
    pub spans_dropped: Arc<AtomicU64>,
    /// The broker's `service.instance.id`, and the name of a new journal's trail.
    pub instance: Option<String>,
}

/// Sends log lines to stderr, as text on a terminal and JSON elsewhere, and to `collector`. `KEY_BROKER_LOG` filters them
/// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html>). Spans go where `traces` has
/// them exported.
pub(crate) fn init(traces: &Traces, collector: Option<LogBridge>, usual: &str) {
    let (wanted, mistake) = match wanted_lines(usual) {
        Ok(wanted) => (wanted, None),
        Err(mistake) => (EnvFilter::new(usual), Some(mistake)),
    };
    let limit = LogLimit::new(Arc::new(SystemClock));
    let filter = filter_fn(lines::may_show).and(wanted).and(limit.clone());
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = if std::io::stderr().is_terminal() {
        log.map_event_format(|lines| lines::Noted { lines, add: lines::to_text, limit }).boxed()
    } else {
        let log = log.json().flatten_event(true).with_current_span(false).with_span_list(false);
        log.map_event_format(|lines| lines::Noted { lines, add: lines::to_json, limit }).boxed()
    };
    // One filter: the same lines go both ways.
    let log = log.and_then(collector).with_filter(filter);
    // A second subscriber can only be a test's: it keeps the first.
    let _ = match traces.layer() {
        Some(exporting) => tracing_subscriber::registry().with(log).with(exporting).try_init(),
        None => tracing_subscriber::registry().with(log).try_init(),
    };
    if let Some(why) = mistake {
        tracing::warn!(
            variable = LOG_FILTER_VARIABLE,
            why,
            "an environment variable has an invalid value and is ignored"
        );
    }
}

/// Which lines `KEY_BROKER_LOG` asks for; where it is not set, or empty, the `usual` ones.
fn wanted_lines(usual: &str) -> Result<EnvFilter, String> {
    let told = std::env::var(LOG_FILTER_VARIABLE).unwrap_or_default();
    let filter = if told.trim().is_empty() { usual } else { &told };
    EnvFilter::try_new(filter).map_err(|error| format!("{told:?}: {error}"))
}

/// What is wrong with `KEY_BROKER_LOG`, if anything is.
pub(crate) fn log_filter_mistake() -> Option<String> {
    wanted_lines(USUAL_LINES).err().map(|why| format!("{LOG_FILTER_VARIABLE}: {why}"))
}

const LOG_FILTER_VARIABLE: &str = "KEY_BROKER_LOG";
/// The lines of an ordinary day.
pub(crate) const USUAL_LINES: &str = "warn,key_broker=info";
