//! The SDK's batch processor, and how many spans it loses: of that it keeps count for itself only, and the number has to be a metric.
//! While its queue is nearly full no trace begins, so that what is exported are whole traces ([ADR 60](../../../../../docs/adr/0060-whole-traces.md)).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, ShouldSample, Span,
    SpanData, SpanExporter as Exporter, SpanProcessor,
};
use tokio::runtime::Handle;

use super::foreign;
use super::variables::Variables;

/// How many spans wait for their export, and how many are lost.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    size: usize,
    held: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    pub(super) fn new(variables: &Variables, dropped: &Arc<AtomicU64>) -> Self {
        Self { size: variables.queue, held: Arc::default(), dropped: Arc::clone(dropped) }
    }

    /// The last quarter is for the spans of traces that have begun.
    fn has_room_for_a_trace(&self) -> bool {
        self.held.load(Ordering::Relaxed) < self.size - self.size / 4
    }

    /// Whether one more is taken: then it is held.
    fn take(&self) -> bool {
        let is_taken = self.held.fetch_add(1, Ordering::Relaxed) < self.size;
        if !is_taken {
            self.held.fetch_sub(1, Ordering::Relaxed);
            self.drop(1);
        }
        is_taken
    }

    fn release(&self, spans: usize) {
        self.held.fetch_sub(spans, Ordering::Relaxed);
    }

    fn drop(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

/// Exports on `runtime` as `variables` say.
pub(super) fn processor(
    exporter: SpanExporter,
    runtime: Handle,
    variables: &Variables,
    queue: &Queue,
) -> impl SpanProcessor + use<> {
    let Variables { batch, delay, timeout, .. } = *variables;
    let exporting = Exporting {
        exporter: Arc::new(exporter),
        runtime,
        timeout,
        queue: queue.clone(),
        is_failing: AtomicBool::new(false),
    };
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(queue.size)
        .with_max_export_batch_size(batch)
        .with_scheduled_delay(delay)
        .build();
    let batches = BatchSpanProcessor::builder(exporting).with_batch_config(config).build();
    Counting { batches, queue: queue.clone() }
}

/// Begins no trace for which the queue has no room: the first span of one that it drops is counted, the others are never made.
#[derive(Debug, Clone)]
pub(super) struct WholeTraces {
    pub(super) sampler: Sampler,
    pub(super) queue: Queue,
}

impl ShouldSample for WholeTraces {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.sampler.should_sample(parent, trace, name, kind, attributes, links);
        if result.decision == SamplingDecision::RecordAndSample
            && begins_here(parent)
            && !self.queue.has_room_for_a_trace()
        {
            self.queue.drop(1);
            result.decision = SamplingDecision::Drop;
        }
        result
    }
}

/// Whether a span with this parent is the first one in this process.
fn begins_here(parent: Option<&Context>) -> bool {
    parent.is_none_or(|parent| {
        let span = parent.span();
        !span.span_context().is_valid() || span.span_context().is_remote()
    })
}

/// Drops what the batch processor would drop, and counts it.
#[derive(Debug)]
struct Counting {
    batches: BatchSpanProcessor,
    queue: Queue,
}

impl SpanProcessor for Counting {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        foreign::rename(&mut span.attributes);
        if self.queue.take() {
            self.batches.on_end(span);
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
    queue: Queue,
    is_failing: AtomicBool,
}

impl Exporter for Exporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.queue.release(count);
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
                self.queue.drop(count);
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

#[cfg(test)]
mod tests;
