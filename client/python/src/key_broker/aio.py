"""The client for asyncio: as `key_broker`, with calls to await.

    from key_broker import aio

    async with aio.connect() as broker:
        message = await broker.encrypt(b"hello", "alias/dev", {"tenant": "acme"})
        plaintext = await broker.decrypt(message, {"tenant": "acme"})
"""

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import grpc.aio
from google.protobuf.message import Message

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
#: What a stream reads: chunks of any length. A file that is open blocks the event loop: read it with a library for asyncio.
Source = AsyncIterable[bytes] | Iterable[bytes]


def connect(address: str | None = None, *, tls: Tls | None = None, deadline: float = DEFAULT_DEADLINE) -> "AsyncClient":
    """As `key_broker.connect`. To be called where an event loop runs."""
    return AsyncClient(target(address, tls), tls, deadline)


def _method(call: Callable[P, calls.Call[R]]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, R]]:
    """A method that makes `call`, with its signature and words."""

    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await client._call(call(*args, **kwargs))

    return named(method, call)


class AsyncClient:
    """A connection to the broker. Made by `connect`; `close` it, or use it in an `async with` block."""

    def __init__(self, target: str, tls: Tls | None, deadline: float) -> None:
        self._target = target
        self._deadline = deadline
        chosen = options(tls)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, chosen)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials(tls), chosen)
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

    async def encrypt_stream(
        self,
        plaintext: Source,
        key_id: str,
        context: Context | None = None,
        *,
        length: int | None = None,
        **options: Unpack[CallOptions],
    ) -> "AsyncMessageStream":
        """As `key_broker.Client.encrypt_stream`: await it, then read it with `async for`."""
        start = calls.encrypt_start(key_id, context, length, options)
        return await self._stream("EncryptMessageStream", start, plaintext, calls.plaintext_part, "message", options)

    async def decrypt_stream(
        self,
        message: Source,
        context: Context | None = None,
        *,
        key_id: str | None = None,
        release_before_signature: bool = False,
        **options: Unpack[CallOptions],
    ) -> "AsyncMessageStream":
        """As `key_broker.Client.decrypt_stream`: await it, then read it with `async for`."""
        start = calls.decrypt_start(key_id, context, release_before_signature, options)
        return await self._stream("DecryptMessageStream", start, message, calls.message_part, "plaintext", options)

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

    async def close(self) -> None:
        """Closes the connection. Calls in flight fail."""
        await self._channel.close(None)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: calls.Call[R]) -> R:
        end = time.monotonic() + call.options.get("deadline", self._deadline)
        beginnings = 0
        while True:
            beginnings += 1
            try:
                method = self._methods[call.method]
                reply = await method(call.request, timeout=max(0, end - time.monotonic()), metadata=metadata())
                return call.answer(reply)
            except grpc.aio.AioRpcError as error:
                made = from_rpc(error, self._target)
                if not broke_off(made) or beginnings == BEGINNINGS:
                    raise made from error

    async def _stream(
        self,
        method: str,
        start: Any,
        source: Source,
        part: Callable[[bytes], Any],
        answer: str,
        options: CallOptions,
    ) -> "AsyncMessageStream":
        requests = _Requests(start, source, part)
        deadline = options.get("deadline", STREAM_DEADLINE)
        call = self._streams[method](requests.sent(), timeout=deadline, metadata=metadata())
        requests.call = call
        stream = AsyncMessageStream(call, requests, answer, self._target)
        await stream._begin()
        return stream


class AsyncMessageStream(AsyncIterator[bytes]):
    """The parts of a message, in order. Closing it early ends the call."""

    #: The ARN of the KMS key.
    key_id: str
    #: Where the message's data key came from.
    provenance: Provenance
    #: Of a stream that decrypts: all of the message's encryption context, authentic.
    encryption_context: Mapping[str, str]

    def __init__(self, call: Any, requests: "_Requests", answer: str, target: str) -> None:
        self._call, self._requests, self._answer, self._target = call, requests, answer, target

    async def _begin(self) -> None:
        first = await self._next()
        self.key_id = first.key_id
        self.provenance = calls.provenance(first.provenance)
        self.encryption_context = dict(getattr(first, "encryption_context", {}))

    async def __anext__(self) -> bytes:
        while True:
            part: bytes = getattr(await self._next(), self._answer)
            if part:
                return part

    async def _next(self) -> Any:
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._target) from error
        finally:
            if self._requests.failure is not None:
                raise self._requests.failure from None
        if not isinstance(answer, Message):
            raise StopAsyncIteration
        return answer

    def close(self) -> None:
        """Ends the call, if it has not ended."""
        self._call.cancel()


class _Requests:
    """What a stream sends, and why its source failed, if it did."""

    def __init__(self, start: Any, source: Source, part: Callable[[bytes], Any]) -> None:
        self._start, self._source, self._part = start, source, part
        self.failure: Exception | None = None
        self.call: Any = None

    async def sent(self) -> AsyncIterator[Any]:
        yield self._start
        try:
            async for chunk in _each(self._source):
                for piece in calls.pieces(chunk):
                    yield self._part(piece)
        except Exception as error:
            # The message has no end now, and must not look as if it had: gRPC would close its side.
            self.failure = error
            self.call.cancel()


async def _each(source: Source) -> AsyncIterator[bytes]:
    if isinstance(source, AsyncIterable):
        async for chunk in source:
            yield chunk
    else:
        for chunk in source:
            yield chunk

