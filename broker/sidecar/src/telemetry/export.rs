//! The way of spans, metrics and log lines to a collector, by OpenTelemetry's own environment variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! Exports on a separate thread: a collector that is slow, hangs or is gone delays no call. Traces that do not fit the queue are
//! dropped and counted.

mod foreign;
mod logs;
mod resource;
mod spans;
mod variables;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::metrics::Meter;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    self as otlp, LogExporter, MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, SdkLoggerProvider};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Telemetry;
use super::metrics::{Metrics, Push};
use super::trace::Traces;
use super::vocabulary;
pub(crate) use logs::LogBridge;
use resource::resource;
pub(crate) use variables::Ignored;
use variables::{Collector, Protocol, Variables};

/// The signals that are exported to a collector.
#[derive(Default)]
pub(crate) struct Export {
    traces: Traces,
    push: Option<Push>,
    dropped: Arc<AtomicU64>,
    spans: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    /// The resource of all signals, if any is exported.
    instance: Option<String>,
    /// The thread on which all is exported ends with it.
    thread: Option<DropGuard>,
    /// Environment variables that are ignored.
    ignored: Vec<Ignored>,
    /// Why something is not exported that should be.
    troubles: Vec<String>,
}

/// Something cannot be exported.
#[derive(Debug, PartialEq, Eq)]
struct ExportError(String);

impl Export {
    /// As the environment says, of the broker that is called `instance`. Without an endpoint nothing is exported, and no span is made.
    /// Invalid values are ignored, and logged [later](Export::tell), once there is a log.
    pub(crate) fn from_environment(instance: impl FnOnce() -> String) -> Self {
        let (variables, ignored) = Variables::read(variable);
        let traces = Traces::new(None, variables.propagation.clone());
        let mut export = Self { traces, ignored, ..Self::default() };
        if (variables.traces.is_some() || variables.metrics.is_some() || variables.logs.is_some())
            && let Err(error) = export.begin(&variables, instance())
        {
            export.troubles.push(error.0);
        }
        export
    }

    fn begin(&mut self, variables: &Variables, instance: String) -> Result<(), ExportError> {
        let resource = resource(instance.clone());
        self.instance = Some(instance);
        let (runtime, thread) = start_thread()?;
        self.thread = Some(thread);
        if let Some(collector) = &variables.metrics {
            match metric_exporter(collector, &runtime) {
                Ok(exporter) => self.push = Some(Push::new(exporter, resource.clone())),
                Err(error) => self.troubles.push(error.0),
            }
        }
        if let Some(collector) = &variables.logs {
            match log_exporter(collector, &runtime) {
                Ok(exporter) => {
                    let logs = SdkLoggerProvider::builder().with_resource(resource.clone());
                    self.logs = Some(logs.with_batch_exporter(exporter).build());
                }
                Err(error) => self.troubles.push(error.0),
            }
        }
        if let Some(collector) = &variables.traces {
            let exporter = span_exporter(collector, &resource, &runtime)?;
            let queue = spans::Queue::new(variables, &self.dropped);
            let processor = spans::processor(exporter, runtime, variables, &queue);
            let provider = SdkTracerProvider::builder()
                .with_resource(resource)
                .with_sampler(spans::WholeTraces { sampler: variables.sampler.clone(), queue })
                .with_span_processor(processor)
                .build();
            let tracer = provider.tracer_with_scope(vocabulary::scope());
            self.traces = Traces::new(Some(tracer), variables.propagation.clone());
            self.spans = Some(provider);
        }
        Ok(())
    }

    /// Logs ignored variables, and what cannot be exported.
    pub(crate) fn tell(&self) {
        for Ignored { variable, why } in &self.ignored {
            tracing::warn!(variable, why, "an environment variable has an invalid value and is ignored");
        }
        for error in &self.troubles {
            tracing::warn!(error, "telemetry cannot be exported: the broker serves without it");
        }
    }

    /// Which calls are traced.
    #[must_use]
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Where log lines go, beside stderr; none if they go nowhere.
    #[must_use]
    pub(crate) fn logs(&self) -> Option<LogBridge> {
        self.logs.as_ref().map(LogBridge::new)
    }

    /// For a broker, which also serves its metrics at `http`.
    #[must_use]
    pub(crate) fn telemetry(&mut self, http: Option<SocketAddr>) -> Telemetry {
        Telemetry {
            http,
            traces: self.traces.clone(),
            push: self.push.take(),
            spans_dropped: Arc::clone(&self.dropped),
            instance: self.instance.clone(),
        }
    }

    /// Ends: exports what is queued, for at most some seconds. Blocks.
    pub(crate) fn finish(self) {
        if let Some(spans) = self.spans
            && spans.shutdown_with_timeout(PATIENCE).is_err()
        {
            tracing::warn!("the last spans are not exported: the collector does not accept them");
        }
        if let Some(logs) = self.logs
            && logs.shutdown_with_timeout(PATIENCE).is_err()
        {
            tracing::warn!("the last log lines are not exported: the collector does not accept them");
        }
    }
}

/// Pushes the metrics of a command, which `measure` makes, as the environment says: nowhere without an endpoint. Blocks. An error is for
/// people.
pub(crate) fn push_once(instance: &str, measure: impl FnOnce(&Meter)) -> Result<(), String> {
    let (variables, _) = Variables::read(variable);
    let Some(collector) = &variables.metrics else { return Ok(()) };
    let (runtime, _thread) = start_thread().map_err(|error| error.0)?;
    let exporter = metric_exporter(collector, &runtime).map_err(|error| error.0)?;
    let metrics = Metrics::of_a_command(Push::new(exporter, resource(instance.to_owned())));
    measure(&metrics.meter());
    metrics.push()
}

/// A thread with its own runtime, so that a collector delays nothing else.
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

/// An exporter to a collector: the three kinds are built alike, and share no trait.
macro_rules! exporter {
    ($Exporter:ident, $collector:expr) => {{
        let url = $collector.url.clone();
        let built = match $collector.protocol {
            // Not for http: authorities would be looked for, and there may be none.
            Protocol::Grpc if is_https(&url) => {
                let tls = ClientTlsConfig::new().with_enabled_roots();
                $Exporter::builder().with_tonic().with_endpoint(url).with_tls_config(tls).build()
            }
            Protocol::Grpc => $Exporter::builder().with_tonic().with_endpoint(url).build(),
            Protocol::Http => $Exporter::builder()
                .with_http()
                .with_protocol(otlp::Protocol::HttpBinary)
                .with_endpoint(url)
                .with_http_client(http_client())
                .build(),
        };
        built.map_err(|error| cannot_export($collector, &error))
    }};
}

fn is_https(url: &str) -> bool {
    url.parse().is_ok_and(|url: Uri| url.scheme() == Some(&Scheme::HTTPS))
}

fn span_exporter(
    collector: &Collector,
    resource: &Resource,
    runtime: &Handle,
) -> Result<SpanExporter, ExportError> {
    let _entered = runtime.enter();
    let mut exporter = exporter!(SpanExporter, collector)?;
    exporter.set_resource(resource);
    Ok(exporter)
}

fn metric_exporter(
    collector: &Collector,
    runtime: &Handle,
) -> Result<OnRuntime<MetricExporter>, ExportError> {
    let _entered = runtime.enter();
    let exporter = exporter!(MetricExporter, collector)?;
    Ok(OnRuntime { exporter, runtime: runtime.clone() })
}

fn log_exporter(collector: &Collector, runtime: &Handle) -> Result<OnRuntime<LogExporter>, ExportError> {
    let _entered = runtime.enter();
    let exporter = exporter!(LogExporter, collector)?;
    Ok(OnRuntime { exporter, runtime: runtime.clone() })
}

fn cannot_export(collector: &Collector, error: &dyn fmt::Display) -> ExportError {
    ExportError(format!("to {collector}: {error}: look at the variables OTEL_EXPORTER_OTLP_*"))
}

/// What would be exported, where, and which environment variables are ignored.
pub(crate) fn outlook() -> (String, Vec<Ignored>) {
    let (variables, ignored) = Variables::read(variable);
    (variables.describe(), ignored)
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

impl opentelemetry_sdk::logs::LogExporter for OnRuntime<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let mut export = pin!(self.exporter.export(batch));
        poll_fn(|context| {
            let _entered = self.runtime.enter();
            export.as_mut().poll(context)
        })
        .await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
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

/// `OTEL_EXPORTER_OTLP_TIMEOUT`'s default.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lower than normal priority (nice value).
const NICENESS: i32 = 10;
/// A drain does not wait for a collector.
const PATIENCE: Duration = Duration::from_secs(3);
