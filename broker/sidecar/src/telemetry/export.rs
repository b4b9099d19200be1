//! The way of spans and metrics to a collector, by OpenTelemetry's own environment variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>), which the SDK reads: what is read here is
//! whether anything is exported at all, and what the SDK would pass over in silence.
//!
//! A thread of its own exports: a collector that is slow, hangs or is gone costs no call anything. What does not fit the queue is
//! dropped and counted.

mod foreign;
mod spans;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Telemetry;
use super::metrics::Push;
use super::trace::Traces;
use super::vocabulary::{self, SCOPE};

/// What goes to a collector.
#[derive(Default)]
pub(crate) struct Export {
    traces: Traces,
    push: Option<Push>,
    dropped: Arc<AtomicU64>,
    spans: Option<SdkTracerProvider>,
    /// The thread on which both are exported ends with it.
    thread: Option<DropGuard>,
}

/// The environment asks for something that there is not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExportError(String);

impl Export {
    /// As the environment says. Without an endpoint nothing is exported, and no span is made.
    pub(crate) fn from_environment() -> Result<Self, ExportError> {
        let propagates = match variable("OTEL_PROPAGATORS") {
            None => true,
            Some(names) => names.split(',').any(|name| name.trim() == "tracecontext"),
        };
        let mut export = Self { traces: Traces::new(None, propagates), ..Self::default() };
        let (traces, metrics) = (is_wanted("TRACES")?, is_wanted("METRICS")?);
        if !traces && !metrics {
            return Ok(export);
        }
        let resource = resource();
        let (runtime, thread) = start_thread()?;
        export.thread = Some(thread);
        if metrics {
            let exporter = metric_exporter(protocol("METRICS")?, &runtime)?;
            export.push = Some(Push::new(exporter, resource.clone()));
        }
        if traces {
            sampler()?;
            let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)?;
            for name in ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY"] {
                number(name, 1)?;
            }
            let timeout = number("OTEL_BSP_EXPORT_TIMEOUT", 30_000)?;
            let timeout = Duration::from_millis(u64::try_from(timeout).unwrap_or(u64::MAX));
            let exporter = span_exporter(protocol("TRACES")?, &resource, &runtime)?;
            let processor = spans::processor(exporter, runtime, timeout, queue, &export.dropped);
            let provider =
                SdkTracerProvider::builder().with_resource(resource).with_span_processor(processor).build();
            export.traces = Traces::new(Some(provider.tracer_with_scope(vocabulary::scope())), propagates);
            export.spans = Some(provider);
        }
        Ok(export)
    }

    /// Which calls are traced.
    #[must_use]
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    /// For a broker, which also serves its metrics at `http`.
    #[must_use]
    pub(crate) fn telemetry(&mut self, http: Option<SocketAddr>) -> Telemetry {
        Telemetry {
            http,
            traces: self.traces.clone(),
            push: self.push.take(),
            spans_dropped: Arc::clone(&self.dropped),
        }
    }

    /// Ends: what is queued is still exported, for at most some seconds. Blocks.
    pub(crate) fn finish(self) {
        if let Some(spans) = self.spans
            && spans.shutdown_with_timeout(PATIENCE).is_err()
        {
            tracing::warn!("the last spans are not exported: the collector does not take them");
        }
    }
}

/// A thread with a runtime of its own: whatever a collector does, it holds up nobody else.
fn start_thread() -> Result<(Handle, DropGuard), ExportError> {
    let broken = |error: std::io::Error| ExportError(format!("the telemetry thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
    let stopped = stop.clone();
    let work = move || {
        // Of this thread alone (setpriority(2)): where processors are short, calls go first, and spans are dropped.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        runtime.block_on(stopped.cancelled());
    };
    std::thread::Builder::new().name("telemetry".into()).spawn(work).map_err(broken)?;
    Ok((handle, stop.drop_guard()))
}

fn span_exporter(
    protocol: Protocol,
    resource: &Resource,
    runtime: &Handle,
) -> Result<SpanExporter, ExportError> {
    let _entered = runtime.enter();
    let built = match protocol {
        Protocol::Grpc => SpanExporter::builder().with_tonic().build(),
        Protocol::Http => SpanExporter::builder().with_http().with_http_client(http_client()).build(),
    };
    let mut exporter = built.map_err(|error| cannot_export(&error))?;
    exporter.set_resource(resource);
    Ok(exporter)
}

fn metric_exporter(protocol: Protocol, runtime: &Handle) -> Result<OnRuntime<MetricExporter>, ExportError> {
    let _entered = runtime.enter();
    let built = match protocol {
        Protocol::Grpc => MetricExporter::builder().with_tonic().build(),
        Protocol::Http => MetricExporter::builder().with_http().with_http_client(http_client()).build(),
    };
    let exporter = built.map_err(|error| cannot_export(&error))?;
    Ok(OnRuntime { exporter, runtime: runtime.clone() })
}

fn cannot_export(error: &dyn fmt::Display) -> ExportError {
    ExportError(format!("OTEL_EXPORTER_OTLP_*: {error}"))
}

/// An exporter whose input and output are a runtime's, whatever thread waits for it: that of the SDK has none.
#[derive(Debug)]
struct OnRuntime<E> {
    exporter: E,
    runtime: Handle,
}

impl<E: PushMetricExporter> PushMetricExporter for OnRuntime<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut export = pin!(self.exporter.export(metrics));
        poll_fn(|context| {
            let _entered = self.runtime.enter();
            export.as_mut().poll(context)
        })
        .await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// Who tells: `service.name` and what `OTEL_RESOURCE_ATTRIBUTES` adds.
fn resource() -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| list.contains("service.name="));
    let resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { resource.build() } else { resource.with_service_name(SCOPE).build() }
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn is_wanted(signal: &str) -> Result<bool, ExportError> {
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let names = [format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"), "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()];
    let endpoint = names.into_iter().find_map(|name| {
        let url = variable(&name).filter(|url| !url.is_empty())?;
        Some((name, url))
    });
    if let Some((name, url)) = &endpoint
        && !is_url(url)
    {
        return Err(ExportError(format!("{name}: {url:?} is not an http or https URL")));
    }
    let has_endpoint = endpoint.is_some();
    let name = format!("OTEL_{signal}_EXPORTER");
    match variable(&name).as_deref() {
        None | Some("" | "otlp") => Ok(has_endpoint && !is_disabled),
        Some("none") => Ok(false),
        Some(other) => Err(ExportError(format!("{name}: {other:?} is neither \"otlp\" nor \"none\""))),
    }
}

fn protocol(signal: &str) -> Result<Protocol, ExportError> {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL");
    let (name, value) = match variable(&own) {
        Some(value) => (own, Some(value)),
        None => ("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), variable("OTEL_EXPORTER_OTLP_PROTOCOL")),
    };
    match value.as_deref() {
        Some("grpc") => Ok(Protocol::Grpc),
        // The specification's default.
        None | Some("" | "http/protobuf") => Ok(Protocol::Http),
        Some(other) => {
            Err(ExportError(format!("{name}: {other:?} is neither \"grpc\" nor \"http/protobuf\"")))
        }
    }
}

/// A number that the SDK reads, too; it would take its default for what is none.
fn number(name: &str, default: usize) -> Result<usize, ExportError> {
    let Some(text) = variable(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=MAX_QUEUE).contains(number));
    number.ok_or_else(|| ExportError(format!("{name}: {text:?} is not a number of 1 to {MAX_QUEUE}")))
}

/// The sampler that the SDK reads, too; it would sample every call where it knows no such sampler, or no such share.
fn sampler() -> Result<(), ExportError> {
    let Some(name) = variable("OTEL_TRACES_SAMPLER") else { return Ok(()) };
    if !SAMPLERS.contains(&&*name) {
        let known = SAMPLERS.join(", ");
        return Err(ExportError(format!("OTEL_TRACES_SAMPLER: {name:?} is none of {known}")));
    }
    let Some(share) = variable("OTEL_TRACES_SAMPLER_ARG").filter(|_| name.ends_with("ratio")) else {
        return Ok(());
    };
    let is_share = share.parse().is_ok_and(|share: f64| (0.0..=1.0).contains(&share));
    let refusal = || ExportError(format!("OTEL_TRACES_SAMPLER_ARG: {share:?} is not a number of 0 to 1"));
    is_share.then_some(()).ok_or_else(refusal)
}

/// HTTP/1.1, with TLS for https and the system's authorities.
fn http_client()
-> HyperClient<hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>> {
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
        .expect("config knows of the system's authorities")
        .https_or_http()
        .enable_http1()
        .build();
    HyperClient::new(connector, HTTP_TIMEOUT, None)
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExportError {}

/// Those of the SDK.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];
/// Some 100 MB of spans.
const MAX_QUEUE: usize = 65_536;
/// `OTEL_EXPORTER_OTLP_TIMEOUT`'s default.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Half way to the least.
const NICENESS: i32 = 10;
/// A drain does not wait for a collector.
const PATIENCE: Duration = Duration::from_secs(3);
