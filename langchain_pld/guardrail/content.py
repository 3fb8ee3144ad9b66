"""Reading what a guard checks: every word of it, and whether it holds anything that no classifier can read.

Each place that checks something reads it here. A part that is not known is unreadable content, which the policy decides
about; it never counts as nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

__all__ = [
    "Content",
    "Stage",
    "call_text",
    "has_invisible",
    "read",
    "read_message",
    "stage_messages",
    "stage_value",
    "strip_invisible",
]

Stage = Literal["input", "output", "tool_call", "tool_result"]
"""Where in an agent a guard stands."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What was read of a value."""

    text: str
    """All its words."""
    unreadable: bool = False
    """Whether it holds parts that no classifier can read: images, sound, files, objects, parts of an unknown kind."""

    @classmethod
    def concat(cls, parts: Sequence[Content]) -> Content:
        """Several contents as one, a line each."""
        return cls("\n".join(part.text for part in parts if part.text), any(part.unreadable for part in parts))


def read(value: Any) -> Content:
    """Read any value: text, messages, a prompt value, a mapping, a list, a model's fields.

    One message gives its words; several give a transcript, `role: text` each. A mapping with a single `text`, `input`
    or `messages` gives that; any other gives all its entries. Nothing is left out.
    """
    return _read(value, 0)


def read_message(message: BaseMessage, *, calls: bool = True) -> Content:
    """Read one message: text, reasoning, refusals, and whatever else its provider put into it.

    Args:
        message: The message.
        calls: Read its tool calls too. Without them, a call that will not be run (an invalid or a legacy one) is read
            all the same: no other stage would see it.
    """
    known = {call["id"] for call in getattr(message, "tool_calls", ())}
    # The pieces of a streamed call belong to a call that whoever reads the stream puts together.
    pieces = not calls and bool(getattr(message, "tool_call_chunks", ()))
    parts = list(_blocks(message.content, known, pieces=pieces))
    for key, value in message.additional_kwargs.items():
        if key == "tool_calls" and isinstance(value, list):
            copies = [call for call in value if isinstance(call, dict) and (pieces or call.get("id") in known)]
            parts += [_strings(call) for call in value if call not in copies]
        elif key == "audio":
            parts.append(Content(_strings(value).text, unreadable=True))
        elif key not in _TECHNICAL and not key.startswith("__"):
            parts.append(_strings(value))
    if isinstance(message, AIMessage):
        parts += [Content(call_text(call)) for call in message.invalid_tool_calls if not pieces]
        parts += [Content(call_text(call)) for call in message.tool_calls if calls]
    # The fields under which some integrations repeat a word for word copy of the text say nothing new.
    unique = {(part.text, part.unreadable): part for part in parts}
    return Content.concat(list(unique.values()))


def call_text(call: Any) -> str:
    """A tool call as the text that is checked: its name and its arguments."""
    arguments = call["args"]
    words = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    return f"{call['name']} {words}"


def stage_messages(messages: Sequence[BaseMessage], stage: Stage) -> list[BaseMessage]:
    """The part of a conversation that a stage checks; an empty list where there is nothing.

    `input`: what the user wrote last, be it several messages in a row. `output` and `tool_call`: the last answer of the
    model. `tool_result`: the tool messages behind it.

    Args:
        messages: The conversation, oldest first.
        stage: Where the guard stands.
    """
    if stage == "tool_result":
        return _turn(messages, ToolMessage)
    if stage == "input":
        return _turn(messages, HumanMessage, ChatMessage)
    return _turn(messages, AIMessage)[-1:]


def stage_value(messages: Sequence[BaseMessage], stage: Stage) -> Any:
    """What a stage hands to its guards of a conversation: a text where everything in it can be read."""
    part = stage_messages(messages, stage)
    if stage == "tool_call":
        calls = [call for message in part if isinstance(message, AIMessage) for call in _all_calls(message)]
        return "\n".join(map(call_text, calls))
    if stage == "output":
        return Content.concat([read_message(message, calls=False) for message in part])
    return part


def has_invisible(text: str) -> bool:
    """Whether a text holds characters that nobody sees but a model reads: tags, selectors, controls, blank letters."""
    return _INVISIBLE.search(text) is not None


def strip_invisible(value: Any) -> Any:
    """The value without invisible characters: a text, messages, a prompt value, lists and mappings of them."""
    if isinstance(value, str):
        return _INVISIBLE.sub("", value)
    if isinstance(value, BaseMessage):
        changes = {
            "content": strip_invisible(value.content),
            "additional_kwargs": strip_invisible(value.additional_kwargs),
        }
        return value.model_copy(update=changes)
    if isinstance(value, PromptValue):
        return strip_invisible(value.to_messages())
    if isinstance(value, Mapping):
        return {key: strip_invisible(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(strip_invisible, value)) if type(value) in {list, tuple} else value
    return value


def _all_calls(message: AIMessage) -> list[Any]:
    return [*message.tool_calls, *message.invalid_tool_calls]


def _turn(messages: Sequence[BaseMessage], *kinds: type[BaseMessage]) -> list[Any]:
    """The last messages of some kinds that stand together; other kinds behind them are passed over."""
    turn: list[BaseMessage] = []
    for message in reversed(messages):
        if isinstance(message, kinds):
            turn.insert(0, message)
        elif turn:
            break
    return turn


_DEPTH = 40
"""Levels of nesting that are read; what lies deeper is unreadable."""
_PLAIN = (bool, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, PurePath)
_MESSAGE_KEYS = {"role", "type", "content", "name", "id", "tool_calls", "tool_call_id", "additional_kwargs"}
_TEXT_KEYS = {"text", "input", "messages"}


def _read(value: Any, depth: int) -> Content:
    if isinstance(value, Content):
        return value
    if value is None or isinstance(value, str):
        return Content(value or "")
    if isinstance(value, BaseMessage):
        return read_message(value)
    if isinstance(value, enum.Enum):
        return _read(value.value, depth + 1)
    if isinstance(value, _PLAIN):
        return Content(str(value))
    if depth > _DEPTH:
        return Content("", unreadable=True)
    if isinstance(value, PromptValue):
        return _read(value.to_messages(), depth + 1)
    if isinstance(value, BaseModel):
        value = dict(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return _read_mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _read_list(list(value), depth)
    return Content("", unreadable=True)


def _read_mapping(value: Mapping[Any, Any], depth: int) -> Content:
    if "role" in value and "content" in value and set(value) <= _MESSAGE_KEYS and (found := _messages([value])):
        return read_message(found[0])
    if len(value) == 1 and (keys := set(value) & _TEXT_KEYS):
        return _read(value[keys.pop()], depth + 1)
    entries = [(str(key), _read(part, depth + 1)) for key, part in value.items()]
    lines = [f"{key}: {part.text}" for key, part in entries if part.text]
    return Content("\n".join(lines), any(part.unreadable for _, part in entries))


def _read_list(value: list[Any], depth: int) -> Content:
    messages = value if all(isinstance(part, BaseMessage) for part in value) else _messages(value)
    if not messages:
        return Content.concat([_read(part, depth + 1) for part in value])
    parts = [(message.type, read_message(message)) for message in messages]
    if len(parts) == 1:
        return parts[0][1]
    lines = [f"{role}: {part.text}" for role, part in parts if part.text.strip()]
    return Content("\n".join(lines), any(part.unreadable for _, part in parts))


def _messages(value: list[Any]) -> list[BaseMessage] | None:
    """The messages that LangChain makes of tuples and dicts; `None` where they are none, or more than messages."""
    for part in value:
        if isinstance(part, Mapping):
            if not ("content" in part and ("role" in part or "type" in part) and set(part) <= _MESSAGE_KEYS):
                return None
        elif isinstance(part, tuple):
            if len(part) != 2 or part[0] not in _ROLES:
                return None
        elif not isinstance(part, BaseMessage):
            return None
    try:
        return convert_to_messages(value)
    except (ValueError, TypeError, NotImplementedError, KeyError):
        return None


_ROLES = {"human", "user", "ai", "assistant", "system", "developer"}
_READABLE = {
    *("text", "output_text", "text_delta", "input_text", "refusal", "reasoning", "thinking", "summary_text"),
    *("reasoning_text", "reasoning_content"),
}
"""Content blocks whose strings are all there is to them."""
_CALLS = {
    *("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "input_json_delta"),
    *("server_tool_use", "server_tool_call", "server_tool_call_chunk"),
}
_TECHNICAL = {
    *("type", "id", "call_id", "index", "signature", "thought_signature", "encrypted_content", "status", "phase"),
    *("cache_control", "tool_call_id", "format", "logprobs"),
}
"""Fields that hold no words for a reader."""
_PAYLOAD = {
    *("data", "base64", "url", "image_url", "source", "file", "file_data", "file_id", "input_audio", "inline_data"),
    *("image", "audio", "video", "document", "media"),
}
"""Fields of unreadable blocks with what makes them so; as text they would be megabytes of digits."""


def _blocks(content: Any, known: set[Any], *, pieces: bool) -> Iterator[Content]:
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, str):
            yield Content(block)
            continue
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in _CALLS:
            # A copy of a call that `tool_calls` has as well says nothing new.
            if not pieces and not known & {block.get("id"), block.get("call_id")} - {None}:
                yield _strings(block)
        elif kind in _READABLE:
            yield _strings(block)
        elif kind != "redacted_thinking":  # encrypted: nobody can read it but the provider
            words = {key: part for key, part in block.items() if key not in _PAYLOAD} if isinstance(block, dict) else {}
            yield Content(_strings(words).text, unreadable=True)


def _strings(value: Any, depth: int = 0) -> Content:
    """Every string in a block, in order, without its technical fields."""
    if isinstance(value, str):
        return Content(value)
    if value is None or isinstance(value, bool | int | float):
        return Content("")
    if isinstance(value, BaseModel):
        value = dict(value)
    if depth > _DEPTH or not isinstance(value, dict | list | tuple):
        return Content("", unreadable=True)
    inner = [part for key, part in value.items() if key not in _TECHNICAL] if isinstance(value, dict) else list(value)
    return Content.concat([_strings(part, depth + 1) for part in inner])


# Nobody sees these, but a model reads them. One joiner or one emoji selector between two visible characters is
# spelling; a row of them carries a message.
_HIDDEN = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ue000-\uf8ff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
)
_INVISIBLE = re.compile(
    f"[{_HIDDEN}]|(?<=[{_HIDDEN}\u200c\u200d])[\u200c\u200d\ufe0e\ufe0f]|(?<=[\ufe0e\ufe0f])[\ufe0e\ufe0f\u200c]|^[\u200c\u200d\ufe0e\ufe0f]"
)
