"""From what a chain hands over to the text of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_pld.errors import InputError
from langchain_pld.task import Task

__all__ = ["ClassifierInput", "input_text"]

ClassifierInput = str | PromptValue | BaseMessage | Sequence[Any] | Mapping[str, Any]
"""A text, a message, messages (also as tuples or dicts), a prompt value, the task's fields, or a mapping with one of
`text`, `input` and `messages`."""


_DEEPEST = 8


def input_text(task: Task, value: ClassifierInput) -> str:
    """Lay an input out as the one text that the student reads.

    One message gives its text. Several give a transcript, a line `role: text` each: nothing is left out.

    Raises:
        InputError: The input has no text, is too long, or does not have the task's fields.
    """
    return _laid_out(task, value, _DEEPEST)


def _laid_out(task: Task, value: Any, deepest: int) -> str:
    if task.fields and isinstance(value, Mapping) and set(task.fields) <= set(value):
        return task.render({name: value[name] for name in task.fields})
    if isinstance(value, Mapping):
        keys = [key for key in ("text", "input", "messages") if key in value]
        if len(keys) != 1 and "role" not in value:
            wanted = ", ".join(task.fields) if task.fields else "one of text, input and messages"
            msg = f"an input mapping needs {wanted}; this one has {len(value)} other keys"
            raise InputError(msg)
        if keys and not deepest:
            msg = f"an input of mappings in mappings, more than {_DEEPEST} deep; pass the text or the messages"
            raise InputError(msg)
        if keys:
            return _laid_out(task, value[keys[0]], deepest - 1)
    if isinstance(value, str):
        return task.render(value)
    return task.render(_transcript(_messages(value)))


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
