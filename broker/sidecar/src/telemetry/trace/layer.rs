//! The layer of the process's subscriber that exports spans: those on a list, and no events.

use key_broker_trail::delivery;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::lines;
use crate::telemetry::vocabulary;

/// Exports the spans that [`Exported`] has made, which is a layer of its own: a filter keeps a span from its layer, but the registry
/// still makes it.
pub(super) fn exporting<S>(tracer: SdkTracer) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        // Attributes are those of the vocabulary, and no others.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(SpansOnly)
        .and_then(Exported)
}

/// The spans that are exported: the broker's own and some of the AWS SDK's, within a call that is traced; and those that begin a
/// trace, which the sampler decides about.
struct Exported;

impl Exported {
    fn has(metadata: &Metadata<'_>) -> bool {
        let is_in = |module: &str| {
            metadata
                .target()
                .strip_prefix(module)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        metadata.is_span()
            && (OWN.iter().any(|module| is_in(module))
                || FOREIGN.iter().any(|(module, name)| {
                    is_in(module)
                        && name.is_none_or(|name| name == metadata.name())
                        && metadata.fields().iter().all(|field| FOREIGN_FIELDS.contains(&field.name()))
                }))
    }
}

fn begins_a_trace(span: &str) -> bool {
    BEGINNINGS.contains(&span) || delivery::SPANS.contains(&span)
}

/// For all layers together: no span is made that is not exported. Events are for the log, and those that it never shows are made by
/// nobody: HTTP/2 has several for each frame.
impl<S: Subscriber> Layer<S> for Exported {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if lines::may_show(metadata) {
            Interest::always()
        } else if Self::has(metadata) {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: LayerContext<'_, S>) -> bool {
        // The cheapest question first: nearly all spans that are not made belong to calls that are not traced.
        metadata.is_event() || (super::is_traced() || begins_a_trace(metadata.name())) && Self::has(metadata)
    }
}

/// No event becomes a span event.
struct SpansOnly;

impl<S> Filter<S> for SpansOnly {
    fn enabled(&self, metadata: &Metadata<'_>, _: &LayerContext<'_, S>) -> bool {
        metadata.is_span()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_span() { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // The AWS SDK's.
        Some(LevelFilter::DEBUG)
    }
}

/// Crates whose spans are exported.
const OWN: [&str; 2] = ["key_broker", "key_broker_trail"];
/// Spans of others, by module and name: when each attempt was made, how long credentials took, and what was asked of S3.
const FOREIGN: [(&str, Option<&str>); 3] = [
    ("aws_smithy_runtime::client::orchestrator", Some("try_attempt")),
    ("aws_smithy_runtime::client::identity::cache::lazy", Some("lazy_load_identity")),
    ("aws_sdk_s3::operation", None),
];
/// Their allowed fields. A span with any other field is not exported, since its contents were not reviewed.
const FOREIGN_FIELDS: [&str; 5] = ["attempt", "rpc.system", "rpc.service", "rpc.method", "sdk_invocation_id"];
/// Spans that begin a trace where none is under way, beside those of the trail.
const BEGINNINGS: [&str; 2] = [vocabulary::CACHE_REFRESH, vocabulary::KMS];
