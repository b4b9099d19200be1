"""The client for code without asyncio."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar, Unpack

import grpc

from . import _calls as calls
from ._address import Tls, target
from ._calls import Context
from ._channel import credentials, options
from ._errors import BEGINNINGS, broke_off, from_rpc
from ._methods import named
from ._options import DEFAULT_DEADLINE, STREAM_DEADLINE, CallOptions
from ._tracing import metadata
from ._values import Provenance

P = ParamSpec("P")
R = TypeVar("R")
#: What a stream reads: chunks of any length, or a file that is open for reading bytes.
Source = Iterable[bytes] | BinaryIO


def connect(address: str | None = None, *, tls: Tls | None = None, deadline: float = DEFAULT_DEADLINE) -> "Client":
    """A client of the broker at `address`: `unix:PATH`, or `127.0.0.1:PORT`, or `HOST:PORT` with `tls`.

    Without one, the environment variable KEY_BROKER_ADDRESS says where the broker is, else it is at
    `unix:///run/key-broker/broker.sock`. The connection is made with the first call, and again whenever it broke off. Every call
    ends after `deadline` seconds, unless it has one of its own.
    """
    return Client(target(address, tls), tls, deadline)


def _method(call: Callable[P, calls.Call[R]]) -> Callable[Concatenate["Client", P], R]:
    """A method that makes `call`, with its signature and words."""

    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return client._call(call(*args, **kwargs))

    return named(method, call)


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

    encrypt = _method(calls.encrypt)
    decrypt = _method(calls.decrypt)
    decrypt_message = _method(calls.decrypt_message)

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

    data_key = _method(calls.data_key)
    data_key_without_plaintext = _method(calls.data_key_without_plaintext)
    decrypt_data_key = _method(calls.decrypt_data_key)
    data_key_pair = _method(calls.data_key_pair)
    data_key_pair_without_plaintext = _method(calls.data_key_pair_without_plaintext)
    encrypt_value = _method(calls.encrypt_value)
    decrypt_value = _method(calls.decrypt_value)
    re_encrypt = _method(calls.re_encrypt)
    random = _method(calls.random)
    describe_key = _method(calls.describe_key)

    def close(self) -> None:
        """Closes the connection. Calls in flight fail."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: calls.Call[R]) -> R:
        end = time.monotonic() + call.options.get("deadline", self._deadline)
        beginnings = 0
        while True:
            beginnings += 1
            try:
                method = self._methods[call.method]
                reply = method(call.request, timeout=max(0, end - time.monotonic()), metadata=metadata())
                return call.answer(reply)
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

