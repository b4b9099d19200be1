"""The caller's trace, handed on to the broker if OpenTelemetry is installed."""

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()


def metadata() -> tuple[tuple[str, str], ...]:
    """`traceparent` and `tracestate` of the current span; nothing where there is none."""
    if _propagator is None:
        return ()
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return tuple(carrier.items())
