"""Proves: the caller's trace goes with the call, and nothing else of OpenTelemetry does."""

import pytest

trace = pytest.importorskip("opentelemetry.trace")

from key_broker import _tracing  # noqa: E402


def test_the_current_span_is_named():
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert _tracing.metadata() == (("traceparent", f"00-{0xABC:032x}-{0xDEF:016x}-01"),)


def test_without_a_span_nothing_is_sent():
    assert _tracing.metadata() == ()
