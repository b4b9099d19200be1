package io.keybroker;

import io.grpc.ChannelCredentials;
import io.grpc.ConnectivityState;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.Epoll;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.netty.shaded.io.netty.util.concurrent.DefaultThreadFactory;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** The channel, with what makes a restart of the broker cost no call. */
final class Connection implements AutoCloseable {
  /** The largest answer: a message of 3 MiB with its framing. */
  private static final int MAX_ANSWER_BYTES = 4 * 1024 * 1024;

  private static final String SERVICE = "keybroker.v1.KeyBroker";

  // A call waits for the broker until its deadline. gRPC repeats streams only: whatever its code, it repeats an error that says when, such as
  // KMS_THROTTLED, and would hide it behind the deadline. Other calls are repeated by `Repetition`.
  private static final Map<String, ?> SERVICE_CONFIG = Map.of(
      "methodConfig",
      List.of(
          Map.of("name", List.of(Map.of("service", SERVICE)), "waitForReady", true),
          Map.of(
              "name", List.of(
                  Map.of("service", SERVICE, "method", "EncryptMessageStream"), Map.of("service", SERVICE, "method", "DecryptMessageStream")),
              "waitForReady", true,
              "retryPolicy", Map.of(
                  "maxAttempts", 3.0,
                  "initialBackoff", "0.1s",
                  "maxBackoff", "1s",
                  "backoffMultiplier", 2.0,
                  // What meets the end of its connection while it begins is UNKNOWN, "channel closed", in Java. No broker says UNKNOWN.
                  "retryableStatusCodes", List.of("UNAVAILABLE", "UNKNOWN")))));

  private static final Executor SOON = CompletableFuture.delayedExecutor(200, TimeUnit.MILLISECONDS);

  final ManagedChannel channel;
  private final EventLoopGroup group;

  Connection(Address address, Tls tls) {
    NettyChannelBuilder builder;
    if (address.path() != null) {
      requireEpoll(address);
      group = new EpollEventLoopGroup(1, new DefaultThreadFactory("key-broker", true));
      builder = NettyChannelBuilder.forAddress(new DomainSocketAddress(address.path()), InsecureChannelCredentials.create())
          .channelType(EpollDomainSocketChannel.class)
          .eventLoopGroup(group)
          // gRPC sets it on every channel, and Netty warns of it on these. None takes it back.
          .withOption(ChannelOption.SO_KEEPALIVE, null)
          .overrideAuthority("localhost");
    } else {
      group = null;
      builder = NettyChannelBuilder.forAddress(address.host(), address.port(), credentials(tls));
      if (tls != null && tls.serverName() != null) {
        builder.overrideAuthority(tls.serverName());
      }
    }
    channel = builder
        .defaultServiceConfig(SERVICE_CONFIG)
        .disableServiceConfigLookUp()
        .enableRetry()
        .maxInboundMessageSize(MAX_ANSWER_BYTES)
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        // Key material never goes by a proxy, whatever https.proxyHost says.
        .proxyDetector(server -> null)
        .userAgent("key-broker-java/" + KeyBroker.VERSION)
        .build();
    watch(channel.getState(false));
  }

  /** gRPC waits for seconds and more between two tries, and cannot be told otherwise; the broker is beside this process. */
  private void watch(ConnectivityState state) {
    if (state == ConnectivityState.TRANSIENT_FAILURE) {
      // It stays so until a try succeeds.
      SOON.execute(() -> {
        channel.resetConnectBackoff();
        watch(channel.getState(false));
      });
    } else if (state != ConnectivityState.SHUTDOWN) {
      channel.notifyWhenStateChanged(state, () -> watch(channel.getState(false)));
    }
  }

  private static void requireEpoll(Address address) {
    if (!Epoll.isAvailable()) {
      throw new UnsupportedOperationException(
          "unix sockets take Linux on x86_64 or aarch64, with glibc: here " + address + " cannot be reached; on this system connect to the broker's "
              + "listen.insecure_tcp on 127.0.0.1, or with TLS",
          Epoll.unavailabilityCause());
    }
  }

  private static ChannelCredentials credentials(Tls tls) {
    if (tls == null) {
      return InsecureChannelCredentials.create();
    }
    try {
      return TlsChannelCredentials.newBuilder()
          .trustManager(new ByteArrayInputStream(tls.trustBundle()))
          .keyManager(new ByteArrayInputStream(tls.certificate()), new ByteArrayInputStream(tls.key()))
          .build();
    } catch (IOException unread) {
      throw new IllegalArgumentException("the certificates or the key are no PEM: " + unread.getMessage(), unread);
    }
  }

  @Override
  public void close() {
    channel.shutdownNow();
    if (group != null) {
      group.shutdownGracefully(0, 1, TimeUnit.SECONDS);
    }
  }
}
