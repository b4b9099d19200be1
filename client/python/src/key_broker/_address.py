"""Where the broker is, and how it is reached."""

import ipaddress
import os
from dataclasses import dataclass, field

#: Where a broker listens unless it is configured otherwise.
DEFAULT_ADDRESS = "unix:///run/key-broker/broker.sock"

#: The environment variable that says where the broker is.
ADDRESS_VARIABLE = "KEY_BROKER_ADDRESS"


@dataclass(frozen=True)
class Tls:
    """What mutual TLS takes, all in PEM."""

    #: The client's certificate, then those that it chains through.
    certificate: bytes
    #: Its private key.
    key: bytes = field(repr=False)
    #: The authorities whose certificate the broker may show.
    trust_bundle: bytes
    #: The DNS name in the broker's certificate, where it is not the host of the address.
    server_name: str | None = None


def target(address: str | None, tls: Tls | None) -> str:
    """The address as gRPC takes it. Raises `ValueError` for one that key material must not go to."""
    address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    if address.startswith("unix:"):
        return _unix(address, tls)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address!r} is not a broker's address: write unix:PATH, or HOST:PORT")
    if tls is None and not _is_loopback(host):
        raise ValueError(
            f"{address!r} is not an address of this machine: plaintext never leaves it: write 127.0.0.1:PORT, "
            "or connect with tls"
        )
    return address


def _unix(address: str, tls: Tls | None) -> str:
    path = address.removeprefix("unix:")
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise ValueError(f"{address!r} has no absolute path: write unix:///PATH, or unix:PATH")
    if not path or path.startswith("@") or "\0" in path:
        raise ValueError(f"{address!r} has no path of a socket: write unix:PATH")
    if tls is not None:
        raise ValueError("a unix socket takes no tls: the kernel says who is at its other end")
    return f"unix:{path}"


def _is_loopback(host: str) -> bool:
    bare = host.removeprefix("[").removesuffix("]")
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
