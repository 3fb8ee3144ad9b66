"""Reading what a guard checks: every word, and whether there are parts that no classifier can read.

Everything that is checked is read here. Unknown parts are unreadable content, about which the policy decides; they
never count as nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import PurePath
from typing import Any, Literal, ParamSpec

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

__all__ = [
    "Content",
    "Stage",
    "call_text",
    "is_from_user",
    "is_technical",
    "read",
    "read_call",
    "read_message",
    "stage_messages",
    "stage_value",
]

P = ParamSpec("P")
Stage = Literal["input", "output", "tool_call", "tool_result"]
"""Where in an agent a guard stands."""


@dataclasses.dataclass(frozen=True)
class Content:
    """The content of a value."""

    text: str
    """All its words."""
    unreadable: bool = False
    """Whether it holds parts that no classifier can read: images, sound, files, objects, parts of an unknown kind."""

    @classmethod
    def concat(cls, parts: Sequence[Content]) -> Content:
        """Several contents as one, one per line, without repetitions."""
        unique = dict.fromkeys(part.text for part in parts if part.text)
        return cls("\n".join(unique), any(part.unreadable for part in parts))


def read(value: Any) -> Content:
    """Read any value: text, messages, a prompt value, a mapping, a list, a model's fields.

    One message gives its words; several give a transcript, `role: text` each. A mapping with a single `text`, `input`
    or `messages` gives that; any other gives all its entries. Nothing is left out, and nothing raises: what cannot be
    read is unreadable.
    """
    return _read(value, 0)


def read_message(message: BaseMessage, *, calls: bool = True, name: bool = True) -> Content:
    """Read one message: text, name, reasoning, refusals, and whatever else its provider put into it.

    Args:
        message: The message.
        calls: Read its tool calls too. Without them, a call that will not be run (an invalid or a legacy one) is read
            all the same: no other stage would see it.
        name: Read the name of its author too.
    """
    parts: list[Content] = []
    try:
        parts.extend(_message_parts(message, calls=calls, name=name))
    except Exception:  # as in `_contain`; what was read before stays
        parts.append(Content("", unreadable=True))
    return Content.concat(parts)


def call_text(call: Any) -> str:
    """A tool call as the text that is checked: its name and its arguments."""
    return _call_text(call) or f"{call['name']} {secrets.token_hex()}"  # so that it is never taken for another one


def read_call(call: Any) -> Content:
    """A tool call as the content that is checked."""
    text = _call_text(call)
    return Content(text or call["name"], unreadable=text is None)


def _call_text(call: Any) -> str | None:
    try:
        arguments = _parsed(call["args"])
        return f"{call['name']} {arguments if isinstance(arguments, str) else _plain(arguments)}"
    except (RecursionError, ValueError, TypeError):  # nested without end, numbers without end
        return None


def _plain(value: Any) -> str:
    """A value as JSON whose texts stand there as they are: escapes would hide words."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f'"{key}": {_plain(part)}' for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


def _parsed(arguments: Any) -> Any:
    """Arguments that a provider gives as JSON, where they can be parsed."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def stage_messages(messages: Sequence[BaseMessage], stage: Stage) -> list[BaseMessage]:
    """The part of a conversation that a stage checks; an empty list where there is nothing.

    `input`: what came between the model's last answer and the user's last word, in whatever role; a system prompt in
    front is the application's own. `output` and `tool_call`: the last answer of the model. `tool_result`: the tool
    messages behind it.

    Args:
        messages: The conversation, oldest first.
        stage: Where the guard stands.
    """
    if stage == "input":
        return _turn_of_user(messages)
    kind = ToolMessage if stage == "tool_result" else AIMessage
    turn: list[BaseMessage] = []
    for message in reversed(messages):
        if isinstance(message, kind):
            turn.insert(0, message)
        elif turn:
            break
    return turn if stage == "tool_result" else turn[-1:]


def stage_value(messages: Sequence[BaseMessage], stage: Stage) -> Any:
    """What a stage hands to its guards of a conversation."""
    part = stage_messages(messages, stage)
    if stage == "tool_call":
        calls = [call for message in part for call in (*message.tool_calls, *message.invalid_tool_calls)]  # type: ignore[attr-defined]
        return Content.concat([read_call(call) for call in calls])
    if stage == "output":
        return Content.concat([read_message(message, calls=False) for message in part])
    return part


def is_from_user(message: BaseMessage) -> bool:
    """Whether a message is what the user wrote."""
    role = message.role if isinstance(message, ChatMessage) else message.type
    return isinstance(message, HumanMessage) or role.casefold() in {"human", "user"}


def _turn_of_user(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    users = [number for number, message in enumerate(messages) if is_from_user(message)]
    last = users[-1] if users else len(messages) - 1
    answers = [number for number in range(last) if isinstance(messages[number], AIMessage)]
    start = answers[-1] + 1 if answers else 0
    while users and start < last and not answers and isinstance(messages[start], SystemMessage):
        start += 1
    later = [message for message in messages[last + 1 :] if not isinstance(message, AIMessage | ToolMessage)]
    return [*messages[start : last + 1], *later]


_DEPTH = 40
"""Levels of nesting that are read; what lies deeper is unreadable."""
_PLAIN = (bool, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, PurePath)
_MESSAGE_KEYS = {"role", "type", "content", "name", "id", "tool_calls", "tool_call_id", "additional_kwargs"}
_TEXT_KEYS = {"text", "input", "messages"}
_ROLES = {"human", "user", "ai", "assistant", "system", "developer"}


def _contain(read: Callable[P, Content]) -> Callable[P, Content]:
    """Make what raises unreadable by itself, so that it hides nothing beside it: anybody may send such values."""

    @wraps(read)
    def contained(*args: P.args, **kwargs: P.kwargs) -> Content:
        try:
            return read(*args, **kwargs)
        except Exception:  # nested without end, of the wrong types, numbers without end
            return Content("", unreadable=True)

    return contained


@_contain
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
    lines = [f"{key}: {part.text}" for key, part in entries if part.text or not is_technical(key)]
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
            if len(part) != 2 or not isinstance(part[0], str) or part[0] not in _ROLES:
                return None
        elif not isinstance(part, BaseMessage):
            return None
    try:
        return convert_to_messages(value)
    except Exception:  # LangChain raises what comes, AttributeError included
        return None


_CALLS = {"tool_use", "tool_call", "tool_call_chunk", "function_call", "function"}
"""Content blocks that may be copies of a call that `tool_calls` has as well."""
_READABLE = {
    *("text", "output_text", "text_delta", "input_text", "refusal", "reasoning", "thinking", "summary_text"),
    *("reasoning_text", "reasoning_content", "invalid_tool_call", "input_json_delta", "redacted_thinking"),
    *("server_tool_use", "server_tool_call", "server_tool_call_chunk"),
    *_CALLS,
}
"""Content blocks whose strings are all there is to them."""
_CALL_FIELDS = {"name", "args", "input", "arguments", "function", "partial_json"}
_TECHNICAL = {
    *("type", "id", "call_id", "index", "signature", "thought_signature", "encrypted_content", "status", "phase"),
    *("cache_control", "tool_call_id", "format", "logprobs", "data", "caller"),
}
"""Fields that hold no words for a reader, as long as they look like it."""
_PAYLOAD = {
    *("data", "base64", "url", "image_url", "source", "file", "file_data", "file_id", "input_audio", "inline_data"),
    *("image", "audio", "video", "document", "media"),
}
"""Fields of unreadable blocks with what makes them so; as text they would be megabytes of digits."""
_NO_WORDS = re.compile(r"[a-z_.:/-]{0,48}|[\w.:/+=-]*\d[\w.:/+=-]*", re.ASCII)
"""What a technical field holds: a short name in small letters, or an id or code with digits."""


def _message_parts(message: BaseMessage, *, calls: bool, name: bool) -> Iterator[Content]:
    tool_calls = list(message.tool_calls) if isinstance(message, AIMessage) else []
    role = message.role if isinstance(message, ChatMessage) else None
    yield from (Content(word) for word in (name and message.name, role) if word and not is_technical(word))
    for block in [message.content] if isinstance(message.content, str) else message.content:
        yield from [Content(block)] if isinstance(block, str) else _block_parts(block, tool_calls)
    for key, value in message.additional_kwargs.items():
        if key == "tool_calls" and isinstance(value, list):
            for call in value:
                yield from _block_parts({"type": "function", **call} if isinstance(call, dict) else call, tool_calls)
        elif key == "audio":
            yield Content(_strings(value).text, unreadable=True)
        else:
            yield _strings({key: value})
    if isinstance(message, AIMessage):
        yield from map(read_call, message.invalid_tool_calls)
        yield from (_strings(call.get("error")) for call in message.invalid_tool_calls)
        yield from map(read_call, tool_calls if calls else ())


def _block_parts(block: Any, tool_calls: Sequence[Any]) -> Iterator[Content]:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in _READABLE:
        words = {key: part for key, part in block.items() if key not in _PAYLOAD} if isinstance(block, dict) else {}
        yield Content(_strings(words).text, unreadable=True)
    elif kind in _CALLS and _is_copy(block, tool_calls):
        yield _strings({key: part for key, part in block.items() if key not in _CALL_FIELDS})
    else:
        yield _strings(block)


def _is_copy(block: Mapping[str, Any], tool_calls: Sequence[Any]) -> bool:
    """Whether a block says word for word what one of the calls says."""
    function = block.get("function")
    inner = {**block, **function} if isinstance(function, dict) else block
    if set(inner) - _CALL_FIELDS - _TECHNICAL:
        return False
    sources = [inner[key] for key in ("partial_json", "arguments", "args", "input") if inner.get(key)]
    arguments = _parsed(sources[0]) if sources else {}
    same = all(source == sources[0] or source == arguments for source in sources)
    return same and any(call["name"] == inner.get("name") and call["args"] == arguments for call in tool_calls)


@_contain
def _strings(value: Any, depth: int = 0) -> Content:
    """Every string in a block, in order; a technical field is passed over where it holds no words."""
    if isinstance(value, str):
        return Content(value)
    if value is None or isinstance(value, bool | int | float):
        return Content("")
    if isinstance(value, BaseModel):
        value = dict(value)
    if depth > _DEPTH or not isinstance(value, dict | list | tuple):
        return Content("", unreadable=True)
    if not isinstance(value, dict):
        return Content.concat([_strings(part, depth + 1) for part in value])
    fields = [(key, _parsed(part) if key in {"arguments", "partial_json"} else part) for key, part in value.items()]
    inner = [part for key, part in fields if not (_names_no_words(key) and is_technical(part))]
    keys = [Content(str(key)) for key in value if not is_technical(key)]
    return Content.concat([*keys, *(_strings(part, depth + 1) for part in inner)])


def _names_no_words(key: Any) -> bool:
    return key in _TECHNICAL or (isinstance(key, str) and key.startswith("__"))


def is_technical(value: Any) -> bool:
    """Whether a value or key holds no words."""
    if isinstance(value, dict):
        return all(is_technical(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(map(is_technical, value))
    return not isinstance(value, str) or _NO_WORDS.fullmatch(value) is not None
