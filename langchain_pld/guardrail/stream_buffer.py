"""What of one streamed message was not handed on yet: how much is buffered, and what a check sets free."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_pld.errors import InputError
from langchain_pld.guardrail.content import Content, call_text, read_message
from langchain_pld.guardrail.decision import Decision
from langchain_pld.guardrail.guard import Guard, check_steps
from langchain_pld.guardrail.message_edits import BlockedMessage, annotate
from langchain_pld.steps import Steps

__all__ = ["StreamBuffer", "UncheckedText"]

# Begun nowhere but at the start of a run of marks: a search from each of them would take the square of its length.
_SENTENCE_END = re.compile(
    r"(?<![.!?\u2026\uff01\uff1f])[.!?\u2026\uff01\uff1f]+[\"'\u2019\u201d)\]]*\s+|[\u3002\uff01\uff1f]|\n+"
)


class StreamBuffer(BaseModel):
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
    def _in_order(self) -> StreamBuffer:
        if self.min_chars > self.max_chars:
            msg = f"min_chars ({self.min_chars}) is larger than max_chars ({self.max_chars})"
            raise ValueError(msg)
        return self


class UncheckedText:
    """The chunks of one message that wait for their check.

    Args:
        buffer: How much is held back.
        guards: Who checks.
        blocked_message: What is said instead of a blocked part.
        config: The config of the run that the checks are part of.
    """

    def __init__(
        self,
        buffer: StreamBuffer,
        guards: Sequence[Guard],
        blocked_message: BlockedMessage | None,
        config: RunnableConfig | None,
    ) -> None:
        self.blocked = False
        """Whether a part was blocked, so that the stream ends."""
        self._buffer = buffer
        self._guards = guards
        self._blocked_message = blocked_message
        self._config = config
        self._first: Any = None
        self._chunks: list[Any] = []
        self._texts: list[str] = []
        self._context = ""
        self._calls: dict[Any, str] = {}
        self._unreadable: list[Content] = []
        self._flag: Decision | None = None
        self._has_flag = False

    def add(self, chunk: Any) -> None:
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
        self._first = chunk if self._first is None else self._first
        self._chunks.append(chunk)
        content = Content(chunk) if isinstance(chunk, str) else read_message(chunk, calls=False)
        self._texts.append(content.text)
        if content.unreadable:
            self._unreadable.append(content)
        for key, words in _call_texts(chunk):
            self._calls[key] = self._calls.get(key, "") + words

    def release(self, *, last: bool = False) -> Steps[list[Any]]:
        """What may go out, after its check; in place of a blocked part comes the message that it was blocked.

        Args:
            last: Whether nothing will follow, so that everything is checked.
        """
        free: list[Any] = []
        if last:
            text = "".join(self._texts)
            rest: list[Any] = [self._context + text] if text.strip() else []
            rest += ["\n".join(self._calls.values())] if self._calls else []
            for value in (*rest, *self._unreadable):
                if (message := (yield from self._check(value))) is not None:
                    return [message]
            self._calls, self._unreadable = {}, []
            return self._take(len(text))
        while cut := self._due():
            said = self._context + "".join(self._texts)[:cut]
            if (message := (yield from self._check(said))) is not None:
                return [*free, message]
            self._context = said[-self._buffer.context_chars :] if self._buffer.context_chars else ""
            free += self._take(cut)
        return free

    def _check(self, value: Any) -> Steps[Any]:
        """What is said instead of a blocked part; `None` for one that may go out."""
        decision = yield from check_steps(self._guards, value, self._config)
        if decision.enforce().allowed:
            if decision.action == "flag" and not self._has_flag:
                self._flag = decision
            return None
        self.blocked = True
        if callable(self._blocked_message):
            return self._blocked_message(decision)
        words, like = self._blocked_message or decision.message, self._first
        if not isinstance(like, BaseMessage):
            return words
        kind = AIMessageChunk if isinstance(like, AIMessageChunk) else AIMessage
        return annotate(kind(content=words, id=like.id), decision)

    def _due(self) -> int:
        """Characters that are to be checked now; 0 where more is waited for."""
        # What follows a tool call or a picture waits with it, so that the order stays.
        if self._calls or self._unreadable or self._buffer.by == "all":
            return 0
        text, buffer = "".join(self._texts), self._buffer
        full, cut = len(text) >= buffer.max_chars, 0
        if buffer.by == "sentence":
            cut = max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)
        if full and cut < buffer.min_chars:
            cut = max(text.rfind(" "), text.rfind("\n")) + 1
        cut = self._splittable(cut)
        if cut < buffer.min_chars:
            cut = len(text) if full else 0
        return cut if text[:cut].strip() else 0

    def _splittable(self, cut: int) -> int:
        """The last place up to `cut` where the chunks can be parted: only one whose content is plain text can."""
        start = 0
        for chunk, text in zip(self._chunks, self._texts, strict=True):
            if start + len(text) > cut:
                return start if isinstance(chunk, BaseMessage) and chunk.content != text else cut
            start += len(text)
        return cut

    def _take(self, length: int) -> list[Any]:
        """Take chunks of so many characters out."""
        taken: list[Any] = []
        while self._chunks and len(self._texts[0]) <= length:
            length -= len(self._texts.pop(0))
            taken.append(self._chunks.pop(0))
        if length:
            head, self._chunks[0] = _split(self._chunks[0], length)
            self._texts[0] = self._texts[0][length:]
            taken.append(head)
        if self._flag is not None and taken and isinstance(taken[0], BaseMessage):
            # Once: streamed parts are added up, and so would be what two notes say.
            taken[0], self._flag, self._has_flag = annotate(taken[0], self._flag), None, True
        return taken


def _split(chunk: Any, length: int) -> tuple[Any, Any]:
    if isinstance(chunk, str):
        return chunk[:length], chunk[length:]
    # What comes once with a chunk, such as token counts, stays with its second part.
    fields = {key: getattr(chunk, key, None) for key in ("id", "role", "tool_call_id", "name")}
    head = type(chunk)(
        content=chunk.content[:length], **{key: value for key, value in fields.items() if value is not None}
    )
    return head, chunk.model_copy(update={"content": chunk.content[length:]})


def _call_texts(chunk: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(chunk, AIMessageChunk):
        for part in chunk.tool_call_chunks:
            name = part.get("name")
            yield part.get("index"), (f"{name} " if name else "") + (part.get("args") or "")
    elif isinstance(chunk, AIMessage):
        for call in (*chunk.tool_calls, *chunk.invalid_tool_calls):
            yield call["id"], call_text(call)
