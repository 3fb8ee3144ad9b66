"""From the input of a Runnable to the text of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_pld.errors import InputError
from langchain_pld.task import Task

__all__ = ["ClassifierInput", "Select", "input_text", "read_input"]

ClassifierInput = str | PromptValue | BaseMessage | Sequence[Any] | Mapping[str, Any]
"""A text, a message, messages (also as tuples or dicts), a prompt value, the task's fields, or a mapping with `text`,
`input` or `messages`."""

Select = Literal["last_human", "all"]
"""Which of several messages to read: the last human one, else the last; or all, as a transcript."""

_DEEPEST = 8


def input_text(task: Task, value: ClassifierInput, select: Select = "all") -> str:
    """Lay out an input as the one text that the student reads; several messages become lines of `role: text`.

    Raises:
        InputError: The input has no text, is too long, or lacks the task's fields.
    """
    parts = _selected(task, value, select)
    return task.render(parts if not isinstance(parts, list) else _transcript(parts))


def read_input(task: Task, value: ClassifierInput, select: Select) -> tuple[str, tuple[str, ...]]:
    """The text that the student reads, and the kinds of message parts that it cannot read.

    Raises:
        InputError: As in `input_text`; the message names the parts that cannot be read.
    """
    parts = _selected(task, value, select)
    unread = _unread(parts) if isinstance(parts, list) else ()
    try:
        return task.render(parts if not isinstance(parts, list) else _transcript(parts)), unread
    except InputError as error:
        if not unread:
            raise
        msg = f"{error}; it has parts that cannot be read: {', '.join(unread)}"
        raise InputError(msg) from error


def _selected(task: Task, value: ClassifierInput, select: Select) -> str | dict[str, str] | list[BaseMessage]:
    """A text, the task's fields, or the messages to read."""
    parts = _laid_out(task, value, _DEEPEST)
    if isinstance(parts, list) and select == "last_human":
        return [message for message in parts if message.type == "human"][-1:] or parts[-1:]
    return parts


def _laid_out(task: Task, value: Any, deepest: int) -> str | dict[str, str] | list[BaseMessage]:
    if task.fields and isinstance(value, Mapping) and set(task.fields) <= set(value):
        return {name: value[name] for name in task.fields}
    if isinstance(value, Mapping):
        keys = [key for key in ("text", "input", "messages") if key in value]
        if len(keys) != 1 and "role" not in value:
            wanted = ", ".join(task.fields) if task.fields else "one of text, input and messages"
            msg = f"an input mapping needs {wanted}; this one has {len(value)} other keys"
            raise InputError(msg)
        if keys and not deepest:
            msg = f"the input nests mappings more than {_DEEPEST} deep; pass the text or the messages"
            raise InputError(msg)
        if keys:
            return _laid_out(task, value[keys[0]], deepest - 1)
    return value if isinstance(value, str) else _messages(value)


def _messages(value: Any) -> list[BaseMessage]:
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, BaseMessage | Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        msg = f"cannot classify a {type(value).__name__}; pass a text, messages or a mapping"
        raise InputError(msg)
    try:
        return convert_to_messages(value)
    except (ValueError, TypeError, NotImplementedError, KeyError) as error:
        msg = f"these messages cannot be read: {type(error).__name__}"
        raise InputError(msg) from error


def _transcript(messages: list[BaseMessage]) -> str:
    if len(messages) == 1:
        return str(messages[0].text)
    return "\n".join(f"{message.type}: {message.text}" for message in messages if str(message.text).strip())


def _unread(messages: list[BaseMessage]) -> tuple[str, ...]:
    kinds: dict[str, None] = {}
    for message in messages:
        blocks = message.content if isinstance(message.content, list) else []
        kinds |= {str(block.get("type")): None for block in blocks if isinstance(block, dict)}
        if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
            kinds["tool_call"] = None
    return tuple(kind for kind in kinds if kind != "text")
