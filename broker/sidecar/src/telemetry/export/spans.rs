//! The SDK's batch processor, and how many spans it loses: of that it keeps count for itself only, and the number has to be a metric.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter as Exporter, SpanProcessor,
};
use tokio::runtime::Handle;

use super::foreign;
use super::variables::Variables;

/// Holds and sends as many spans as `variables` say, and exports them on `runtime`.
pub(super) fn processor(
    exporter: SpanExporter,
    runtime: Handle,
    variables: &Variables,
    dropped: &Arc<AtomicU64>,
) -> impl SpanProcessor + use<> {
    let Variables { queue, batch, delay, timeout, .. } = *variables;
    let held = Arc::new(AtomicUsize::new(0));
    let exporting = Exporting {
        exporter: Arc::new(exporter),
        runtime,
        timeout,
        held: Arc::clone(&held),
        dropped: Arc::clone(dropped),
        is_failing: AtomicBool::new(false),
    };
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(queue)
        .with_max_export_batch_size(batch)
        .with_scheduled_delay(delay)
        .build();
    let batches = BatchSpanProcessor::builder(exporting).with_batch_config(config).build();
    Counting { batches, queue, held, dropped: Arc::clone(dropped) }
}

/// Drops what the batch processor would drop, and counts it.
#[derive(Debug)]
struct Counting {
    batches: BatchSpanProcessor,
    queue: usize,
    /// How many it has.
    held: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl SpanProcessor for Counting {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        foreign::rename(&mut span.attributes);
        if self.held.fetch_add(1, Ordering::Relaxed) < self.queue {
            self.batches.on_end(span);
        } else {
            self.held.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

/// Exports on a thread with low priority, and counts what cannot be exported.
#[derive(Debug)]
struct Exporting {
    exporter: Arc<SpanExporter>,
    runtime: Handle,
    timeout: Duration,
    held: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    is_failing: AtomicBool,
}

impl Exporter for Exporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.held.fetch_sub(count, Ordering::Relaxed);
        let (exporter, timeout) = (Arc::clone(&self.exporter), self.timeout);
        // Also what a batch is encoded by, and the SDK's own thread has no runtime.
        let export = self.runtime.spawn(async move {
            let export = tokio::time::timeout(timeout, exporter.export(batch));
            export.await.unwrap_or(Err(OTelSdkError::Timeout(timeout)))
        });
        let outcome =
            export.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) => {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
                if !was_failing {
                    tracing::warn!(
                        %error,
                        "the collector does not accept spans: they are dropped until it does"
                    );
                }
            }
            Ok(()) if was_failing => tracing::info!("the collector accepts spans again"),
            Ok(()) => {}
        }
        outcome
    }
}
