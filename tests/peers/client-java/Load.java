import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.keybroker.KeyBroker;
import io.keybroker.v1.EncryptMessageRequest;
import io.keybroker.v1.KeyBrokerGrpc;
import com.google.protobuf.ByteString;
import java.util.ArrayList;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** As tests/peers/client-python/load.py: eight calls in flight until standard input is closed. `Load package|bare`. */
public final class Load {
  private static final String KEY = "alias/dev";
  private static final Map<String, String> ACME = Map.of("tenant", "acme");

  private static volatile boolean ended;
  private static int calls;
  private static int failed;
  private static String first;
  private static long slowest;

  public static void main(String[] arguments) throws Exception {
    Runnable call = arguments[0].equals("package") ? ofPackage() : bare();
    var threads = new ArrayList<Thread>();
    for (int n = 0; n < 8; n++) {
      var thread = new Thread(() -> run(call));
      threads.add(thread);
      thread.start();
    }
    System.out.println("ready");
    System.in.readAllBytes();
    ended = true;
    for (var thread : threads) {
      thread.join();
    }
    var why = first == null ? "null" : '"' + first.replaceAll("[\\\\\"\\p{Cntrl}]", " ") + '"';
    System.out.printf("{\"calls\": %d, \"failed\": %d, \"first\": %s, \"slowest\": %d}%n", calls, failed, why, slowest);
    System.exit(0);
  }

  private static void run(Runnable call) {
    while (!ended) {
      long begun = System.nanoTime();
      String failure = null;
      try {
        call.run();
      } catch (RuntimeException error) {
        failure = error.toString();
      }
      long took = (System.nanoTime() - begun) / 1_000_000;
      synchronized (Load.class) {
        calls++;
        failed += failure == null ? 0 : 1;
        first = first == null ? failure : first;
        slowest = Math.max(slowest, took);
      }
      try {
        Thread.sleep(5);
      } catch (InterruptedException interrupted) {
        return;
      }
    }
  }

  private static Runnable ofPackage() {
    var broker = KeyBroker.connect();
    return () -> broker.encrypt("hello".getBytes(), KEY, ACME);
  }

  private static Runnable bare() {
    var path = System.getenv("KEY_BROKER_ADDRESS").substring("unix:".length());
    ManagedChannel channel = NettyChannelBuilder.forAddress(new DomainSocketAddress(path))
        .channelType(EpollDomainSocketChannel.class)
        .eventLoopGroup(new EpollEventLoopGroup(1))
        .usePlaintext()
        .build();
    var stub = KeyBrokerGrpc.newBlockingStub(channel);
    var request = EncryptMessageRequest.newBuilder()
        .setKeyId(KEY).putAllEncryptionContext(ACME).setPlaintext(ByteString.copyFromUtf8("hello")).build();
    return () -> stub.withDeadlineAfter(10, TimeUnit.SECONDS).encryptMessage(request);
  }
}
