"""For Tink: a `KmsClient` whose remote AEAD is the broker. Take `Aead` for small values, `KmsEnvelopeAead` for large ones.

    remote = key_broker.tink.kms_client(broker).get_aead("key-broker://alias/dev")
    envelope = tink.aead.KmsEnvelopeAead(tink.aead.aead_key_templates.AES256_GCM, remote)
"""

import base64

import tink
from tink import aead

from ._client import Client
from ._errors import KeyBrokerError

_SCHEME = "key-broker://"
# Bound to the message, and stands in the audit trail: base64, since an encryption context is text.
_ASSOCIATED_DATA = "tink-associated-data"


def kms_client(broker: Client) -> "BrokerKmsClient":
    """The broker as Tink's KmsClient, for keys `key-broker://KEY`, where KEY is a key ARN or `alias/NAME`."""
    return BrokerKmsClient(broker)


class BrokerKmsClient(tink.KmsClient):
    """A KmsClient for all keys of one broker."""

    def __init__(self, broker: Client) -> None:
        self._broker = broker

    def does_support(self, key_uri: str) -> bool:
        return key_uri.startswith(_SCHEME)

    def get_aead(self, key_uri: str) -> aead.Aead:
        if not self.does_support(key_uri):
            raise tink.TinkError(f"{key_uri!r} is no key of a broker: write {_SCHEME}KEY")
        return _BrokerAead(self._broker, key_uri.removeprefix(_SCHEME))


class _BrokerAead(aead.Aead):
    def __init__(self, broker: Client, key_id: str) -> None:
        self._broker = broker
        self._key_id = key_id

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        try:
            return self._broker.encrypt(plaintext, self._key_id, _context(associated_data))
        except KeyBrokerError as error:
            raise tink.TinkError(str(error)) from error

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        context = _context(associated_data)
        try:
            opened = self._broker.decrypt_message(ciphertext, context, key_id=self._key_id)
        except KeyBrokerError as error:
            raise tink.TinkError(str(error)) from error
        # A message with associated data is not one without.
        if opened.encryption_context.get(_ASSOCIATED_DATA) != context.get(_ASSOCIATED_DATA):
            raise tink.TinkError("the message has other associated data")
        return opened.plaintext


def _context(associated_data: bytes) -> dict[str, str]:
    return {_ASSOCIATED_DATA: base64.b64encode(associated_data).decode()} if associated_data else {}
