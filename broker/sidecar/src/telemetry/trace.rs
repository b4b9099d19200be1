//! Spans are `tracing`'s, exported through `tracing-opentelemetry` (ADR 21), but for a call's own and those of its parts (ADR 63).
//! Whether a call has any is decided when it arrives, before one is made: of a call that is not sampled nothing is kept but the trace
//! id that its caller sent, for log lines.
//!
//! Whatever runs within a call has its context, [`Context::current`]: spans that are made there hang from it, and log lines name
//! its trace. A task that works for a call takes the context with it (`with_current_context`).

mod layer;
pub(crate) mod lines;
mod propagation;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use http::HeaderMap;
use key_broker_trail::record::TraceData;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use tonic::Code;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::{status, vocabulary};
use crate::method::Method;
pub(crate) use propagation::{Propagation, Propagator};

/// Decides which calls are traced.
#[derive(Clone)]
pub struct Traces {
    tracer: Option<SdkTracer>,
    propagation: Propagation,
}

/// What a call's spans and log lines belong to.
pub(crate) struct CallTrace {
    /// Of a call that is not sampled, its caller's, for log lines.
    context: Option<Context>,
    span: ServerSpan,
}

/// The server span of a call, if the call is sampled. It and its parts are the SDK's own spans: whether there are any is decided
/// already, and a span of `tracing`'s would cost three times as much ([ADR 63](../../../../docs/adr/0063-spans-of-a-call.md)).
#[derive(Clone, Default)]
pub(crate) struct ServerSpan(Option<Arc<Started>>);

struct Started {
    context: Context,
    tracer: SdkTracer,
}

impl ServerSpan {
    /// Whether anybody sees what the span is given.
    #[must_use]
    pub(crate) fn is_exported(&self) -> bool {
        self.0.is_some()
    }

    /// Ends it with these attributes; if it is dropped instead, it ends without them.
    pub(crate) fn end(&self, attributes: impl IntoIterator<Item = KeyValue>, is_failure: bool) {
        let Some(started) = &self.0 else { return };
        let span = started.context.span();
        span.set_attributes(attributes);
        if is_failure {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Begins a part of the call.
    pub(crate) fn begin(&self, part: &'static str) -> PartSpan {
        PartSpan(self.0.as_ref().map(|started| {
            let builder = SpanBuilder::from_name(part);
            Box::new(started.tracer.build_with_context(builder, &started.context))
        }))
    }
}

/// The span of a part of a call, a child of the server span. It ends when it is dropped.
#[must_use]
pub(crate) struct PartSpan(Option<Box<SdkSpan>>);

impl PartSpan {
    /// Adds attributes.
    pub(crate) fn set<const N: usize>(&mut self, attributes: impl FnOnce() -> [KeyValue; N]) {
        if let Some(span) = &mut self.0 {
            span.set_attributes(attributes());
        }
    }

    /// It failed.
    pub(crate) fn fail(&mut self, error_type: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(vocabulary::ERROR_TYPE, error_type));
            span.set_status(Status::error(""));
        }
    }
}

/// By what a record and its call's trace are joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct TraceIds {
    /// The server span.
    pub(crate) server: Option<TraceData<'static>>,
    /// Without one, the span that the caller told of.
    pub(crate) caller: Option<TraceData<'static>>,
}

impl Default for Traces {
    /// No call is traced.
    fn default() -> Self {
        Self::new(None, Propagation::default())
    }
}

impl Traces {
    /// With OpenTelemetry's tracer, whose sampler decides; without one, no call is traced. `propagation` tells which headers of a
    /// caller count.
    #[must_use]
    pub(crate) fn new(tracer: Option<SdkTracer>, propagation: Propagation) -> Self {
        Self { tracer, propagation }
    }

    /// What exports spans, as a layer of the process's subscriber; none where there is nothing to export.
    #[must_use]
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        self.tracer.clone().map(layer::exporting)
    }

    /// The trace of a call with these headers: its caller's, if they have one.
    #[must_use]
    pub(crate) fn call(&self, method: Method, transport: &'static str, headers: &HeaderMap) -> CallTrace {
        let caller = self.propagation.caller(headers);
        if let Some(tracer) = &self.tracer {
            let parent = caller.clone().unwrap_or_default();
            let builder = SpanBuilder::from_name(method.full_name()).with_kind(SpanKind::Server);
            let mut started = tracer.build_with_context(builder, &parent);
            if started.is_recording() {
                started.set_attributes([
                    KeyValue::new(vocabulary::RPC_SYSTEM, GRPC),
                    KeyValue::new(vocabulary::RPC_METHOD, method.full_name()),
                    KeyValue::new(vocabulary::TRANSPORT, transport),
                ]);
                let context = parent.with_span(started);
                let started = Started { context: context.clone(), tracer: tracer.clone() };
                return CallTrace { context: Some(context), span: ServerSpan(Some(Arc::new(started))) };
            }
        }
        CallTrace { context: caller.as_ref().and_then(unsampled), span: ServerSpan::default() }
    }
}

impl Traces {
    /// The span of a call for a method that is not there: it is refused as soon as it comes, and has no record.
    pub(crate) fn refuse_unknown(&self, method: &str, transport: &'static str, headers: &HeaderMap) {
        let Some(tracer) = &self.tracer else { return };
        let mut attributes = vec![
            KeyValue::new(vocabulary::RPC_SYSTEM, GRPC),
            KeyValue::new(vocabulary::RPC_METHOD, vocabulary::OTHER_METHOD),
            KeyValue::new(vocabulary::RPC_STATUS_CODE, status::name(Code::Unimplemented)),
            KeyValue::new(vocabulary::ERROR_TYPE, status::name(Code::Unimplemented)),
            KeyValue::new(vocabulary::TRANSPORT, transport),
        ];
        // The caller's words: no more than a name of a method may be.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._/".contains(&byte);
        if method.len() <= LONGEST_METHOD && method.bytes().all(is_name) {
            attributes.push(KeyValue::new(vocabulary::RPC_METHOD_ORIGINAL, method.to_owned()));
        }
        let builder = SpanBuilder::from_name(GRPC).with_kind(SpanKind::Server).with_attributes(attributes);
        let mut span =
            tracer.build_with_context(builder, &self.propagation.caller(headers).unwrap_or_default());
        span.set_status(Status::error(""));
        span.end();
    }
}

impl CallTrace {
    /// The server span, for what ends it.
    #[must_use]
    pub(crate) fn span(&self) -> &ServerSpan {
        &self.span
    }

    /// For the call's record.
    #[must_use]
    pub(crate) fn ids(&self) -> TraceIds {
        let Some(context) = &self.context else { return TraceIds::default() };
        let span = context.span();
        let ids = span.span_context();
        let ids = Some(TraceData {
            trace_id: ids.trace_id().to_string().into(),
            span_id: ids.span_id().to_string().into(),
        });
        if self.span.is_exported() {
            TraceIds { server: ids, caller: None }
        } else {
            TraceIds { server: None, caller: ids }
        }
    }

    /// The work of the call, with the call's context wherever it runs.
    #[inline]
    pub(crate) fn carry<F>(self, work: F) -> Pin<Box<dyn Future<Output = F::Output> + Send>>
    where
        F: Future + Send + 'static,
    {
        match self.context {
            // Attached, and the span not entered, which costs ten times as much at every poll.
            Some(context) => Box::pin(work.with_context(context)),
            None => Box::pin(work),
        }
    }
}

/// The trace of a caller whose call is not sampled here, whatever its own flag says.
fn unsampled(caller: &Context) -> Option<Context> {
    let span = caller.span();
    let theirs = Some(span.span_context()).filter(|context| context.is_valid())?;
    let flags = TraceFlags::default();
    let ours = SpanContext::new(theirs.trace_id(), theirs.span_id(), flags, true, TraceState::NONE);
    Some(Context::new().with_remote_span_context(ours))
}

/// Whether what runs here is traced.
#[must_use]
pub(crate) fn is_traced() -> bool {
    Context::map_current(|context| context.span().span_context().is_sampled())
}

/// What links to a span are made of; none where it is not exported.
#[must_use]
pub(crate) fn link_to(span: &Span) -> Option<Arc<SpanContext>> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    Some(span.span_context()).filter(|context| context.is_sampled()).cloned().map(Arc::new)
}

/// Links the span of what runs here to another one.
pub(crate) fn link(to: &SpanContext) {
    Context::map_current(|context| context.span().add_link(to.clone(), Vec::new()));
}

const GRPC: &str = "grpc";
/// Twice the longest of the contract.
const LONGEST_METHOD: usize = 128;
