//! Spans, made with OpenTelemetry's own API: what is not sampled is decided once, at the server span, and costs no more than that; what
//! is off costs a look at an `Option` (ADR 19).

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

/// Makes root spans and server spans; none if traces are off.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    tracer: SdkTracer,
    propagates: bool,
}

/// What spans of one call hang from; nothing where the call is not traced.
#[derive(Clone, Default)]
pub struct Parent(Option<Arc<(Tracer, Context)>>);

/// A span under way. It ends when it is dropped.
#[derive(Default)]
pub struct Span(Option<Box<Recording>>);

struct Recording {
    span: SdkSpan,
    tracer: Tracer,
}

impl Tracer {
    /// With OpenTelemetry's tracer. `propagates` is whether a caller's `traceparent` counts.
    #[must_use]
    pub fn new(tracer: SdkTracer, propagates: bool) -> Self {
        Self(Some(Arc::new(Inner { tracer, propagates })))
    }

    /// Whether there may be spans at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a call that came with these headers, in its caller's trace if it tells of one (W3C Trace Context).
    #[must_use]
    pub fn server(&self, name: &'static str, headers: &HeaderMap) -> Span {
        let Some(inner) = &self.0 else { return Span(None) };
        let parent = if inner.propagates && headers.contains_key(TRACEPARENT) {
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
        } else {
            Context::new()
        };
        let mut builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        // As many as a call's end sets, so that they are moved about once.
        builder.attributes = Some(Vec::with_capacity(SERVER_ATTRIBUTES));
        self.build(builder, &parent)
    }

    /// A span that hangs from nothing: of work that nobody waits for.
    #[must_use]
    pub fn root(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.start(name, SpanKind::Internal, &Context::new())
    }

    /// A call to another service that hangs from nothing.
    #[must_use]
    pub fn root_client(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.start(name, SpanKind::Client, &Context::new())
    }

    fn start(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind, parent: &Context) -> Span {
        self.build(SpanBuilder::from_name(name).with_kind(kind), parent)
    }

    fn build(&self, builder: SpanBuilder, parent: &Context) -> Span {
        let Some(inner) = &self.0 else { return Span(None) };
        let span = inner.tracer.build_with_context(builder, parent);
        Span(span.is_recording().then(|| Box::new(Recording { span, tracer: self.clone() })))
    }
}

impl Parent {
    /// A part of the call's work.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Span {
        self.start(name, SpanKind::Internal)
    }

    /// A call to another service.
    #[must_use]
    pub fn client(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.start(name, SpanKind::Client)
    }

    /// Whether the call is traced.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.0.is_some()
    }

    fn start(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        match &self.0 {
            Some(traced) => traced.0.start(name, kind, &traced.1),
            None => Span(None),
        }
    }
}

impl Span {
    /// What spans within this one hang from.
    #[must_use]
    pub fn parent(&self) -> Parent {
        Parent(self.0.as_ref().map(|recording| {
            let context = Context::new().with_remote_span_context(recording.span.span_context().clone());
            Arc::new((recording.tracer.clone(), context))
        }))
    }

    /// Its ids; none if it is not recorded.
    #[must_use]
    pub fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|recording| recording.span.span_context())
    }

    /// Whether anybody will see what is set.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.0 {
            recording.span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Notes an event.
    pub fn event(&mut self, name: &'static str, attributes: Vec<KeyValue>) {
        if let Some(recording) = &mut self.0 {
            recording.span.add_event(name, attributes);
        }
    }

    /// Links to another span.
    pub fn link(&mut self, to: &SpanContext) {
        if let Some(recording) = &mut self.0 {
            recording.span.add_link(to.clone(), Vec::new());
        }
    }

    /// It ends in an error of this name.
    pub fn fail(&mut self, error_type: impl Into<Value>) {
        if let Some(recording) = &mut self.0 {
            recording.span.set_attribute(KeyValue::new(super::vocabulary::ERROR_TYPE, error_type));
            recording.span.set_status(Status::error(""));
        }
    }
}

const SERVER_ATTRIBUTES: usize = 12;
const TRACEPARENT: &str = "traceparent";
