"""The state of a decision as the text that a student reads; nothing is left out but a model's reasoning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.messages.content import is_data_content_block

from langchain_pld.errors import InputError

__all__ = ["is_plain_message", "state_text"]


def state_text(value: Any) -> str:
    """A text or a message of text as it stands, anything else as JSON.

    JSON, since a text inside cannot break out of it to pass for another message.

    Raises:
        InputError: There is media in it, something that JSON cannot hold, or it is nested too deeply.
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
    """Whether a value is a message of text alone."""
    return isinstance(value, BaseMessage) and all(
        block["type"] in {"text", "reasoning"} for block in value.content_blocks
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, BaseMessage):
        return _message(value)
    if isinstance(value, Mapping):
        # A document that comes as text is text; is_data_content_block counts it among the media.
        is_text = "text" in value and not {"url", "base64", "file_id"} & set(value)
        if is_data_content_block(dict(value)) and not is_text:
            msg = f"the student reads text only; take out or describe the media of type {value['type']!r}"
            raise InputError(msg)
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    msg = f"a state holds texts, numbers, lists, mappings and messages; got a {type(value).__name__}"
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
