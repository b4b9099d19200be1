"""The broker that the tests call: `key-broker dev`, or any whose KEY_BROKER_ADDRESS is set. See tests/client_packages.rs."""

import os

import key_broker
import pytest

#: A key that the broker has, and its policy permits.
KEY = "alias/dev"
CONTEXT = {"tenant": "acme"}


@pytest.fixture
def broker():
    assert os.environ.get("KEY_BROKER_ADDRESS"), "start `cargo dev`, and set KEY_BROKER_ADDRESS=unix:.key-broker-dev/broker.sock"
    with key_broker.connect() as client:
        yield client
