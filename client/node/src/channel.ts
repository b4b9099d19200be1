import { credentials, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";

import type { Tls } from "./address.js";
import { VERSION } from "./version.js";

/** The largest answer: a message of 3 MiB with its framing. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

// A call goes again if the connection broke off before its answer came. gRPC's own retries heed `grpc-retry-pushback-ms`, by which the
// broker says when.
const SERVICE_CONFIG = JSON.stringify({
  loadBalancingConfig: [],
  methodConfig: [
    {
      name: [{ service: "keybroker.v1.KeyBroker" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
});

/** The options of the connection: what makes a restart of the broker cost no call. */
export function channelOptions(tls: Tls | undefined): ChannelOptions {
  return {
    "grpc.service_config": SERVICE_CONFIG,
    "grpc.enable_retries": 1,
    // The first try comes at once, and none later than half a second: the broker is beside this process.
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 500,
    "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    // Key material never goes by a proxy, whatever HTTPS_PROXY says.
    "grpc.enable_http_proxy": 0,
    "grpc.primary_user_agent": `key-broker-node/${VERSION}`,
    ...(tls?.serverName === undefined ? {} : { "grpc.ssl_target_name_override": tls.serverName }),
  };
}

export function channelCredentials(tls: Tls | undefined): ChannelCredentials {
  return tls === undefined ? credentials.createInsecure() : credentials.createSsl(tls.trustBundle, tls.key, tls.certificate);
}
