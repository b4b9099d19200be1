package io.keybroker;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import java.util.HashMap;
import java.util.Map;

/** Hands the caller's trace on to the broker: traceparent and tracestate, and nothing else of OpenTelemetry. */
final class Tracing implements ClientInterceptor {
  private Tracing() {}

  /** Nothing where OpenTelemetry is not installed: this class cannot be loaded there. */
  static ClientInterceptor[] interceptors() {
    try {
      Class.forName("io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator");
      return new ClientInterceptor[] {Loaded.TRACING};
    } catch (ClassNotFoundException | LinkageError absent) {
      return new ClientInterceptor[0];
    }
  }

  private static final class Loaded {
    static final ClientInterceptor TRACING = new Tracing();
  }

  /** What is sent of the current span. */
  static Map<String, String> current() {
    var carrier = new HashMap<String, String>();
    W3CTraceContextPropagator.getInstance().inject(Context.current(), carrier, Map::put);
    return carrier;
  }

  @Override
  public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
    // The thread that calls has the span; the one that starts the call may be another.
    var sent = current();
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<R> listener, Metadata headers) {
        sent.forEach((name, value) -> headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
        super.start(listener, headers);
      }
    };
  }
}
