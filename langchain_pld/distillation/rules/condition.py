"""A condition as a teacher may write it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Condition"]

_MAX_CHARS = 300


def _whole(text: str) -> str:
    """The text without a clause that was cut off: a grammar ends an answer at the limit, wherever that is."""
    if len(text) < _MAX_CHARS or text.endswith((".", "!", "?")):
        return text
    end = max(text.rfind(mark) for mark in ",;.")
    return f"{text[:end].rstrip()}." if end > _MAX_CHARS // 3 else text


Condition = Annotated[str, Field(min_length=10, max_length=_MAX_CHARS), AfterValidator(_whole)]
