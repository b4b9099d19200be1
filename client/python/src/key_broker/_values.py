"""What the broker answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Provenance:
    """Where an answer came from."""

    #: Whether an earlier call to KMS had made it.
    is_cached: bool
    #: The requestID of the call to KMS behind it, as AWS CloudTrail has it.
    kms_request_id: str
    #: When KMS answered.
    minted_at: datetime


@dataclass(frozen=True)
class DecryptedMessage:
    """A message that was decrypted, and what it was bound to."""

    plaintext: bytes = field(repr=False)
    #: All of the message's encryption context, authentic.
    encryption_context: Mapping[str, str]
    #: The ARN of the KMS key that decrypted its data key.
    key_id: str
    provenance: Provenance


@dataclass(frozen=True)
class KeyDescription:
    """What KMS knows about a key. Values as in the AWS KMS API reference, KeyMetadata."""

    arn: str
    key_spec: str
    key_usage: str
    key_state: str
    multi_region: bool
    origin: str
    key_manager: str
    description: str


@dataclass(frozen=True)
class Ciphertext:
    """What KMS encrypted directly under a key."""

    #: At most 6,144 bytes.
    ciphertext_blob: bytes
    #: The ARN of the KMS key: keep it beside ciphertext_blob.
    key_id: str
    provenance: Provenance


@dataclass(frozen=True)
class SealedDataKeyPair:
    """A data key pair whose private key is encrypted."""

    #: The private key encrypted under the KMS key, for `decrypt_data_key`: keep it, and key_id.
    private_key_ciphertext_blob: bytes
    #: SubjectPublicKeyInfo (RFC 5280) in DER.
    public_key: bytes
    #: The ARN of the KMS key.
    key_id: str
    provenance: Provenance


class _Erased:
    """A secret that is erased at the end of a `with` block."""

    def __init__(self, secret: bytes) -> None:
        self._secret: bytearray | None = bytearray(secret)

    def _read(self) -> bytearray:
        if self._secret is None:
            raise ValueError("it is closed, and erased")
        return self._secret

    def close(self) -> None:
        """Erases it."""
        if self._secret is not None:
            self._secret[:] = bytes(len(self._secret))
            self._secret = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DataKey(_Erased):
    """A data key, for what is too large to be sent to the broker. Use it in a `with` block, which erases it at its end.

    Others may have the same data key, and so may an earlier call: take a random nonce for each message, never a counter.

    Erased is `plaintext`, this object's own copy. The bytes that gRPC received are Python's, which cannot be erased: they
    are freed, and stay in memory until something else is put there. What must not be in this process at all is what
    `Client.encrypt` is for.
    """

    def __init__(self, plaintext: bytes, ciphertext_blob: bytes, key_id: str, provenance: Provenance) -> None:
        super().__init__(plaintext)
        #: The data key encrypted under the KMS key: keep it, and key_id, beside what the data key encrypts.
        self.ciphertext_blob = ciphertext_blob
        #: The ARN of the KMS key.
        self.key_id = key_id
        self.provenance = provenance

    @property
    def plaintext(self) -> bytearray:
        """The data key. Copies of it (`bytes(key.plaintext)`) are not erased."""
        return self._read()

    def __repr__(self) -> str:
        return f"DataKey(key_id={self.key_id!r})"


class DataKeyPair(_Erased):
    """An asymmetric data key pair. Use it in a `with` block, which erases `private_key`, as of a `DataKey`."""

    def __init__(
        self,
        private_key: bytes,
        private_key_ciphertext_blob: bytes,
        public_key: bytes,
        key_id: str,
        provenance: Provenance,
    ) -> None:
        super().__init__(private_key)
        #: The private key encrypted under the KMS key, for `decrypt_data_key`: keep it, and key_id.
        self.private_key_ciphertext_blob = private_key_ciphertext_blob
        #: SubjectPublicKeyInfo (RFC 5280) in DER.
        self.public_key = public_key
        #: The ARN of the KMS key.
        self.key_id = key_id
        self.provenance = provenance

    @property
    def private_key(self) -> bytearray:
        """The private key: PKCS #8 (RFC 5958) in DER. Copies of it are not erased."""
        return self._read()

    def __repr__(self) -> str:
        return f"DataKeyPair(key_id={self.key_id!r})"
