"""What of one streamed message was not handed on yet: how much is buffered, and what a check sets free."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_pld.errors import InputError
from langchain_pld.guardrail.content import Content, is_technical, read_message
from langchain_pld.guardrail.decision import Decision
from langchain_pld.guardrail.guard import Guard, check_steps
from langchain_pld.guardrail.message_edits import BlockedMessage, annotate
from langchain_pld.guardrail.streaming import END
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

    What a person reads together is checked together: text and reasoning are each checked with what was said before in
    the same channel. From the first chunk on that holds anything else (a tool call, a picture, two channels at once),
    all is held back until the message is complete, and is then checked as a whole.

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
        self._channel: str = "text"
        self._context: dict[str, str] = {}
        self._chunks: deque[Any] = deque()
        self._texts: deque[str] = deque()
        self._text = ""
        self._end = self._searched = 0
        self._whole = buffer.by == "all"
        self._flag: Decision | None = None
        self._has_flag = False

    def release(self, chunk: Any = END, *, last: bool = False) -> Steps[list[Any]]:
        """Take a chunk in; gives what may go out, after its check. A blocked part is replaced by a message.

        Args:
            chunk: Text or a message, if there is one.
            last: Whether nothing will follow, so that everything is checked.

        Raises:
            InputError: The chunk is neither text nor a message.
        """
        free: list[Any] = []
        if chunk is not END:
            channel = _channel_of(chunk)
            if channel is None:
                self._whole = True
            elif channel not in ("", self._channel) and not self._whole:
                free += yield from self._release_rest()
                self._channel = channel
            self._add(chunk)
        if last and not self.blocked:
            free += yield from self._release_rest()
        while not (last or self.blocked or self._whole) and (cut := self._due()):
            free += yield from self._release(cut)
        return free

    def _add(self, chunk: Any) -> None:
        if self._first is None:
            self._first = chunk
            name = getattr(chunk, "name", None)
            if name and not is_technical(name):
                self._context["text"] = f"{name}\n"
        text = chunk if isinstance(chunk, str) else read_message(chunk, calls=False, name=False).text
        self._chunks.append(chunk)
        self._texts.append(text)
        self._text += "" if self._whole else text

    def _release_rest(self) -> Steps[list[Any]]:
        """All that waits, after its check."""
        if not self._whole:
            return (yield from self._release(len(self._text)))
        chunks = list(self._chunks)
        message = yield from self._check(_read_all(chunks, self._context))
        if message is not None:
            return [message]
        self._chunks.clear()
        self._texts.clear()
        self._text, self._whole = "", self._buffer.by == "all"
        return self._with_flag(chunks)

    def _release(self, length: int) -> Steps[list[Any]]:
        """The first characters that wait, after their check."""
        part = self._text[:length]
        if part.strip():
            said = self._context.get(self._channel, "") + part
            if (message := (yield from self._check(said))) is not None:
                return [message]
            self._context[self._channel] = said[-self._buffer.context_chars :] if self._buffer.context_chars else ""
        self._text = self._text[length:]
        self._end = self._searched = 0
        return self._with_flag(self._take(length))

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
        text, buffer = self._text, self._buffer
        if not text:
            return 0
        if buffer.by == "sentence":
            for match in _SENTENCE_END.finditer(text, self._searched):
                self._end = match.end()
            # What may yet become the end of a sentence is looked at again.
            self._searched = max(self._end, len(text) - _LONGEST_END)
        full, cut = len(text) >= buffer.max_chars, self._end
        if full and cut < buffer.min_chars:
            cut = max(text.rfind(" "), text.rfind("\n")) + 1
        cut = self._splittable(cut) if cut >= buffer.min_chars else 0
        return cut if cut >= buffer.min_chars else len(text) if full else 0

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
            length -= len(self._texts.popleft())
            taken.append(self._chunks.popleft())
        if length:
            head, self._chunks[0] = _split(self._chunks[0], length)
            self._texts[0] = self._texts[0][length:]
            taken.append(head)
        return taken

    def _with_flag(self, chunks: list[Any]) -> list[Any]:
        if self._flag is not None and chunks and isinstance(chunks[0], BaseMessage):
            # Once: streamed parts are added up, and so would be what two notes say.
            chunks[0], self._flag, self._has_flag = annotate(chunks[0], self._flag), None, True
        return chunks


_LONGEST_END = 16
"""Characters of a sentence's end that may come in pieces; a longer one is found when more text follows."""
_CHANNELS = {
    **dict.fromkeys(("text", "output_text", "text_delta"), "text"),
    **dict.fromkeys(("reasoning", "thinking", "summary_text", "reasoning_text", "reasoning_content"), "reasoning"),
}


def _channel_of(chunk: Any) -> str | None:
    """Where a chunk's words are shown, `text` or a kind of reasoning; empty without words, `None` for anything else.

    Raises:
        InputError: It is neither text nor a message.
    """
    if isinstance(chunk, str):
        return "text"
    if not isinstance(chunk, BaseMessage):
        msg = (
            f"a stream of {type(chunk).__name__} cannot be guarded, only one of texts or messages; guard the step "
            "before it, or use invoke"
        )
        raise InputError(msg)
    fields = ("tool_call_chunks", "tool_calls", "invalid_tool_calls")
    if any(getattr(chunk, name, None) for name in fields):
        return None
    blocks = [] if isinstance(chunk.content, str) else chunk.content
    kinds = [_CHANNELS.get(str(block.get("type"))) if isinstance(block, dict) else "text" for block in blocks]
    kinds += ["text"] if isinstance(chunk.content, str) and chunk.content else []
    # An integration may put reasoning beside the content; any other words there are read with the whole.
    beside = {key for key, value in chunk.additional_kwargs.items() if value}
    kinds += [key if key == "reasoning_content" else None for key in beside]
    if len(set(kinds)) > 1 or None in kinds:
        return None
    return kinds[0] if kinds else ""


def _read_all(chunks: Sequence[Any], context: Mapping[str, str]) -> Content:
    """What a reader of all chunks gets: each channel as one text, the calls with their arguments parsed."""
    texts = [chunk if isinstance(chunk, str) else str(chunk.text) for chunk in chunks]
    parts = [Content(context.get("text", "") + "".join(texts))]
    messages = [chunk for chunk in chunks if isinstance(chunk, BaseMessage)]
    if chunks and all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        try:
            messages = [add_ai_message_chunks(*chunks)]
            # Blocks of a kind that others stand between are shown as one text.
            reasoning = "".join(str(block.get("reasoning", "")) for block in messages[0].content_blocks)
        except Exception:  # pieces that do not fit together
            return Content("", unreadable=True)
        beside = str(messages[0].additional_kwargs.get("reasoning_content", ""))
        parts += [
            Content(context.get("reasoning", "") + reasoning),
            Content(context.get("reasoning_content", "") + beside),
        ]
    return Content.concat([*parts, *map(read_message, messages)])


def _split(chunk: Any, length: int) -> tuple[Any, Any]:
    if isinstance(chunk, str):
        return chunk[:length], chunk[length:]
    # What comes once with a chunk, such as token counts, stays with its second part.
    fields = {key: getattr(chunk, key, None) for key in ("id", "role", "tool_call_id", "name")}
    head = type(chunk)(
        content=chunk.content[:length], **{key: value for key, value in fields.items() if value is not None}
    )
    return head, chunk.model_copy(update={"content": chunk.content[length:]})
