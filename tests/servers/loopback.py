"""HTTP/1.1 on 127.0.0.1 in a thread of its own: the ground that the protocol servers stand on."""

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import count
from typing import Any, Self, cast

import h11
from langchain_core.language_models import BaseChatModel

from tests.servers.fake_answers import Backend, End, FakeAnswer, Faults, ModelCall, Part, model_parts

_BACKLOG = 1024
"""Connections that may wait to be accepted; too few and a burst of clients is refused."""


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """A request as it arrived."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes
    body: dict[str, Any] | None
    """The JSON object of the body; None where it holds no object."""


class Wire(ABC):
    """How one protocol writes an answer."""

    stream_type: str

    @abstractmethod
    def part(self, part: Part) -> bytes:
        """A streamed piece."""

    @abstractmethod
    def end(self, end: End) -> bytes:
        """The last streamed piece."""

    @abstractmethod
    def whole(self, parts: list[Part], end: End) -> bytes:
        """An answer that is not streamed."""

    @abstractmethod
    def error(self, status: int, message: str) -> bytes:
        """The body of an error response."""

    @abstractmethod
    def error_in_stream(self, message: str) -> bytes:
        """An error after the stream has begun."""


class LoopbackServer(ABC):
    """A model server on a free port of 127.0.0.1, for as long as its `with` block lasts.

    The connection is closed after each answer, since LangChain's clients never close theirs, which Python would warn
    of; `keep_alive=True` leaves it open, as a real server does. An exception in a scripted backend becomes a status 500
    for the client, and is raised again where the block ends.
    """

    def __init__(self, backend: Backend, *, faults: Faults | None = None, keep_alive: bool = False) -> None:
        self.requests: list[RecordedRequest] = []
        """Every request, in order of arrival."""
        self.keep_alive = keep_alive
        self._backend = backend
        self._faults = faults or Faults()
        self._calls = count()
        self._error: Exception | None = None
        self.connections: set[_Connection] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=type(self).__name__, daemon=True)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._port}"

    def count(self, path: str) -> int:
        """How many requests had a path that ends like this."""
        return sum(request.path.endswith(path) for request in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            msg = f"{type(self).__name__} did not start within 10 seconds"
            raise TimeoutError(msg)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if self._error is not None and error_type is None:
            raise self._error

    @abstractmethod
    async def respond(self, request: RecordedRequest, reply: "Reply") -> None:
        """Answer one request."""

    async def generate(self, call: ModelCall, wire: Wire, reply: "Reply") -> None:
        """Let the backend answer a model call, through the faults."""
        if self._faults.latency_s:
            await asyncio.sleep(self._faults.latency_s)
        fate = self._faults.fate(next(self._calls))
        if fate == "hang":
            await _for_ever()
        elif fate == "error":
            reply.send(503, wire.error(503, "The model is overloaded. Please try again later."))
        elif isinstance(self._backend, BaseChatModel):
            await self._from_model(self._backend, call, wire, reply)
        else:
            try:
                answer = self._backend if isinstance(self._backend, FakeAnswer) else self._backend(call.request)
            except Exception as error:
                self._error = error
                answer = FakeAnswer(status=500, error=repr(error))
            await _from_script(answer, call, wire, reply)

    async def _from_model(self, model: BaseChatModel, call: ModelCall, wire: Wire, reply: "Reply") -> None:
        parts: list[Part] = []
        try:
            async for part in model_parts(model, call):
                if call.stream:
                    reply.begin(wire.stream_type)
                    reply.write(wire.end(part) if isinstance(part, End) else wire.part(part))
                elif isinstance(part, End):
                    reply.send(200, wire.whole(parts, part))
                else:
                    parts.append(part)
        except Exception as error:
            _fail(f"{type(error).__name__}: {error}", wire, reply)
        else:
            if call.stream:
                reply.end()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listener = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=_BACKLOG)
        self._port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        listener.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    async def serve(self, request: RecordedRequest, reply: "Reply") -> None:
        """Record a request and answer it."""
        self.requests.append(request)
        try:
            await self.respond(request, reply)
        except Exception as error:
            self._error = error
            reply.drop()


class Reply:
    """The sending side of one exchange."""

    def __init__(self, http: h11.Connection, transport: asyncio.Transport, *, keep_alive: bool) -> None:
        self._http = http
        self._transport = transport
        self._keep_alive = keep_alive
        self._unsent: list[bytes] = []
        self.begun = False

    def send(self, status: int, body: bytes, content_type: str = "application/json; charset=utf-8") -> None:
        """A complete response."""
        self.begin(content_type, status=status, length=len(body))
        self.write(body)
        self.end()

    def begin(self, content_type: str, *, status: int = 200, length: int | None = None) -> None:
        """The head of a response, once; without a length it is sent in chunks."""
        if self.begun:
            return
        self.begun = True
        headers = [("content-type", content_type)]
        headers += [] if self._keep_alive else [("connection", "close")]
        headers += [] if length is None else [("content-length", str(length))]
        self._send(h11.Response(status_code=status, headers=headers))

    def write(self, data: bytes) -> None:
        """A piece of the body; pieces written without an await between them travel together."""
        self._send(h11.Data(data=data))

    def end(self) -> None:
        """The end of the body."""
        self._send(h11.EndOfMessage())
        self._flush()

    def drop(self) -> None:
        """Close the connection as it stands."""
        self._flush()
        self._transport.close()

    def _send(self, event: h11.Event) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(self._http.send(event) or b"")

    def _flush(self) -> None:
        if self._unsent:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()


class _Connection(asyncio.Protocol):
    """One client's connection; its answer is cancelled when the client leaves."""

    def __init__(self, server: LoopbackServer) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER)
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._read()

    def _read(self) -> None:
        try:
            while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    self._head = event
                    self._body.clear()
                elif isinstance(event, h11.Data):
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self._task = asyncio.get_running_loop().create_task(self._answer(self._request()))
                    return
                else:
                    self.transport.close()
                    return
        except h11.RemoteProtocolError:
            self.transport.close()

    def _request(self) -> RecordedRequest:
        path, _, query = self._head.target.decode().partition("?")
        raw = bytes(self._body)
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        return RecordedRequest(
            method=self._head.method.decode(),
            path=path,
            query=query,
            headers={name.decode(): value.decode("latin-1") for name, value in self._head.headers},
            raw=raw,
            body=body if isinstance(body, dict) else None,
        )

    async def _answer(self, request: RecordedRequest) -> None:
        await self._server.serve(request, Reply(self._http, self.transport, keep_alive=self._server.keep_alive))
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._read()
        else:
            self.transport.close()


async def _from_script(answer: FakeAnswer, call: ModelCall, wire: Wire, reply: Reply) -> None:
    if answer.delay_s:
        await asyncio.sleep(answer.delay_s)
    if answer.body is not None:
        reply.send(answer.status, answer.body)
    elif answer.status != 200:
        reply.send(answer.status, wire.error(answer.status, answer.error))
    else:
        parts, end = answer.play(call)
        if call.stream:
            pieces = [*(wire.part(part) for part in parts), wire.end(end)]
            for piece in pieces[: answer.after_parts] if answer.break_off else pieces:
                reply.begin(wire.stream_type)
                reply.write(piece)
        else:
            whole = wire.whole(parts, end)
            if answer.break_off is None:
                reply.send(200, whole)
            elif answer.after_parts and answer.break_off != "error":
                reply.begin("application/json", length=len(whole))
                reply.write(whole[: len(whole) // 2])
        if answer.break_off == "hang":
            await _for_ever()
        elif answer.break_off == "error":
            _fail(answer.error, wire, reply)
        elif answer.break_off == "drop":
            reply.drop()
        elif call.stream:
            reply.end()


def _fail(message: str, wire: Wire, reply: Reply) -> None:
    if reply.begun:
        reply.write(wire.error_in_stream(message))
        reply.end()
    else:
        reply.send(500, wire.error(500, message))


async def _for_ever() -> None:
    await asyncio.Event().wait()
