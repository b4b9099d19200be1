"""The options of the connection: what makes a restart of the broker cost no call."""

import json
from typing import Any

import grpc

from ._address import Tls
from ._version import VERSION

#: The largest answer: a message of 3 MiB with its framing.
MAX_ANSWER_BYTES = 4 * 1024 * 1024

# A call waits for the broker until its deadline, and goes again if the connection broke off before its answer came. gRPC's own
# retries heed `grpc-retry-pushback-ms`, by which the broker says when.
_SERVICE_CONFIG = json.dumps({
    "methodConfig": [{
        "name": [{"service": "keybroker.v1.KeyBroker"}],
        "waitForReady": True,
        "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "0.1s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }],
})


def options(tls: Tls | None) -> list[tuple[str, Any]]:
    """The channel's options."""
    chosen: list[tuple[str, Any]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        # The first try comes at once, and none later than half a second: the broker is beside this process.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
        # How long a try may take, in spite of its name.
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Key material never goes by a proxy, whatever HTTPS_PROXY says.
        ("grpc.enable_http_proxy", 0),
        ("grpc.primary_user_agent", f"key-broker-python/{VERSION}"),
    ]
    if tls is not None and tls.server_name is not None:
        chosen.append(("grpc.ssl_target_name_override", tls.server_name))
    return chosen


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Mutual TLS."""
    return grpc.ssl_channel_credentials(tls.trust_bundle, tls.key, tls.certificate)
