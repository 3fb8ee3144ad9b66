"""Characters that nobody sees but a model reads: found, and taken out of values of any kind."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from langchain_pld.student.sanitize import is_visible

__all__ = ["has_invisible", "strip_invisible"]


def has_invisible(text: str) -> bool:
    """Whether a text holds characters that nobody sees but a model reads: tags, selectors, controls, blank letters."""
    return _without_invisible(text) != text


def strip_invisible(value: Any) -> Any:
    """The value without invisible characters, as far as it is made of texts, messages, models and collections."""
    if isinstance(value, str):
        return _without_invisible(value)
    if isinstance(value, PromptValue):
        return strip_invisible(value.to_messages())
    if isinstance(value, BaseModel):
        # Another id would make another message of it.
        fields = {name: getattr(value, name) for name in type(value).model_fields if name != "id"}
        changes = {name: new for name, old in fields.items() if (new := strip_invisible(old)) != old}
        return value.model_copy(update=changes) if changes else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        changes = {name: new for name, old in fields.items() if (new := strip_invisible(old)) != old}
        return dataclasses.replace(value, **changes) if changes else value
    if isinstance(value, Mapping):
        return {strip_invisible(key): strip_invisible(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(strip_invisible, value))
    return type(value)(map(strip_invisible, value)) if type(value) in {list, tuple, set, frozenset} else value


# One joiner or one emoji selector between two visible characters is spelling; a row of them carries a message.
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
_JOINER_ROW = re.compile(f"^[{_JOINERS}]+|[{_JOINERS}]{{2,}}")


def _without_invisible(text: str) -> str:
    if text.isascii():
        return _ASCII_CONTROLS.sub("", text)
    kept = "".join(char for char in text if char == "\r" or char in _JOINERS or is_visible(char))
    if kept.isascii():
        return kept
    return _JOINER_ROW.sub(lambda row: "" if row.start() == 0 else _EMOJI_ROW.match(row.group())[0], kept)  # type: ignore[index]


_ASCII_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_EMOJI_ROW = re.compile("\ufe0f\u200d|.")
