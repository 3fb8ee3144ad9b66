"""The state of a decision as text for the student; only a model's reasoning is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.messages.content import is_data_content_block

from langchain_pld.errors import InputError

__all__ = ["is_plain_message", "state_text"]


def state_text(value: Any) -> str:
    """A text or text message as it is, anything else as JSON, which no text inside can break out of.

    Raises:
        InputError: It has media or something that JSON cannot hold, or is nested too deeply.
    """
    if isinstance(value, str):
        return value
    if is_plain_message(value):
        return str(value.text)
    try:
        return json.dumps(_plain(value), ensure_ascii=False)
    except RecursionError as error:
        msg = "the state is nested too deeply"
        raise InputError(msg) from error


def is_plain_message(value: Any) -> bool:
    """Whether a value is a message with text only."""
    return isinstance(value, BaseMessage) and all(
        block["type"] in {"text", "reasoning"} for block in value.content_blocks
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, BaseMessage):
        return _message(value)
    if isinstance(value, Mapping):
        # is_data_content_block counts a text document as media.
        is_text = "text" in value and not {"url", "base64", "file_id"} & set(value)
        if is_data_content_block(dict(value)) and not is_text:
            msg = f"the student reads text only; take out or describe the media of type {value['type']!r}"
            raise InputError(msg)
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    msg = f"a state may hold texts, numbers, lists, mappings and messages; got a {type(value).__name__}"
    raise InputError(msg)


def _message(message: BaseMessage) -> dict[str, Any]:
    kind = message.type.removesuffix("MessageChunk").lower()
    blocks = [block for block in message.content_blocks if block["type"] not in {"text", "reasoning"}]
    record = {
        "role": {"human": "user", "ai": "assistant"}.get(kind, kind),
        "name": message.name,
        "content": str(message.text),
        "tool_calls": [
            {"name": block["name"], "args": _plain(block["args"])} for block in blocks if block["type"] == "tool_call"
        ],
        "other_content": [_plain(block) for block in blocks if block["type"] != "tool_call"],
    }
    return {key: value for key, value in record.items() if value or key == "content"}
