"""Proves: an address is where key material goes, so only those of this machine are taken without TLS."""

import pytest
from key_broker import Tls, connect
from key_broker._address import target

TLS = Tls(b"certificate", b"key", b"authorities")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:///run/b.sock", "unix:/run/b.sock"),
        ("unix:/run/b.sock", "unix:/run/b.sock"),
        ("unix:b.sock", "unix:b.sock"),
        ("127.0.0.1:7890", "127.0.0.1:7890"),
        ("127.9.9.9:7890", "127.9.9.9:7890"),
        ("[::1]:7890", "[::1]:7890"),
        ("localhost:7890", "localhost:7890"),
    ],
)
def test_addresses_of_this_machine(address, expected):
    assert target(address, None) == expected


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:7890", "broker.internal:7890", "[::]:7890", "0.0.0.0:7890", "localhost.example.org:7890", "127.0.0.1", ":7890", "unix:",
        "unix://b.sock", "unix:@abstract", "unix:\0abstract", "unix-abstract:name", "dns:127.0.0.1", "vsock:2:7890", "http://127.0.0.1:7890",
        "127.0.0.1:http",
    ],
)  # fmt: skip
def test_others_are_refused(address):
    with pytest.raises(ValueError):
        connect(address)


def test_tls_goes_anywhere_but_to_a_socket():
    assert target("broker.internal:7890", TLS) == "broker.internal:7890"
    with pytest.raises(ValueError):
        target("unix:/run/b.sock", TLS)


def test_the_environment_says_where_then_the_default(monkeypatch):
    monkeypatch.setenv("KEY_BROKER_ADDRESS", "unix:/tmp/mine.sock")
    assert target(None, None) == "unix:/tmp/mine.sock"
    assert target("unix:/tmp/other.sock", None) == "unix:/tmp/other.sock"
    monkeypatch.delenv("KEY_BROKER_ADDRESS")
    assert target(None, None) == "unix:/run/key-broker/broker.sock"


def test_a_private_key_is_not_printed():
    assert "key=" not in repr(TLS)
