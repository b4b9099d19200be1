"""Encrypts and decrypts with AWS KMS through the key-broker beside this process, which needs no AWS credentials.

    import key_broker

    with key_broker.connect() as broker:
        message = broker.encrypt(b"hello", "alias/dev", {"tenant": "acme"})
        plaintext = broker.decrypt(message, {"tenant": "acme"})

`key_broker.aio` is the same for asyncio.
"""

from ._address import DEFAULT_ADDRESS, Tls
from ._client import Client, connect
from ._errors import KeyBrokerError
from ._options import DEFAULT_DEADLINE, STREAM_DEADLINE, CallOptions, KeyPairSpec, Reuse
from ._values import Ciphertext, DataKey, DataKeyPair, DecryptedMessage, KeyDescription, Provenance, SealedDataKeyPair
from ._version import VERSION as __version__

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_DEADLINE",
    "STREAM_DEADLINE",
    "CallOptions",
    "Ciphertext",
    "Client",
    "DataKey",
    "DataKeyPair",
    "DecryptedMessage",
    "KeyBrokerError",
    "KeyDescription",
    "KeyPairSpec",
    "Provenance",
    "Reuse",
    "SealedDataKeyPair",
    "Tls",
    "__version__",
    "connect",
]
