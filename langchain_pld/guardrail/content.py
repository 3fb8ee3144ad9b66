"""Which part of a conversation a guard checks, and whether it can read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue

from langchain_pld.student.inputs import ClassifierInput

__all__ = ["Stage", "call_text", "checkable", "content_of", "stage_input", "unreadable_parts", "visible_text"]

Stage = Literal["input", "output", "tool_call", "tool_result"]
"""Where in an agent a guard stands."""


def stage_input(messages: Sequence[BaseMessage], stage: Stage) -> Any:
    """The part of a conversation that a stage checks; an empty list where there is nothing.

    `input`: what the user wrote last, be it several messages in a row. `output`: the last answer of the model.
    `tool_call`: its tool calls with their arguments, as one text. `tool_result`: the tool messages behind it.

    Args:
        messages: The conversation, oldest first.
        stage: Where the guard stands.
    """
    if stage == "output":
        return _turn(messages, AIMessage)[-1:]
    if stage == "tool_result":
        return _turn(messages, ToolMessage)
    if stage == "tool_call":
        last = _turn(messages, AIMessage)[-1:]
        calls = [call for message in last for call in (*message.tool_calls, *message.invalid_tool_calls)]
        return "\n".join(map(call_text, calls)) or []
    return _turn(messages, HumanMessage, ChatMessage)


def _turn(messages: Sequence[BaseMessage], *kinds: type[BaseMessage]) -> list[Any]:
    """The last messages of some kinds that stand together; other kinds behind them are passed over."""
    turn: list[BaseMessage] = []
    for message in reversed(messages):
        if isinstance(message, kinds):
            turn.insert(0, message)
        elif turn:
            break
    return turn


def content_of(value: ClassifierInput) -> tuple[bool, bool]:
    """Whether an input holds text, and whether it holds anything else. What is not surely empty counts as text."""
    if isinstance(value, str):
        return bool(value.strip()), False
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, Mapping) and "role" not in value:
        inner = [value[key] for key in ("text", "input", "messages") if key in value]
        return content_of(inner[0]) if len(inner) == 1 and len(value) == 1 else (True, False)
    try:
        messages = convert_to_messages(cast("Any", [value] if isinstance(value, BaseMessage | Mapping) else value))
    except (ValueError, TypeError, NotImplementedError, KeyError):
        return True, False  # the classifier refuses it with the reason
    return any(str(message.text).strip() for message in messages), any(map(_holds_media, messages))


# What a model's own message may hold beside text; its tool calls are checked at the stage `tool_call`.
_OWN_PARTS = {
    "reasoning", "thinking", "redacted_thinking", "refusal", "tool_use", "tool_call", "tool_call_chunk",
    "invalid_tool_call", "function_call", "input_json_delta", "server_tool_use", "server_tool_call",
    "server_tool_call_chunk",
}  # fmt: skip


def _holds_media(message: BaseMessage) -> bool:
    if isinstance(message.content, str):
        return False
    readable = {"text", "output_text"} | (_OWN_PARTS if isinstance(message, AIMessage) else set())
    return any(not isinstance(part, str) and part.get("type") not in readable for part in message.content)


def checkable(message: BaseMessage) -> Any:
    """What is handed to a guard of a message: the words that a reader may see, and what no classifier can read."""
    if not isinstance(message, AIMessage):
        return message
    text, unreadable = visible_text(message), unreadable_parts(message)
    return AIMessage([{"type": "text", "text": text}, *unreadable]) if unreadable else text


def visible_text(message: BaseMessage) -> str:
    """All the words of a message that a reader may get to see: its text, and its reasoning where it has some."""
    words = [str(message.text)]
    if isinstance(message.content, list):
        words += [
            value
            for block in message.content
            if isinstance(block, dict)
            for key in ("reasoning", "thinking", "refusal")
            if isinstance(value := block.get(key), str)
        ]
    words += [
        value
        for key in ("reasoning_content", "reasoning", "refusal")
        if isinstance(value := message.additional_kwargs.get(key), str)
    ]
    return "\n".join(part for part in words if part)


def call_text(call: Any) -> str:
    """A tool call as the text that is checked: its name and its arguments."""
    arguments = call["args"]
    words = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    return f"{call['name']} {words}"


def unreadable_parts(message: BaseMessage) -> list[Any]:
    """The parts of a model's message that no classifier can read."""
    if isinstance(message.content, str):
        return []
    return [part for part in message.content if isinstance(part, dict) and part.get("type") not in _READABLE]


_READABLE = {
    *("text", "output_text", "text_delta", "refusal", "reasoning", "thinking", "redacted_thinking"),
    *("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "input_json_delta"),
}
"""Content parts whose words are in `visible_text` or in the tool calls."""
