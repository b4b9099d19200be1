//! Proves: while the queue is nearly full no trace begins, and each that does not is counted once; one that has begun goes on; with room
//! again traces begin again; and the configured sampler still decides about the rest.

use std::collections::HashMap;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

use super::*;

#[test]
fn a_trace_begins_only_where_the_queue_has_room_for_it() {
    let (traces, dropped) = whole_traces(&HashMap::from([("OTEL_BSP_MAX_QUEUE_SIZE", "8")]));
    let [root, caller, own] = [None, Some(parent(true)), Some(parent(false))];
    for held in 0..6 {
        assert_eq!(traces.queue.held.load(Ordering::Relaxed), held);
        for parent in [&root, &caller, &own] {
            assert_eq!(decision(&traces, parent.as_ref()), SamplingDecision::RecordAndSample, "{held}");
        }
        assert!(traces.queue.take());
    }
    for lost in [1, 2] {
        let parent = if lost == 1 { &root } else { &caller };
        assert_eq!(decision(&traces, parent.as_ref()), SamplingDecision::Drop);
        assert_eq!(dropped.load(Ordering::Relaxed), lost);
    }
    assert_eq!(decision(&traces, own.as_ref()), SamplingDecision::RecordAndSample, "it has begun");
    assert!(traces.queue.take() && traces.queue.take() && !traces.queue.take(), "it holds eight");
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
    traces.queue.release(8);
    assert_eq!(decision(&traces, root.as_ref()), SamplingDecision::RecordAndSample);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn what_the_sampler_leaves_out_is_not_counted() {
    let environment = [("OTEL_BSP_MAX_QUEUE_SIZE", "8"), ("OTEL_TRACES_SAMPLER", "always_off")];
    let (traces, dropped) = whole_traces(&HashMap::from(environment));
    while traces.queue.take() {}
    let lost = dropped.load(Ordering::Relaxed);
    assert_eq!(decision(&traces, None), SamplingDecision::Drop);
    assert_eq!(dropped.load(Ordering::Relaxed), lost);
}

fn whole_traces(environment: &HashMap<&str, &str>) -> (WholeTraces, Arc<AtomicU64>) {
    let (variables, ignored) = Variables::read(|name| environment.get(name).map(|&value| value.to_owned()));
    assert!(ignored.is_empty());
    let dropped = Arc::default();
    let queue = Queue::new(&variables, &dropped);
    (WholeTraces { sampler: variables.sampler, queue }, dropped)
}

fn decision(traces: &WholeTraces, parent: Option<&Context>) -> SamplingDecision {
    traces.should_sample(parent, TraceId::from(1), "call", &SpanKind::Server, &[], &[]).decision
}

/// A span that is sampled, of a caller or of this process.
fn parent(is_remote: bool) -> Context {
    let ids = (TraceId::from(1), SpanId::from(1));
    let context = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, is_remote, TraceState::NONE);
    Context::new().with_remote_span_context(context)
}
