"""The client for code without asyncio."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO, Unpack

import grpc

from . import _calls as calls
from ._address import Tls, target
from ._channel import credentials, options
from ._errors import BEGINNINGS, broke_off, from_rpc
from ._options import DEFAULT_DEADLINE, STREAM_DEADLINE, CallOptions
from ._stubs import key_broker_pb2 as pb
from ._tracing import metadata
from ._values import DataKey, DecryptedMessage, KeyDescription, Provenance

Context = Mapping[str, str]
#: What a stream reads: chunks of any length, or a file that is open for reading bytes.
Source = Iterable[bytes] | BinaryIO


def connect(address: str | None = None, *, tls: Tls | None = None, deadline: float = DEFAULT_DEADLINE) -> "Client":
    """A client of the broker at `address`: `unix:PATH`, or `127.0.0.1:PORT`, or `HOST:PORT` with `tls`.

    Without one, the environment variable KEY_BROKER_ADDRESS says where the broker is, else it is at
    `unix:///run/key-broker/broker.sock`. The connection is made with the first call, and again whenever it broke off. Every call
    ends after `deadline` seconds, unless it has one of its own.
    """
    return Client(target(address, tls), tls, deadline)


class Client:
    """A connection to the broker, for any number of threads. Made by `connect`; `close` it, or use it in a `with` block."""

    def __init__(self, target: str, tls: Tls | None, deadline: float) -> None:
        self._target = target
        self._deadline = deadline
        chosen = options(tls)
        if tls is None:
            self._channel = grpc.insecure_channel(target, chosen)
        else:
            self._channel = grpc.secure_channel(target, credentials(tls), chosen)
        self._methods = {
            name: self._channel.unary_unary(
                calls.path(name), request_serializer=asks.SerializeToString, response_deserializer=answers.FromString
            )
            for name, (asks, answers) in calls.METHODS.items()
        }
        self._streams = {
            name: self._channel.stream_stream(
                calls.path(name), request_serializer=asks.SerializeToString, response_deserializer=answers.FromString
            )
            for name, (asks, answers) in calls.STREAMS.items()
        }

    def encrypt(
        self, plaintext: bytes, key_id: str, context: Context | None = None, **options: Unpack[CallOptions]
    ) -> bytes:
        """Encrypts a message of at most 3 MiB; what is longer goes by `encrypt_stream`.

        `context` is bound to the message, which has it in clear. What comes back is a message of the AWS Encryption SDK.
        """
        request = pb.EncryptMessageRequest(
            key_id=key_id, encryption_context=context or {}, plaintext=plaintext, **calls.common(options)
        )
        message: bytes = self._call("EncryptMessage", request, options).message
        return message

    def decrypt(
        self,
        message: bytes,
        context: Context | None = None,
        *,
        key_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> bytes:
        """Decrypts a message of `encrypt`, or of an AWS Encryption SDK. Its encryption context must have all of `context`."""
        return self.decrypt_message(message, context, key_id=key_id, **options).plaintext

    def decrypt_message(
        self,
        message: bytes,
        context: Context | None = None,
        *,
        key_id: str | None = None,
        **options: Unpack[CallOptions],
    ) -> DecryptedMessage:
        """As `decrypt`, with all of the message's encryption context, which is authentic."""
        request = pb.DecryptMessageRequest(
            message=message, encryption_context=context or {}, key_id=key_id or "", **calls.common(options)
        )
        return calls.decrypted_message(self._call("DecryptMessage", request, options))

    def encrypt_stream(
        self,
        plaintext: Source,
        key_id: str,
        context: Context | None = None,
        *,
        length: int | None = None,
        **options: Unpack[CallOptions],
    ) -> "MessageStream":
        """Encrypts a message of any length, part by part. It is whole only when the stream has ended without an error.

        `length` is how many bytes will come. Without it, the message takes a call to KMS of its own.
        """
        start = calls.encrypt_start(key_id, context, length, options)
        return self._stream("EncryptMessageStream", start, plaintext, calls.plaintext_part, "message", options)

    def decrypt_stream(
        self,
        message: Source,
        context: Context | None = None,
        *,
        key_id: str | None = None,
        release_before_signature: bool = False,
        **options: Unpack[CallOptions],
    ) -> "MessageStream":
        """Decrypts a message of any length. Every part is authentic, but the end may be missing until the stream has ended without
        an error.

        `release_before_signature` takes messages that are signed, too, by whom their signature, which comes last, proves.
        """
        start = calls.decrypt_start(key_id, context, release_before_signature, options)
        return self._stream("DecryptMessageStream", start, message, calls.message_part, "plaintext", options)

    def data_key(
        self,
        key_id: str,
        context: Context | None = None,
        *,
        length: int = 32,
        messages: int = 1,
        size: int = 0,
        **options: Unpack[CallOptions],
    ) -> DataKey:
        """A data key of `length` bytes, to encrypt with in this process: `messages` of them, of `size` bytes together."""
        request = calls.data_key_request(key_id, context, length, messages, size, options)
        return calls.data_key(self._call("GenerateDataKey", request, options))

    def decrypt_data_key(
        self, ciphertext_blob: bytes, key_id: str, context: Context | None = None, **options: Unpack[CallOptions]
    ) -> DataKey:
        """The same data key again. `key_id` and `context` are those of `data_key`; take `DataKey.key_id`, not an alias."""
        request = pb.DecryptRequest(
            ciphertext_blob=ciphertext_blob, key_id=key_id, encryption_context=context or {}, **calls.common(options)
        )
        return calls.decrypted_data_key(self._call("Decrypt", request, options), ciphertext_blob)

    def random(self, number_of_bytes: int, *, deadline: float | None = None) -> bytes:
        """Random bytes made by KMS, 1 to 1,024."""
        request = pb.GenerateRandomRequest(number_of_bytes=number_of_bytes)
        plaintext: bytes = self._call("GenerateRandom", request, _deadline(deadline)).plaintext
        return plaintext

    def describe_key(self, key_id: str, *, deadline: float | None = None) -> KeyDescription:
        """What KMS knows about a key."""
        request = pb.DescribeKeyRequest(key_id=key_id)
        return calls.description(self._call("DescribeKey", request, _deadline(deadline)))

    def close(self) -> None:
        """Closes the connection. Calls in flight fail."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, request: Any, options: CallOptions) -> Any:
        end = time.monotonic() + options.get("deadline", self._deadline)
        beginnings = 0
        while True:
            beginnings += 1
            try:
                return self._methods[method](request, timeout=max(0, end - time.monotonic()), metadata=metadata())
            except grpc.RpcError as error:
                made = from_rpc(error, self._target)
                if not broke_off(made) or beginnings == BEGINNINGS:
                    raise made from error

    def _stream(
        self,
        method: str,
        start: Any,
        source: Source,
        part: Callable[[bytes], Any],
        answer: str,
        options: CallOptions,
    ) -> "MessageStream":
        requests = _Requests(start, source, part)
        deadline = options.get("deadline", STREAM_DEADLINE)
        call = self._streams[method](iter(requests), timeout=deadline, metadata=metadata())
        return MessageStream(call, requests, answer, self._target)


class MessageStream(Iterator[bytes]):
    """The parts of a message, in order. Closing it early ends the call."""

    #: The ARN of the KMS key.
    key_id: str
    #: Where the message's data key came from.
    provenance: Provenance
    #: Of a stream that decrypts: all of the message's encryption context, authentic.
    encryption_context: Mapping[str, str]

    def __init__(self, call: Any, requests: "_Requests", answer: str, target: str) -> None:
        self._call, self._requests, self._answer, self._target = call, requests, answer, target
        first = self._next()
        self.key_id = first.key_id
        self.provenance = calls.provenance(first.provenance)
        self.encryption_context = dict(getattr(first, "encryption_context", {}))

    def __next__(self) -> bytes:
        while True:
            part: bytes = getattr(self._next(), self._answer)
            if part:
                return part

    def _next(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            if self._requests.failure is not None:
                raise self._requests.failure from None
            raise from_rpc(error, self._target) from error

    def close(self) -> None:
        """Ends the call, if it has not ended."""
        self._call.cancel()

    def __enter__(self) -> "MessageStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Requests:
    """What a stream sends, and why its source failed, if it did."""

    def __init__(self, start: Any, source: Source, part: Callable[[bytes], Any]) -> None:
        self._start, self._source, self._part = start, source, part
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        yield self._start
        try:
            read = getattr(self._source, "read", None)
            chunks = self._source if read is None else calls.reader(read)
            for chunk in chunks:
                for piece in calls.pieces(chunk):
                    yield self._part(piece)
        except Exception as error:
            # The message has no end now: gRPC cancels the call.
            self.failure = error
            raise


def _deadline(deadline: float | None) -> CallOptions:
    return {} if deadline is None else {"deadline": deadline}
