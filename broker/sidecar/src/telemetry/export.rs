//! The way of spans and metrics to a collector, by OpenTelemetry's own environment variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! A thread of its own exports: a collector that is slow, hangs or is gone costs no call anything. What does not fit the queue is
//! dropped and counted.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Telemetry;
use super::metrics::Push;
use super::trace::Tracer;
use super::vocabulary::{SCHEMA_URL, SCOPE};

/// What goes to a collector.
#[derive(Default)]
pub struct Export {
    tracer: Tracer,
    push: Option<Push>,
    dropped: Arc<AtomicU64>,
    running: Option<Running>,
}

/// The thread on which both are exported.
struct Running {
    /// Ends the thread.
    stop: CancellationToken,
    spans: Option<Spans>,
}

/// The export of spans.
struct Spans {
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

/// The environment asks for something that there is not.
#[derive(Debug, PartialEq, Eq)]
pub struct ExportError(String);

/// How much is held, and for how long: `OTEL_BSP_*`.
#[derive(Debug, Clone, Copy)]
struct Batching {
    queue: usize,
    batch: usize,
    delay: Duration,
    timeout: Duration,
}

impl Export {
    /// As the environment says. Without an endpoint nothing is exported, and no span is made.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ExportError> {
        let (traces, metrics) = (is_wanted("TRACES", variable)?, is_wanted("METRICS", variable)?);
        if !traces && !metrics {
            return Ok(Self::default());
        }
        let resource = resource(variable);
        let (runtime, stop) = start_thread()?;
        let mut export = Self::default();
        let mut spans = None;
        if metrics {
            let exporter = metric_exporter(protocol("METRICS", variable)?, &runtime)?;
            export.push = Some(Push::new(exporter, resource.clone()));
        }
        if traces {
            let propagates = match variable("OTEL_PROPAGATORS") {
                None => true,
                Some(names) => names.split(',').any(|name| name.trim() == "tracecontext"),
            };
            let batching = Batching::read(variable)?;
            let exporter = span_exporter(protocol("TRACES", variable)?, &resource, &runtime)?;
            let (sender, receiver) = mpsc::channel(batching.queue);
            let stop = CancellationToken::new();
            let dropped = Arc::clone(&export.dropped);
            let exporting =
                Exporting { batching, receiver, stop: stop.clone(), dropped: Arc::clone(&dropped) };
            spans = Some(Spans { stop, ended: runtime.spawn(exporting.run(exporter)) });
            let provider = SdkTracerProvider::builder()
                .with_resource(resource)
                .with_span_processor(Queue { sender, dropped })
                .build();
            let scope = InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .with_schema_url(SCHEMA_URL)
                .build();
            export.tracer = Tracer::new(provider.tracer_with_scope(scope), propagates);
        }
        export.running = Some(Running { stop, spans });
        Ok(export)
    }

    /// For a broker, which also serves its metrics at `http`.
    #[must_use]
    pub fn telemetry(&mut self, http: Option<SocketAddr>) -> Telemetry {
        Telemetry {
            http,
            tracer: self.tracer.clone(),
            push: self.push.take(),
            spans_dropped: Arc::clone(&self.dropped),
        }
    }

    /// Ends: what is queued is still exported, for at most some seconds.
    pub async fn finish(self) {
        let Some(Running { stop, spans }) = self.running else { return };
        if let Some(Spans { stop, ended }) = spans {
            stop.cancel();
            if tokio::time::timeout(PATIENCE, ended).await.is_err() {
                tracing::warn!("the last spans are not exported: the collector does not take them");
            }
        }
        stop.cancel();
    }
}

/// A thread with a runtime of its own: whatever a collector does, it holds up nobody else.
fn start_thread() -> Result<(Handle, CancellationToken), ExportError> {
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
    Ok((handle, stop))
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
#[must_use]
pub fn resource(variable: &dyn Fn(&str) -> Option<String>) -> Resource {
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

fn is_wanted(signal: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<bool, ExportError> {
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

fn protocol(signal: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Protocol, ExportError> {
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

impl Batching {
    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ExportError> {
        let number = |name: &str, default: usize| match variable(name) {
            None => Ok(default),
            Some(text) => {
                text.parse().ok().filter(|number| (1..=MAX_QUEUE).contains(number)).ok_or_else(|| {
                    ExportError(format!("{name}: {text:?} is not a number of 1 to {MAX_QUEUE}"))
                })
            }
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)?;
        let milliseconds = |number| Duration::from_millis(u64::try_from(number).unwrap_or(u64::MAX));
        Ok(Self {
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue),
            delay: milliseconds(number("OTEL_BSP_SCHEDULE_DELAY", 5_000)?),
            timeout: milliseconds(number("OTEL_BSP_EXPORT_TIMEOUT", 30_000)?),
        })
    }
}

/// Takes spans where they end, and never waits.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What the thread works with.
struct Exporting {
    batching: Batching,
    receiver: mpsc::Receiver<SpanData>,
    stop: CancellationToken,
    dropped: Arc<AtomicU64>,
}

impl Exporting {
    /// Exports until it is told to stop, and then what is left.
    async fn run(mut self, exporter: SpanExporter) {
        let Batching { batch: most, delay, timeout, .. } = self.batching;
        let mut is_failing = false;
        while let Some(first) = self.next().await {
            let mut batch = vec![first];
            let fill = async {
                while batch.len() < most
                    && let Some(span) = self.next().await
                {
                    batch.push(span);
                }
            };
            // Whoever is not there in time is in the next one.
            let _ = tokio::time::timeout(delay, fill).await;
            let count = batch.len();
            let failed = match tokio::time::timeout(timeout, exporter.export(batch)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it does not answer".to_owned()),
            };
            if let Some(error) = &failed {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
                if !is_failing {
                    tracing::warn!(
                        error,
                        "the collector does not take spans: they are dropped until it does"
                    );
                }
            } else if is_failing {
                tracing::info!("the collector takes spans again");
            }
            is_failing = failed.is_some();
        }
    }

    /// The next span; none after the stop, when all are taken.
    async fn next(&mut self) -> Option<SpanData> {
        tokio::select! {
            biased;
            span = self.receiver.recv() => span,
            () = self.stop.cancelled() => {
                self.receiver.close();
                self.receiver.recv().await
            }
        }
    }
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

/// Some 100 MB of spans.
const MAX_QUEUE: usize = 65_536;
/// `OTEL_EXPORTER_OTLP_TIMEOUT`'s default.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Half way to the least.
const NICENESS: i32 = 10;
/// A drain does not wait for a collector.
const PATIENCE: Duration = Duration::from_secs(3);
