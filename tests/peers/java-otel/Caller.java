import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientStreamTracer;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import io.keybroker.v1.GenerateDataKeyRequest;
import io.keybroker.v1.KeyBrokerGrpc;
import io.keybroker.v1.KeySpec;
import io.keybroker.v1.Reuse;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Calls a key-broker as a service in Java would that knows nothing of OpenTelemetry: the agent beside it instruments gRPC, at its defaults.
 *
 * <pre>java -javaagent:… Caller unix:PATH PLAN</pre>
 *
 * PLAN and what is printed are as in ../python-otel/caller.py, of the kinds `generate` and `fresh` one after another, and with no span
 * around them.
 */
public final class Caller {
  private static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    for (JsonNode step : JSON.readTree(arguments[1])) {
      for (int call = 0; call < step.get("times").asInt(); call++) {
        System.out.println(JSON.writeValueAsString(generate(channel, step)));
      }
    }
    channel.shutdown().awaitTermination(10, TimeUnit.SECONDS);
  }

  private static ObjectNode generate(Channel channel, JsonNode step) {
    AtomicReference<Metadata> headers = new AtomicReference<>();
    AtomicReference<Metadata> trailers = new AtomicReference<>();
    AtomicReference<String> traceparent = new AtomicReference<>();
    GenerateDataKeyRequest request =
        GenerateDataKeyRequest.newBuilder()
            .setKeyId(step.path("key_id").asText("alias/dev"))
            .setKeySpec(KeySpec.KEY_SPEC_AES_256)
            .putEncryptionContext("tenant", "acme")
            .setReuse(Reuse.newBuilder().setFresh(step.get("kind").asText().equals("fresh")))
            .build();
    ObjectNode line = JSON.createObjectNode().put("kind", step.get("kind").asText());
    try {
      KeyBrokerGrpc.newBlockingStub(channel)
          .withDeadlineAfter(30, TimeUnit.SECONDS)
          .withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, trailers), seeing(traceparent))
          .generateDataKey(request);
      line.put("code", "OK");
    } catch (StatusRuntimeException error) {
      line.put("code", error.getStatus().getCode().name());
    }
    String[] span = traceparent.get().split("-");
    return line.put("requestId", header(headers, "x-request-id"))
        .put("kmsRequestId", header(headers, "x-amzn-requestid"))
        .put("traceId", span[1])
        .put("spanId", span[2]);
  }

  private static String header(AtomicReference<Metadata> headers, String name) {
    Metadata all = headers.get();
    return all == null ? null : all.get(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER));
  }

  /** Notes, after all interceptors, the header by which the agent tells the broker of its span. */
  private static ClientInterceptor seeing(AtomicReference<String> traceparent) {
    ClientStreamTracer.Factory factory =
        new ClientStreamTracer.Factory() {
          @Override
          public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
            traceparent.set(headers.get(Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER)));
            return new ClientStreamTracer() {};
          }
        };
    return new ClientInterceptor() {
      @Override
      public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        return next.newCall(method, options.withStreamTracerFactory(factory));
      }
    };
  }
}
