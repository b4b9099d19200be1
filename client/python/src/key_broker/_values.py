"""What the broker answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType


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


class DataKey:
    """A data key, for what is too large to be sent to the broker. Use it in a `with` block, which erases it at its end.

    Others may have the same data key, and so may an earlier call: take a random nonce for each message, never a counter.

    Erased is `plaintext`, this object's own copy. The bytes that gRPC received are Python's, which cannot be erased: they
    are freed, and stay in memory until something else is put there. What must not be in this process at all is what
    `Client.encrypt` is for.
    """

    def __init__(self, plaintext: bytes, ciphertext_blob: bytes, key_id: str, provenance: Provenance) -> None:
        self._plaintext: bytearray | None = bytearray(plaintext)
        #: The data key encrypted under the KMS key: keep it, and key_id, beside what the data key encrypts.
        self.ciphertext_blob = ciphertext_blob
        #: The ARN of the KMS key.
        self.key_id = key_id
        self.provenance = provenance

    @property
    def plaintext(self) -> bytearray:
        """The data key. Copies of it (`bytes(key.plaintext)`) are not erased."""
        if self._plaintext is None:
            raise ValueError("this data key is closed, and erased")
        return self._plaintext

    def close(self) -> None:
        """Erases it."""
        if self._plaintext is not None:
            self._plaintext[:] = bytes(len(self._plaintext))
            self._plaintext = None

    def __enter__(self) -> "DataKey":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DataKey(key_id={self.key_id!r})"
