//! What the process says of itself: one line on stderr for every lifecycle event and failure, nothing per call; metrics; spans.

pub(crate) mod export;
pub(crate) mod http;
mod log_limit;
pub(crate) mod metrics;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod vocabulary;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use key_broker_core::clock::SystemClock;
use log_limit::LogLimit;
use trace::{Traces, lines};

/// Who is told of a broker's work, beside its log. Nobody, unless told.
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
}

/// Sends log lines to stderr: text for a terminal, JSON for a collector. `KEY_BROKER_LOG` filters them
/// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html>). Spans go where `traces` has
/// them exported.
pub(crate) fn init(traces: &Traces) {
    let wanted =
        EnvFilter::try_from_env(LOG_FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // Below `warn`, the lines of the AWS SDK and of HTTP libraries hold what they send: they are never shown. Nor are spans: what
    // a line needs of them is its trace id.
    let harmless = filter_fn(|line| {
        line.is_event() && (line.target().starts_with("key_broker") || *line.level() <= LevelFilter::WARN)
    });
    let limit = LogLimit::new(Arc::new(SystemClock));
    let filter = harmless.and(wanted).and(limit.clone());
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = if std::io::stderr().is_terminal() {
        log.map_event_format(|lines| lines::Noted { lines, add: lines::to_text, limit }).boxed()
    } else {
        let log = log.json().flatten_event(true).with_current_span(false).with_span_list(false);
        log.map_event_format(|lines| lines::Noted { lines, add: lines::to_json, limit }).boxed()
    };
    let log = log.with_filter(filter);
    // A second subscriber can only be a test's: it keeps the first.
    let _ = match traces.layer() {
        Some(exporting) => tracing_subscriber::registry().with(log).with(exporting).try_init(),
        None => tracing_subscriber::registry().with(log).try_init(),
    };
}

const LOG_FILTER_VARIABLE: &str = "KEY_BROKER_LOG";
const DEFAULT_FILTER: &str = "warn,key_broker=info";
