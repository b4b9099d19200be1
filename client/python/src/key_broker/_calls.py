"""Requests and replies, for both clients: every conversion from and to protobuf."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timezone
from typing import Any, Generic, TypeVar, Unpack

from ._options import CallOptions, KeyPairSpec, Reuse
from ._stubs import key_broker_pb2 as pb
from ._values import Ciphertext, DataKey, DataKeyPair, DecryptedMessage, KeyDescription, Provenance, SealedDataKeyPair

Context = Mapping[str, str]
R = TypeVar("R")

#: The method's name, what it takes and what it answers.
METHODS: dict[str, tuple[Any, Any]] = {
    name: (getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response"))
    for name in (
        "EncryptMessage",
        "DecryptMessage",
        "GenerateDataKey",
        "GenerateDataKeyWithoutPlaintext",
        "Decrypt",
        "Encrypt",
        "ReEncrypt",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateRandom",
        "DescribeKey",
    )
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


@dataclass(frozen=True)
class Call(Generic[R]):
    """One call, and what the client makes of its reply."""

    method: str
    request: Any
    answer: Callable[[Any], R]
    options: CallOptions


def encrypt(
    plaintext: bytes, key_id: str, context: Context | None = None, **options: Unpack[CallOptions]
) -> Call[bytes]:
    """Encrypts a message of at most 3 MiB; what is longer goes by `encrypt_stream`.

    `context` is bound to the message, which has it in clear. What comes back is a message of the AWS Encryption SDK.
    """
    request = pb.EncryptMessageRequest(
        key_id=key_id, encryption_context=context or {}, plaintext=plaintext, **common(options)
    )
    return Call("EncryptMessage", request, lambda reply: reply.message, options)


def decrypt(
    message: bytes, context: Context | None = None, *, key_id: str | None = None, **options: Unpack[CallOptions]
) -> Call[bytes]:
    """Decrypts a message of `encrypt`, or of an AWS Encryption SDK. Its encryption context must have all of `context`."""
    whole = decrypt_message(message, context, key_id=key_id, **options)
    return Call(whole.method, whole.request, lambda reply: reply.plaintext, options)


def decrypt_message(
    message: bytes, context: Context | None = None, *, key_id: str | None = None, **options: Unpack[CallOptions]
) -> Call[DecryptedMessage]:
    """As `decrypt`, with all of the message's encryption context, which is authentic."""
    request = pb.DecryptMessageRequest(
        message=message, encryption_context=context or {}, key_id=key_id or "", **common(options)
    )
    return Call("DecryptMessage", request, _decrypted_message, options)


def data_key(
    key_id: str,
    context: Context | None = None,
    *,
    length: int = 32,
    messages: int = 1,
    size: int = 0,
    **options: Unpack[CallOptions],
) -> Call[DataKey]:
    """A data key of `length` bytes, to encrypt with in this process: `messages` of them, of `size` bytes together."""
    request = pb.GenerateDataKeyRequest(**_data_key(key_id, context, length, messages, size, options))
    return Call(
        "GenerateDataKey",
        request,
        lambda reply: DataKey(reply.plaintext, reply.ciphertext_blob, reply.key_id, provenance(reply.provenance)),
        options,
    )


def data_key_without_plaintext(
    key_id: str,
    context: Context | None = None,
    *,
    length: int = 32,
    messages: int = 1,
    size: int = 0,
    **options: Unpack[CallOptions],
) -> Call[Ciphertext]:
    """A data key in encrypted form only, for somebody who may decrypt it later, with `decrypt_data_key`."""
    request = pb.GenerateDataKeyWithoutPlaintextRequest(
        **_data_key(key_id, context, length, messages, size, options)
    )
    return Call("GenerateDataKeyWithoutPlaintext", request, _ciphertext, options)


def decrypt_data_key(
    ciphertext_blob: bytes, key_id: str, context: Context | None = None, **options: Unpack[CallOptions]
) -> Call[DataKey]:
    """The same data key again. `key_id` and `context` are those of `data_key`; take `DataKey.key_id`, not an alias.

    So is the private key of a `data_key_pair`, from its `private_key_ciphertext_blob`.
    """
    return Call(
        "Decrypt",
        _decrypt(ciphertext_blob, key_id, context, options),
        lambda reply: DataKey(reply.plaintext, ciphertext_blob, reply.key_id, provenance(reply.provenance)),
        options,
    )


def data_key_pair(
    key_id: str, context: Context | None = None, *, spec: KeyPairSpec, **options: Unpack[CallOptions]
) -> Call[DataKeyPair]:
    """A new asymmetric data key pair, its private key in plaintext and encrypted under the KMS key. Pairs are never cached."""
    request = pb.GenerateDataKeyPairRequest(**_data_key_pair(key_id, context, spec, options))
    return Call("GenerateDataKeyPair", request, _key_pair, options)


def data_key_pair_without_plaintext(
    key_id: str, context: Context | None = None, *, spec: KeyPairSpec, **options: Unpack[CallOptions]
) -> Call[SealedDataKeyPair]:
    """The same with the private key in encrypted form only, for somebody who may decrypt it later, with `decrypt_data_key`."""
    request = pb.GenerateDataKeyPairWithoutPlaintextRequest(**_data_key_pair(key_id, context, spec, options))
    return Call("GenerateDataKeyPairWithoutPlaintext", request, _sealed_key_pair, options)


def encrypt_value(
    plaintext: bytes, key_id: str, context: Context | None = None, **options: Unpack[CallOptions]
) -> Call[Ciphertext]:
    """Encrypts 1 to 4,096 bytes directly under the KMS key: a password, a token. Every call goes to KMS: `encrypt` is faster and cheaper
    for many. `decrypt_value` reverses it; keep `Ciphertext.key_id` beside its `ciphertext_blob`.
    """
    request = pb.EncryptRequest(
        key_id=key_id, plaintext=plaintext, encryption_context=context or {}, grant_tokens=options.get("grant_tokens", ())
    )
    return Call("Encrypt", request, _ciphertext, options)


def decrypt_value(
    ciphertext_blob: bytes, key_id: str, context: Context | None = None, **options: Unpack[CallOptions]
) -> Call[bytes]:
    """Decrypts a ciphertext of `encrypt_value` or `re_encrypt`. `context` is exactly the one that it was encrypted with."""
    request = _decrypt(ciphertext_blob, key_id, context, options)
    return Call("Decrypt", request, lambda reply: reply.plaintext, options)


def re_encrypt(
    ciphertext_blob: bytes,
    source_key_id: str,
    destination_key_id: str,
    *,
    source_context: Context | None = None,
    destination_context: Context | None = None,
    **options: Unpack[CallOptions],
) -> Call[Ciphertext]:
    """Encrypts a KMS ciphertext anew, under another key or encryption context: of `encrypt_value`, or of a data key. Its plaintext never
    leaves KMS.
    """
    request = pb.ReEncryptRequest(
        ciphertext_blob=ciphertext_blob,
        source_key_id=source_key_id,
        source_encryption_context=source_context or {},
        destination_key_id=destination_key_id,
        destination_encryption_context=destination_context or {},
        grant_tokens=options.get("grant_tokens", ()),
    )
    return Call("ReEncrypt", request, _ciphertext, options)


def random(number_of_bytes: int, *, deadline: float | None = None) -> Call[bytes]:
    """Random bytes made by KMS, 1 to 1,024."""
    request = pb.GenerateRandomRequest(number_of_bytes=number_of_bytes)
    return Call("GenerateRandom", request, lambda reply: reply.plaintext, _only(deadline))


def describe_key(key_id: str, *, deadline: float | None = None) -> Call[KeyDescription]:
    """What KMS knows about a key."""
    return Call("DescribeKey", pb.DescribeKeyRequest(key_id=key_id), _description, _only(deadline))


def _data_key(
    key_id: str, context: Context | None, length: int, messages: int, size: int, options: CallOptions
) -> dict[str, Any]:
    lengths = {32: {"key_spec": pb.KEY_SPEC_AES_256}, 16: {"key_spec": pb.KEY_SPEC_AES_128}}
    return {
        "key_id": key_id,
        "encryption_context": context or {},
        "use": pb.Use(messages=messages, bytes=size),
        **lengths.get(length, {"number_of_bytes": length}),
        **common(options),
    }


def _data_key_pair(key_id: str, context: Context | None, spec: KeyPairSpec, options: CallOptions) -> dict[str, Any]:
    return {
        "key_id": key_id,
        "key_pair_spec": pb.KeyPairSpec.Value(f"KEY_PAIR_SPEC_{spec}"),
        "encryption_context": context or {},
        "grant_tokens": options.get("grant_tokens", ()),
    }


def _decrypt(ciphertext_blob: bytes, key_id: str, context: Context | None, options: CallOptions) -> pb.DecryptRequest:
    return pb.DecryptRequest(
        ciphertext_blob=ciphertext_blob, key_id=key_id, encryption_context=context or {}, **common(options)
    )


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
    key_id: str, context: Context | None, length: int | None, options: CallOptions
) -> pb.EncryptMessageStreamRequest:
    start = pb.EncryptMessageStart(
        key_id=key_id, encryption_context=context or {}, plaintext_length=length, **common(options)
    )
    return pb.EncryptMessageStreamRequest(start=start)


def decrypt_start(
    key_id: str | None, context: Context | None, before_signature: bool, options: CallOptions
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


def _ciphertext(reply: Any) -> Ciphertext:
    return Ciphertext(reply.ciphertext_blob, reply.key_id, provenance(reply.provenance))


def _key_pair(reply: pb.GenerateDataKeyPairResponse) -> DataKeyPair:
    return DataKeyPair(
        reply.private_key_plaintext,
        reply.private_key_ciphertext_blob,
        reply.public_key,
        reply.key_id,
        provenance(reply.provenance),
    )


def _sealed_key_pair(reply: pb.GenerateDataKeyPairWithoutPlaintextResponse) -> SealedDataKeyPair:
    return SealedDataKeyPair(
        reply.private_key_ciphertext_blob, reply.public_key, reply.key_id, provenance(reply.provenance)
    )


def _decrypted_message(reply: pb.DecryptMessageResponse) -> DecryptedMessage:
    return DecryptedMessage(
        plaintext=reply.plaintext,
        encryption_context=dict(reply.encryption_context),
        key_id=reply.key_id,
        provenance=provenance(reply.provenance),
    )


def _description(reply: pb.DescribeKeyResponse) -> KeyDescription:
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


def _only(deadline: float | None) -> CallOptions:
    return {} if deadline is None else {"deadline": deadline}
