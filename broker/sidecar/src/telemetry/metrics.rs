//! Counters and timings, for Prometheus and for OpenTelemetry collectors: one meter with all configured readers.
//!
//! Labels are closed sets: never a principal, a key, an encryption context or a ciphertext.

pub(crate) mod names;
mod timed;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{MeterProviderBuilder, PeriodicReader, SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

pub(crate) use timed::{CallTimer, Calls, KmsCalls};

use super::vocabulary;

/// The metrics of one broker.
pub(crate) struct Metrics {
    provider: SdkMeterProvider,
    text: Option<MetricsText>,
}

impl Metrics {
    /// Metrics that are scraped, pushed, or both; none without a reader, so that they cost nothing.
    #[must_use]
    pub(crate) fn new(has_text: bool, push: Option<Push>) -> Option<Self> {
        if !has_text && push.is_none() {
            return None;
        }
        let mut builder = SdkMeterProvider::builder();
        let mut text = None;
        if has_text {
            let registry = Registry::new();
            // Prometheus names its targets itself.
            let reader = opentelemetry_prometheus::exporter()
                .with_registry(registry.clone())
                .scope_info_enabled(false)
                .without_target_info()
                .build()
                .expect("an empty registry takes whatever it is given");
            builder = builder.with_reader(reader);
            text = Some(MetricsText(registry));
        }
        if let Some(Push(add)) = push {
            builder = add(builder);
        }
        Some(Self { provider: builder.build(), text })
    }

    /// Those of a command: pushed once, at its end.
    #[must_use]
    pub(crate) fn of_a_command(Push(add): Push) -> Self {
        Self { provider: add(SdkMeterProvider::builder()).build(), text: None }
    }

    /// Pushes for the last time. Blocks. Errors are text for the log.
    pub(crate) fn push(self) -> Result<(), String> {
        self.provider.shutdown().map_err(|error| error.to_string())
    }

    /// For Prometheus, if it is to be read so.
    #[must_use]
    pub(crate) fn text(&self) -> Option<MetricsText> {
        self.text.clone()
    }

    /// Pushes for the last time. Blocks.
    pub(crate) fn shutdown(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last metrics are not exported");
        }
    }

    /// Where instruments are made.
    #[must_use]
    pub(crate) fn meter(&self) -> Meter {
        self.provider.meter_with_scope(vocabulary::scope())
    }
}

/// Where metrics are pushed at intervals (`OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds; a minute without it).
pub struct Push(Box<dyn FnOnce(MeterProviderBuilder) -> MeterProviderBuilder + Send>);

impl Push {
    /// To `exporter`, as the metrics of `resource`.
    #[must_use]
    pub fn new(exporter: impl PushMetricExporter, resource: Resource) -> Self {
        Self(Box::new(|builder| {
            builder.with_resource(resource).with_reader(PeriodicReader::builder(exporter).build())
        }))
    }
}

/// The metrics as Prometheus reads them.
#[derive(Clone)]
pub(crate) struct MetricsText(Registry);

impl MetricsText {
    /// The media type of what [`MetricsText::render`] makes.
    pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

    /// All metrics as they are now, in Prometheus's text format 0.0.4. Walks through the cache: takes milliseconds where
    /// that is full.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0.gather())
    }
}
