"""Sends spans of every kind to a collector, and prints each as the SDK itself writes it: one line of JSON a span.

    spans.py MANY      MANY: how many small spans to send besides

Where to and how: the standard OTEL_* variables.
"""

import json
import sys

from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from otlp import provider

# What would break a collector's text apart, were it text that the helper reads.
HOSTILE = 'a\nSpan #1\n    Trace ID       : 00\n     -> x: Str(y), "z" \\ \u0000 é 鍵 😀'

ATTRIBUTES = {
    "string": "x",
    "empty": "",
    "hostile": HOSTILE,
    "long": "0123456789" * 10_000,
    "integer": -(1 << 63),
    "zero": 0,
    "double": 1.5,
    "whole": 2.0,
    "true": True,
    "false": False,
    "strings": ["x", "y, z", ""],
    "integers": [1, (1 << 63) - 1],
    "doubles": [0.5, 2.0],
    "booleans": [True, False],
    "none": [],
}


def main():
    traces = provider()
    console = ConsoleSpanExporter(formatter=lambda span: json.dumps(json.loads(span.to_json())) + "\n")
    traces.add_span_processor(SimpleSpanProcessor(console))
    tracer = traces.get_tracer("spans.py", "1.2.3")
    with tracer.start_as_current_span("server", kind=SpanKind.SERVER, attributes=ATTRIBUTES) as server:
        with tracer.start_as_current_span("client", kind=SpanKind.CLIENT) as minting:
            minting.set_attribute("aws.request_id", "6f9c4a0e-0000-4000-8000-000000000001")
            minting.add_event("attempt", {"number": 1, "error.type": "ThrottlingException"})
            minting.add_event("attempt", {"number": 2})
            minting.add_event(HOSTILE)
            minting.set_status(Status(StatusCode.ERROR, HOSTILE))
        server.set_status(Status(StatusCode.OK))
    remote = SpanContext(1 << 127, 1, True, TraceFlags(1), TraceState([("vendor", "opaque")]))
    links = [Link(minting.get_span_context(), ATTRIBUTES), Link(remote)]
    tracer.start_span("hit", links=links).end()
    tracer.start_span("called", set_span_in_context(NonRecordingSpan(remote))).end()
    for kind in (SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER):
        tracer.start_span(f"of kind {kind.name}", kind=kind).end()
    for number in range(int(sys.argv[1])):
        tracer.start_span("one of many", attributes={"number": number}).end()
    traces.shutdown()


if __name__ == "__main__":
    main()
