"""Streams that show nothing before it was checked: text is held back, checked, and only then handed on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_pld.errors import InputError
from langchain_pld.guardrail.check import Decision, Guard, acheck_all, check_all, placed
from langchain_pld.guardrail.content import Content, call_text, read_message
from langchain_pld.guardrail.replacement import marked

__all__ = [
    "Replacement",
    "StreamHold",
    "aguard_agent_stream",
    "aguard_event_stream",
    "aguard_stream",
    "guard_agent_stream",
    "guard_stream",
]

Replacement = str | Callable[[Decision], Any]
"""What is said instead of blocked content, or a function that makes it of the decision."""

Chunk = TypeVar("Chunk")

# Begun nowhere but at the start of a run of marks: a search from each of them would take the square of its length.
_SENTENCE_END = re.compile(
    r"(?<![.!?\u2026\uff01\uff1f])[.!?\u2026\uff01\uff1f]+[\"'\u2019\u201d)\]]*\s+|[\u3002\uff01\uff1f]|\n+"
)


class StreamHold(BaseModel):
    """How much of a stream is held back until it is checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["sentence", "window", "all"] = "sentence"
    """Check at the end of a sentence, after `max_chars` characters, or once when the stream ends."""
    min_chars: int = Field(default=40, ge=1)
    """A sentence shorter than this many characters waits for the next one."""
    max_chars: int = Field(default=400, ge=1)
    """Characters after which a part is checked even without the end of a sentence."""
    context_chars: int = Field(default=1_000, ge=0)
    """Characters of what was said before that are checked together with each part."""

    @model_validator(mode="after")
    def _ordered(self) -> StreamHold:
        if self.min_chars > self.max_chars:
            msg = f"min_chars ({self.min_chars}) is larger than max_chars ({self.max_chars})"
            raise ValueError(msg)
        return self


def guard_stream(
    chunks: Iterable[Chunk],
    guards: Guard | Sequence[Guard],
    *,
    hold: StreamHold | None = None,
    replacement: Replacement | None = None,
    config: RunnableConfig | None = None,
) -> Iterator[Chunk]:
    """Hand a stream on, each part only after the guards allowed it.

    At a violation the held part is dropped, a neutral sentence takes its place and the stream ends. What was handed on
    before had been allowed. Tool calls are held until the end, where their arguments are checked.

    Args:
        chunks: Texts or messages: a model's or a chain's `stream`.
        guards: Who checks; of several the strictest wins.
        hold: How much is held back; sentences by default.
        replacement: What is said instead; the policy's sentence when absent.
        config: Handed on to the students.

    Raises:
        InputError: A chunk is neither text nor a message, so it cannot be checked.
        GuardrailError: The policy says to raise.
    """
    held: Held[Chunk] = Held(hold or StreamHold(), replacement)
    asked = placed(guards, "output")
    try:
        for chunk in chunks:
            held.add(chunk)
            yield from _run(held.checked(), asked, config)
            if held.closed:
                return
        yield from _run(held.checked(last=True), asked, config)
    finally:
        _close(chunks)


async def aguard_stream(
    chunks: AsyncIterable[Chunk],
    guards: Guard | Sequence[Guard],
    *,
    hold: StreamHold | None = None,
    replacement: Replacement | None = None,
    config: RunnableConfig | None = None,
) -> AsyncIterator[Chunk]:
    """Hand an asynchronous stream on, each part only after the guards allowed it; see `guard_stream`.

    Args:
        chunks: Texts or messages: a model's or a chain's `astream`.
        guards: Who checks; of several the strictest wins.
        hold: How much is held back; sentences by default.
        replacement: What is said instead; the policy's sentence when absent.
        config: Handed on to the students.

    Raises:
        InputError: A chunk is neither text nor a message, so it cannot be checked.
        GuardrailError: The policy says to raise.
    """
    held: Held[Chunk] = Held(hold or StreamHold(), replacement)
    asked = placed(guards, "output")
    try:
        async for chunk in chunks:
            held.add(chunk)
            for part in await _arun(held.checked(), asked, config):
                yield part
            if held.closed:
                return
        for part in await _arun(held.checked(last=True), asked, config):
            yield part
    finally:
        await _aclose(chunks)


def guard_agent_stream(
    agent: Runnable[Any, Any],
    input: Any,  # noqa: A002
    guards: Guard | Sequence[Guard],
    *,
    stream_mode: str | Sequence[str] = "messages",
    hold: StreamHold | None = None,
    replacement: Replacement | None = None,
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
        guards: Who checks; of several the strictest wins.
        stream_mode: Only `messages`.
        hold: How much is held back; sentences by default.
        replacement: What is said instead; the policy's sentence when absent.
        config: Handed on to the agent and the students.
        **options: Other arguments of the graph's `stream`.

    Raises:
        InputError: The mode carries the whole state, hence cannot be guarded from outside.
        GuardrailError: The policy says to raise.
    """
    _refuse(stream_mode, options)
    asked = placed(guards, "output")
    helds: dict[Any, tuple[Held[Any], Any]] = {}
    stream = agent.stream(input, config, stream_mode="messages", **options)
    try:
        for message, metadata in stream:
            held, _ = helds.setdefault(message.id, (Held(hold or StreamHold(), replacement), metadata))
            held.add(message)
            for part in _run(held.checked(last=_is_last(message)), asked, config):
                yield part, metadata
            if held.closed:
                return
        for held, metadata in helds.values():
            for part in _run(held.checked(last=True), asked, config):
                yield part, metadata
            if held.closed:
                return
    finally:
        _close(stream)


async def aguard_agent_stream(
    agent: Runnable[Any, Any],
    input: Any,  # noqa: A002
    guards: Guard | Sequence[Guard],
    *,
    stream_mode: str | Sequence[str] = "messages",
    hold: StreamHold | None = None,
    replacement: Replacement | None = None,
    config: RunnableConfig | None = None,
    **options: Any,
) -> AsyncIterator[tuple[BaseMessage, dict[str, Any]]]:
    """Stream the messages of an agent or any compiled graph without blocking the event loop; see `guard_agent_stream`.

    Args:
        agent: The compiled graph.
        input: Its input.
        guards: Who checks; of several the strictest wins.
        stream_mode: Only `messages`.
        hold: How much is held back; sentences by default.
        replacement: What is said instead; the policy's sentence when absent.
        config: Handed on to the agent and the students.
        **options: Other arguments of the graph's `astream`.

    Raises:
        InputError: The mode carries the whole state, hence cannot be guarded from outside.
        GuardrailError: The policy says to raise.
    """
    _refuse(stream_mode, options)
    asked = placed(guards, "output")
    helds: dict[Any, tuple[Held[Any], Any]] = {}
    stream = agent.astream(input, config, stream_mode="messages", **options)
    try:
        async for message, metadata in stream:
            held, _ = helds.setdefault(message.id, (Held(hold or StreamHold(), replacement), metadata))
            held.add(message)
            for part in await _arun(held.checked(last=_is_last(message)), asked, config):
                yield part, metadata
            if held.closed:
                return
        for held, metadata in helds.values():
            for part in await _arun(held.checked(last=True), asked, config):
                yield part, metadata
            if held.closed:
                return
    finally:
        await _aclose(stream)


async def aguard_event_stream(
    runnable: Runnable[Any, Any],
    input: Any,  # noqa: A002
    guards: Guard | Sequence[Guard],
    *,
    version: str = "v2",
    hold: StreamHold | None = None,
    replacement: Replacement | None = None,
    config: RunnableConfig | None = None,
    **options: Any,
) -> AsyncIterator[dict[str, Any]]:
    """Stream the events of a chain or graph; a model's tokens only after the guards allowed them.

    All other events come without their data, which would show what is still held: inputs, outputs and states. At a
    violation the neutral sentence is given and the run is stopped.

    Args:
        runnable: The chain or compiled graph.
        input: Its input.
        guards: Who checks; of several the strictest wins.
        version: Only `v2`.
        hold: How much is held back; sentences by default.
        replacement: What is said instead; the policy's sentence when absent.
        config: Handed on to the runnable and the students.
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
    asked = placed(guards, "output")
    helds: dict[str, tuple[Held[Any], dict[str, Any]]] = {}
    stream = cast("AsyncIterator[Any]", runnable.astream_events(input, config, version="v2", **options))
    try:
        async for event in stream:
            run_id = event["run_id"]
            held: Held[Any] | None
            if event["event"] == "on_chat_model_stream":
                held, _ = helds.setdefault(run_id, (Held(hold or StreamHold(), replacement), event))
                held.add(event["data"]["chunk"])
                for part in await _arun(held.checked(), asked, config):
                    yield {**event, "data": {"chunk": part}}
            else:
                held, first = helds.pop(run_id, (None, event))
                if held is not None:
                    for part in await _arun(held.checked(last=True), asked, config):
                        yield {**first, "data": {"chunk": part}}
                if held is None or not held.closed:
                    yield {**event, "data": {}}
            if held is not None and held.closed:
                return
    finally:
        await _aclose(stream)


class Held(Generic[Chunk]):
    """What of a stream was not handed on yet. Free of I/O: sync and async differ only in how they ask.

    Args:
        hold: How much is held back.
        replacement: What is said instead of a blocked part.
    """

    def __init__(self, hold: StreamHold, replacement: Replacement | None) -> None:
        self.closed = False
        self._hold = hold
        self._replacement = replacement
        self._like: Chunk | None = None
        self._chunks: list[Chunk] = []
        self._texts: list[str] = []
        self._said = ""
        self._cut = 0
        self._calls: dict[Any, str] = {}
        self._unreadable: list[Content] = []
        self._final: list[Any] | None = None
        self._flag: Decision | None = None
        self._flagged = False

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in.

        Raises:
            InputError: It is neither text nor a message.
        """
        if not isinstance(chunk, str | BaseMessage):
            msg = (
                f"a stream of {type(chunk).__name__} cannot be guarded, only one of texts or messages; guard the step "
                "before it, or use invoke"
            )
            raise InputError(msg)
        if self._like is None:
            self._like = chunk
        self._chunks.append(chunk)
        content = Content(chunk) if isinstance(chunk, str) else read_message(chunk, calls=False)
        self._texts.append(content.text)
        if content.unreadable:
            self._unreadable.append(content)
        for key, words in _calls(chunk):
            self._calls[key] = self._calls.get(key, "") + words

    def checked(self, *, last: bool = False) -> Generator[Any, Decision, list[Chunk]]:
        """Yields what is to be checked, is sent the decisions, returns what may go out.

        Args:
            last: Whether nothing will follow, so that everything is checked.
        """
        free: list[Chunk] = []
        while (value := self._due(last)) is not None:
            decision: Decision = yield value
            if not decision.enforce().allowed:
                self.closed = True
                return [*free, self._instead(decision)]
            free += self._settle(decision)
        if last:
            free += self._free(sum(map(len, self._texts)))
            self._final, self._calls, self._unreadable = None, {}, []
        return free

    def _due(self, last: bool) -> Any | None:
        text = "".join(self._texts)
        if last:
            if self._final is None:
                self._final = [self._said + text] if text.strip() else []
                self._final += ["\n".join(self._calls.values())] if self._calls else []
                self._final += self._unreadable
            return self._final[0] if self._final else None
        # What follows a tool call or a picture waits with it, so that the order stays.
        if self._calls or self._unreadable or self._hold.by == "all":
            return None
        self._cut = self._boundary(text)
        return self._said + text[: self._cut] if text[: self._cut].strip() else None

    def _settle(self, decision: Decision) -> list[Chunk]:
        if decision.action == "flag" and not self._flagged:
            self._flag = decision
        if self._final is not None:
            self._final.pop(0)
            return []
        kept = self._hold.context_chars
        self._said = (self._said + "".join(self._texts)[: self._cut])[-kept:] if kept else ""
        return self._free(self._cut)

    def _boundary(self, text: str) -> int:
        hold = self._hold
        full = len(text) >= hold.max_chars
        cut = 0
        if hold.by == "sentence":
            cut = max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)
        if full and cut < hold.min_chars:
            cut = max(text.rfind(" "), text.rfind("\n")) + 1
        cut = self._splittable(cut)
        if cut >= hold.min_chars:
            return cut
        return len(text) if full else 0

    def _splittable(self, cut: int) -> int:
        """The last place before `cut` where the held chunks can be parted."""
        start = 0
        for chunk, text in zip(self._chunks, self._texts, strict=True):
            if start + len(text) > cut:
                whole = isinstance(chunk, BaseMessage) and chunk.content != text
                return start if whole else cut
            start += len(text)
        return cut

    def _free(self, length: int) -> list[Chunk]:
        free: list[Chunk] = []
        while self._chunks and len(self._texts[0]) <= length:
            length -= len(self._texts.pop(0))
            free.append(self._chunks.pop(0))
        if length:
            head, self._chunks[0] = _split(self._chunks[0], length)
            self._texts[0] = self._texts[0][length:]
            free.append(head)
        if self._flag is not None and free and isinstance(free[0], BaseMessage):
            # Once: streamed parts are added up, and so would be what two marks say.
            free[0], self._flag, self._flagged = marked(free[0], self._flag), None, True
        return free

    def _instead(self, decision: Decision) -> Chunk:
        if callable(self._replacement):
            return cast("Chunk", self._replacement(decision))
        words = self._replacement or decision.message
        like = self._like
        if not isinstance(like, BaseMessage):
            return cast("Chunk", words)
        kind = AIMessageChunk if isinstance(like, AIMessageChunk) else AIMessage
        return cast("Chunk", marked(kind(content=words, id=like.id), decision))


def _split(chunk: Any, length: int) -> tuple[Any, Any]:
    if isinstance(chunk, str):
        return chunk[:length], chunk[length:]
    # What comes once with a chunk, such as token counts, stays with its second part.
    known = {key: value for key in ("role", "tool_call_id", "name") if (value := getattr(chunk, key, None)) is not None}
    head = type(chunk)(content=chunk.content[:length], id=chunk.id, **known)
    return head, chunk.model_copy(update={"content": chunk.content[length:]})


def _calls(chunk: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(chunk, AIMessageChunk):
        for part in chunk.tool_call_chunks:
            name = part.get("name")
            yield part.get("index"), (f"{name} " if name else "") + (part.get("args") or "")
    elif isinstance(chunk, AIMessage):
        for call in (*chunk.tool_calls, *chunk.invalid_tool_calls):
            yield call["id"], call_text(call)


def _run(
    steps: Generator[Any, Decision, list[Any]], guards: Sequence[Guard], config: RunnableConfig | None
) -> list[Any]:
    try:
        value = next(steps)
        while True:
            value = steps.send(check_all(guards, value, config))
    except StopIteration as done:
        return cast("list[Any]", done.value)


async def _arun(
    steps: Generator[Any, Decision, list[Any]], guards: Sequence[Guard], config: RunnableConfig | None
) -> list[Any]:
    try:
        value = next(steps)
        while True:
            value = steps.send(await acheck_all(guards, value, config))
    except StopIteration as done:
        return cast("list[Any]", done.value)


# The model behind a stream that was cut off must not go on writing.
def _close(stream: object) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()


async def _aclose(stream: object) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _is_last(message: BaseMessage) -> bool:
    return not isinstance(message, AIMessageChunk) or message.chunk_position == "last"


def _refuse(stream_mode: str | Sequence[str], options: dict[str, Any]) -> None:
    modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
    if modes != ["messages"]:
        msg = (
            f"stream_mode {stream_mode!r} cannot be guarded from outside, since other modes than 'messages' carry the "
            "whole state; put PLDGuardrailMiddleware(apply_to_output=True) into the agent, which is safe in every mode"
        )
        raise InputError(msg)
    unknown = {"subgraphs", "version"} & set(options)
    if unknown:
        msg = f"{unknown.pop()} changes the shape of the stream, which then cannot be guarded; leave it out"
        raise InputError(msg)
