//! Reads a caller's trace from its headers, as OpenTelemetry's propagators do.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_aws::trace::XrayPropagator;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// A header with a caller's trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagator {
    /// `traceparent` and `tracestate`, of W3C's Trace Context.
    TraceContext,
    /// `x-amzn-trace-id`, of AWS X-Ray.
    Xray,
}

/// Those that count. Nothing is ever passed on by them: what KMS and the store are asked has no trace.
#[derive(Clone)]
pub(crate) struct Propagation {
    propagators: Arc<[Propagator]>,
    composite: Arc<TextMapCompositePropagator>,
}

impl Propagator {
    const fn header(self) -> &'static str {
        match self {
            Self::TraceContext => "traceparent",
            Self::Xray => "x-amzn-trace-id",
        }
    }
}

impl Propagation {
    /// The caller's trace in these headers, if any; with several propagators, the last one's.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Context> {
        let is_told = self.propagators.iter().any(|propagator| headers.contains_key(propagator.header()));
        is_told.then(|| self.composite.extract_with_context(&Context::new(), &HeaderExtractor(headers)))
    }
}

impl From<&[Propagator]> for Propagation {
    fn from(propagators: &[Propagator]) -> Self {
        let made = propagators.iter().map(|propagator| -> Box<dyn TextMapPropagator + Send + Sync> {
            match propagator {
                Propagator::TraceContext => Box::new(TraceContextPropagator::new()),
                Propagator::Xray => Box::new(XrayPropagator::new()),
            }
        });
        let composite = Arc::new(TextMapCompositePropagator::new(made.collect()));
        Self { propagators: propagators.into(), composite }
    }
}

impl Default for Propagation {
    /// W3C's alone.
    fn default() -> Self {
        Self::from(&[Propagator::TraceContext][..])
    }
}

impl fmt::Debug for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.propagators.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    //! The configured headers are read, and no others.

    use opentelemetry::trace::TraceContextExt as _;

    use super::*;

    /// The trace id that these propagators read in the headers of a caller that sends both.
    fn read(propagators: &[Propagator], names: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            let value = match *name {
                "traceparent" => "00-11111111111111111111111111111111-2222222222222222-01",
                "x-amzn-trace-id" => {
                    "Root=1-33333333-444444444444444444444444;Parent=5555555555555555;Sampled=1;Lineage=a:1"
                }
                _ => "tenant=acme",
            };
            headers.insert(*name, value.parse().expect("ascii"));
        }
        let context = Propagation::from(propagators).caller(&headers)?;
        let span = context.span();
        let told = span.span_context();
        (told.is_valid() && told.is_sampled() && told.is_remote()).then(|| told.trace_id().to_string())
    }

    #[test]
    fn the_trace_is_that_of_the_headers_that_count() {
        let (w3c, xray) = ("1".repeat(32), "3".repeat(8) + &"4".repeat(24));
        let both = ["traceparent", "x-amzn-trace-id", "baggage"];
        let (one, other) = (Propagator::TraceContext, Propagator::Xray);
        assert_eq!(read(&[one], &both), Some(w3c.clone()));
        assert_eq!(read(&[other], &both), Some(xray.clone()));
        assert_eq!(read(&[one, other], &both), Some(xray.clone()));
        assert_eq!(read(&[other, one], &both), Some(w3c.clone()));
        assert_eq!(read(&[one, other], &both[..1]), Some(w3c));
        assert_eq!(read(&[one, other], &both[1..]), Some(xray));
        assert_eq!(read(&[], &both), None);
        assert_eq!(read(&[one], &both[1..]), None);
    }

    #[test]
    fn nonsense_is_no_trace() {
        let long = "Root=1-".to_owned() + &"f".repeat(10_000);
        for value in
            ["", "Root", "Root=1-2", "Root=1-3-4;Parent=x", "Parent=5555555555555555", &long, ";;==;"]
        {
            let mut headers = HeaderMap::new();
            headers.insert("x-amzn-trace-id", value.parse().expect("ascii"));
            let context = Propagation::from(&[Propagator::Xray][..]).caller(&headers).expect("a header");
            assert!(!context.span().span_context().is_valid(), "{value}");
        }
    }
}
