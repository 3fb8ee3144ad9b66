"""Streams that show nothing before it was checked: text is held back, checked, and only then handed on."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_pld.errors import InputError
from langchain_pld.guardrail.guard import Guard, at_stage
from langchain_pld.guardrail.message_edits import BlockedMessage
from langchain_pld.guardrail.stream_buffer import StreamBuffer, UncheckedText
from langchain_pld.guardrail.streaming import END, Emit, Source, StreamSteps, arun_stream, run_stream

__all__ = [
    "StreamBuffer",
    "aguard_agent_stream",
    "aguard_event_stream",
    "aguard_stream",
    "guard_agent_stream",
    "guard_stream",
    "guard_texts",
]

Chunk = TypeVar("Chunk")
Guards = Guard | Sequence[Guard]


def guard_stream(
    chunks: Iterable[Chunk],
    guards: Guards,
    *,
    buffer: StreamBuffer | None = None,
    blocked_message: BlockedMessage | None = None,
    config: RunnableConfig | None = None,
) -> Iterator[Chunk]:
    """Hand a stream on, each part only after the guards allowed it.

    At a violation the buffered part is dropped, a neutral sentence takes its place and the stream ends. What was handed
    on before had been allowed. Tool calls are held back until the end, where their arguments are checked.

    Args:
        chunks: Texts or messages: a model's or a chain's `stream`.
        guards: Who checks; of several the strictest wins.
        buffer: How much is held back; sentences by default.
        blocked_message: What is said instead, or a function that makes it of the decision; the policy's sentence when
            absent.
        config: Handed on to the students.

    Raises:
        InputError: A chunk is neither text nor a message, so it cannot be checked.
        GuardrailError: The policy says to raise.
    """
    source = Source(lambda: iter(chunks), lambda: iter(chunks))
    return run_stream(guard_texts(source, guards, buffer, blocked_message, config), source)


def aguard_stream(
    chunks: AsyncIterable[Chunk],
    guards: Guards,
    *,
    buffer: StreamBuffer | None = None,
    blocked_message: BlockedMessage | None = None,
    config: RunnableConfig | None = None,
) -> AsyncIterator[Chunk]:
    """As `guard_stream`, for a model's or a chain's `astream`."""
    source = Source(lambda: aiter(chunks), lambda: aiter(chunks))
    return arun_stream(guard_texts(source, guards, buffer, blocked_message, config), source)


def guard_agent_stream(
    agent: Runnable[Any, Any],
    input: Any,  # noqa: A002
    guards: Guards,
    *,
    stream_mode: str | Sequence[str] = "messages",
    buffer: StreamBuffer | None = None,
    blocked_message: BlockedMessage | None = None,
    config: RunnableConfig | None = None,
    **options: Any,
) -> Iterator[tuple[BaseMessage, dict[str, Any]]]:
    """Stream the messages of an agent or any compiled graph, each part only after the guards allowed it.

    For graphs without an output guard inside: one made by `create_agent` with
    `PLDGuardrailMiddleware(apply_to_output=True)` is safe in every mode by itself. At a violation the neutral sentence
    is given and the run is stopped.

    Args:
        agent: The compiled graph.
        input: Its input.
        guards: As in `guard_stream`, and so are `buffer`, `blocked_message` and `config`.
        stream_mode: Only `messages`.
        buffer: How much is held back.
        blocked_message: What is said instead.
        config: Handed on to the agent too.
        **options: Other arguments of the graph's `stream`.

    Raises:
        InputError: The mode carries the whole state, hence cannot be guarded from outside.
        GuardrailError: The policy says to raise.
    """
    source = _agent_source(agent, input, config, stream_mode, options)
    return run_stream(_guard_items(source, _read_message_item, guards, buffer, blocked_message, config), source)


def aguard_agent_stream(
    agent: Runnable[Any, Any],
    input: Any,  # noqa: A002
    guards: Guards,
    *,
    stream_mode: str | Sequence[str] = "messages",
    buffer: StreamBuffer | None = None,
    blocked_message: BlockedMessage | None = None,
    config: RunnableConfig | None = None,
    **options: Any,
) -> AsyncIterator[tuple[BaseMessage, dict[str, Any]]]:
    """As `guard_agent_stream`, with the graph's `astream`."""
    source = _agent_source(agent, input, config, stream_mode, options)
    return arun_stream(_guard_items(source, _read_message_item, guards, buffer, blocked_message, config), source)


def aguard_event_stream(
    runnable: Runnable[Any, Any],
    input: Any,  # noqa: A002
    guards: Guards,
    *,
    version: str = "v2",
    buffer: StreamBuffer | None = None,
    blocked_message: BlockedMessage | None = None,
    config: RunnableConfig | None = None,
    **options: Any,
) -> AsyncIterator[dict[str, Any]]:
    """Stream the events of a chain or graph; a model's tokens only after the guards allowed them.

    All other events come without their data, which would show what is still held back: inputs, outputs and states. At a
    violation the neutral sentence is given and the run is stopped.

    Args:
        runnable: The chain or compiled graph.
        input: Its input.
        guards: As in `guard_stream`, and so are `buffer`, `blocked_message` and `config`.
        version: Only `v2`.
        buffer: How much is held back.
        blocked_message: What is said instead.
        config: Handed on to the runnable too.
        **options: Other arguments of `astream_events`, such as `include_types`.

    Raises:
        InputError: The version cannot be guarded from outside.
        GuardrailError: The policy says to raise.
    """
    if version != "v2":
        msg = (
            f"events of version {version!r} cannot be guarded from outside; use version='v2', or put "
            "PLDGuardrailMiddleware(apply_to_output=True) into the agent, which is safe in every version"
        )
        raise InputError(msg)

    def events() -> Any:
        return runnable.astream_events(input, config, version="v2", **options)

    source = Source(events, events)
    return arun_stream(_guard_items(source, _read_event, guards, buffer, blocked_message, config), source)


def guard_texts(
    source: Source,
    guards: Guards,
    buffer: StreamBuffer | None,
    blocked_message: BlockedMessage | None,
    config: RunnableConfig | None,
    *,
    first: Any = END,
) -> StreamSteps:
    """The steps of `guard_stream`.

    Args:
        source: The chunks.
        guards: Who checks.
        buffer: How much is held back.
        blocked_message: What is said instead.
        config: Handed on to the students.
        first: A chunk that was read already.
    """
    return _guard_items(source, _read_chunk, guards, buffer, blocked_message, config, first=first)


class _Item(NamedTuple):
    """One item of a stream, taken apart."""

    message: Any
    """Which message it belongs to."""
    chunks: tuple[Any, ...]
    """What is to be checked: one chunk of the message, or none."""
    rebuild: Callable[[Any], Any]
    """Makes items of checked chunks of this message."""
    last: bool = False
    """Whether the message ends here."""
    after: Any = None
    """What is emitted behind the message's chunks."""


def _guard_items(
    source: Source,
    read_item: Callable[[Any], _Item],
    guards: Guards,
    buffer: StreamBuffer | None,
    blocked_message: BlockedMessage | None,
    config: RunnableConfig | None,
    *,
    first: Any = END,
) -> StreamSteps:
    here = at_stage(guards, "output")
    messages: dict[Any, tuple[UncheckedText, Callable[[Any], Any]]] = {}
    raw = first if first is not END else (yield source.read())
    while raw is not END:
        item = read_item(raw)
        fresh = UncheckedText(buffer or StreamBuffer(), here, blocked_message, config)
        unchecked, rebuild = messages.setdefault(item.message, (fresh, item.rebuild))
        for part in (yield from cast("Any", unchecked.release(*item.chunks, last=item.last))):
            yield Emit(rebuild(part))
        if unchecked.blocked:
            return
        if item.after is not None:
            yield Emit(item.after)
        raw = yield source.read()
    for unchecked, rebuild in messages.values():
        for part in (yield from cast("Any", unchecked.release(last=True))):
            yield Emit(rebuild(part))
        if unchecked.blocked:
            return


def _read_chunk(chunk: Any) -> _Item:
    return _Item(None, (chunk,), lambda part: part)


def _read_message_item(item: tuple[BaseMessage, dict[str, Any]]) -> _Item:
    message, metadata = item
    last = not isinstance(message, AIMessageChunk) or message.chunk_position == "last"
    return _Item(message.id, (message,), lambda part: (part, metadata), last)


def _read_event(event: dict[str, Any]) -> _Item:
    def rebuild(part: Any) -> dict[str, Any]:
        return {**event, "event": "on_chat_model_stream", "data": {"chunk": part}}

    if event["event"] == "on_chat_model_stream":
        return _Item(event["run_id"], (event["data"]["chunk"],), rebuild)
    return _Item(event["run_id"], (), rebuild, last=True, after={**event, "data": {}})


def _agent_source(
    agent: Runnable[Any, Any],
    input: Any,  # noqa: A002
    config: RunnableConfig | None,
    stream_mode: str | Sequence[str],
    options: dict[str, Any],
) -> Source:
    if ([stream_mode] if isinstance(stream_mode, str) else list(stream_mode)) != ["messages"]:
        msg = (
            f"stream_mode {stream_mode!r} cannot be guarded from outside, since other modes than 'messages' carry the "
            "whole state; put PLDGuardrailMiddleware(apply_to_output=True) into the agent, which is safe in every mode"
        )
        raise InputError(msg)
    for name in ("subgraphs", "version"):
        if name in options:
            msg = f"{name} changes the shape of the stream, which then cannot be guarded; leave it out"
            raise InputError(msg)
    stream = {**options, "stream_mode": "messages"}
    return Source(lambda: agent.stream(input, config, **stream), lambda: agent.astream(input, config, **stream))
