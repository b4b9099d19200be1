"""Requests and replies, for both clients: every conversion from and to protobuf."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timezone
from typing import Any

from ._options import CallOptions, Reuse
from ._stubs import key_broker_pb2 as pb
from ._values import DataKey, DecryptedMessage, KeyDescription, Provenance

#: The method's name, what it takes and what it answers.
METHODS: dict[str, tuple[Any, Any]] = {
    "EncryptMessage": (pb.EncryptMessageRequest, pb.EncryptMessageResponse),
    "DecryptMessage": (pb.DecryptMessageRequest, pb.DecryptMessageResponse),
    "GenerateDataKey": (pb.GenerateDataKeyRequest, pb.GenerateDataKeyResponse),
    "Decrypt": (pb.DecryptRequest, pb.DecryptResponse),
    "GenerateRandom": (pb.GenerateRandomRequest, pb.GenerateRandomResponse),
    "DescribeKey": (pb.DescribeKeyRequest, pb.DescribeKeyResponse),
}
STREAMS: dict[str, tuple[Any, Any]] = {
    "EncryptMessageStream": (pb.EncryptMessageStreamRequest, pb.EncryptMessageStreamResponse),
    "DecryptMessageStream": (pb.DecryptMessageStreamRequest, pb.DecryptMessageStreamResponse),
}
# Well below the largest request, and large enough that frames cost little.
_CHUNK = 65_536


def path(method: str) -> str:
    """The method's name in HTTP."""
    return f"/keybroker.v1.KeyBroker/{method}"


def data_key_request(
    key_id: str, context: Mapping[str, str] | None, length: int, messages: int, size: int, options: CallOptions
) -> pb.GenerateDataKeyRequest:
    request = pb.GenerateDataKeyRequest(
        key_id=key_id,
        encryption_context=context or {},
        grant_tokens=options.get("grant_tokens", ()),
        use=pb.Use(messages=messages, bytes=size),
        reuse=reuse(options),
    )
    if length == 32:
        request.key_spec = pb.KEY_SPEC_AES_256
    elif length == 16:
        request.key_spec = pb.KEY_SPEC_AES_128
    else:
        request.number_of_bytes = length
    return request


def reuse(options: CallOptions) -> pb.Reuse | None:
    """The caller's tighter bounds."""
    chosen = options.get("reuse")
    return None if chosen is None else _reuse(chosen)


def _reuse(chosen: Reuse) -> pb.Reuse:
    return pb.Reuse(
        max_age_seconds=chosen.max_age_seconds,
        max_messages=chosen.max_messages,
        max_bytes=chosen.max_bytes,
        fresh=chosen.fresh,
    )


def common(options: CallOptions) -> dict[str, Any]:
    """The fields that most requests have."""
    return {"grant_tokens": options.get("grant_tokens", ()), "reuse": reuse(options)}


def encrypt_start(
    key_id: str, context: Mapping[str, str] | None, length: int | None, options: CallOptions
) -> pb.EncryptMessageStreamRequest:
    start = pb.EncryptMessageStart(
        key_id=key_id, encryption_context=context or {}, plaintext_length=length, **common(options)
    )
    return pb.EncryptMessageStreamRequest(start=start)


def decrypt_start(
    key_id: str | None, context: Mapping[str, str] | None, before_signature: bool, options: CallOptions
) -> pb.DecryptMessageStreamRequest:
    start = pb.DecryptMessageStart(
        key_id=key_id or "",
        encryption_context=context or {},
        release_before_signature=before_signature,
        **common(options),
    )
    return pb.DecryptMessageStreamRequest(start=start)


def plaintext_part(part: bytes) -> pb.EncryptMessageStreamRequest:
    return pb.EncryptMessageStreamRequest(plaintext=part)


def message_part(part: bytes) -> pb.DecryptMessageStreamRequest:
    return pb.DecryptMessageStreamRequest(message=part)


def pieces(chunk: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """A chunk in parts of a size that the broker takes."""
    view = memoryview(chunk)
    for at in range(0, len(view), _CHUNK):
        yield bytes(view[at : at + _CHUNK])


def reader(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """A file, chunk by chunk."""
    while chunk := read(_CHUNK):
        yield chunk


def data_key(reply: pb.GenerateDataKeyResponse) -> DataKey:
    return DataKey(reply.plaintext, reply.ciphertext_blob, reply.key_id, provenance(reply.provenance))


def decrypted_data_key(reply: pb.DecryptResponse, ciphertext_blob: bytes) -> DataKey:
    return DataKey(reply.plaintext, ciphertext_blob, reply.key_id, provenance(reply.provenance))


def decrypted_message(reply: pb.DecryptMessageResponse) -> DecryptedMessage:
    return DecryptedMessage(
        plaintext=reply.plaintext,
        encryption_context=dict(reply.encryption_context),
        key_id=reply.key_id,
        provenance=provenance(reply.provenance),
    )


def description(reply: pb.DescribeKeyResponse) -> KeyDescription:
    return KeyDescription(
        arn=reply.arn,
        key_spec=reply.key_spec,
        key_usage=reply.key_usage,
        key_state=reply.key_state,
        multi_region=reply.multi_region,
        origin=reply.origin,
        key_manager=reply.key_manager,
        description=reply.description,
    )


def provenance(sent: pb.Provenance) -> Provenance:
    return Provenance(
        is_cached=sent.served_from == pb.Provenance.SOURCE_CACHE,
        kms_request_id=sent.kms_request_id,
        minted_at=sent.minted_at.ToDatetime(tzinfo=timezone.utc),
    )
