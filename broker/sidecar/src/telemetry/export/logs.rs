//! Log lines to a collector: those on stderr, except the exporters' own.

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Hands lines to the SDK, which adds the trace and span of what runs.
pub(crate) struct LogBridge(OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>);

impl LogBridge {
    pub(super) fn new(provider: &SdkLoggerProvider) -> Self {
        Self(OpenTelemetryTracingBridge::new(provider))
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for LogBridge {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        let of = target.split("::").next().unwrap_or_default();
        if !EXPORTERS.contains(&of) {
            self.0.on_event(event, context);
        }
    }
}

/// Crates that export: a line about a line that could not be sent would be the next one that cannot.
const EXPORTERS: [&str; 13] = [
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry_otlp",
    "opentelemetry_http",
    "tonic",
    "tower",
    "h2",
    "hyper",
    "hyper_util",
    "hyper_rustls",
    "rustls",
    "rustls_native_certs",
    "want",
];

#[cfg(test)]
mod tests {
    //! Lines go out with the trace that they are of; what exporters say of themselves does not.

    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
    use opentelemetry::{Context as OtelContext, InstrumentationScope};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The trace and span of a line.
    type Of = Option<(TraceId, SpanId)>;

    /// Keeps them.
    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Of>>>);

    impl LogProcessor for Kept {
        fn emit(&self, line: &mut SdkLogRecord, _: &InstrumentationScope) {
            let of = line.trace_context().map(|of| (of.trace_id, of.span_id));
            self.0.lock().expect("nobody panics with it").push(of);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn lines_have_their_trace_and_exporters_have_none() {
        let kept = Kept::default();
        let provider = SdkLoggerProvider::builder().with_log_processor(kept.clone()).build();
        let (trace, span) = (TraceId::from(7_u128), SpanId::from(9_u64));
        let caller = SpanContext::new(trace, span, TraceFlags::default(), true, TraceState::NONE);
        with_default(tracing_subscriber::registry().with(LogBridge::new(&provider)), || {
            tracing::warn!(target: "opentelemetry_sdk", "cannot export");
            tracing::warn!(target: "hyper_util::client", "gone");
            tracing::info!("without a call");
            let _attached = OtelContext::new().with_remote_span_context(caller).attach();
            tracing::warn!(error = "it fails", "within a call");
        });
        assert_eq!(*kept.0.lock().expect("kept"), [None, Some((trace, span))]);
    }
}
