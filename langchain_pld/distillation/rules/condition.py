"""The type of a condition in a teacher's answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Condition"]

_MAX_CHARS = 300


def _whole(text: str) -> str:
    """Drop a clause that was cut off: a grammar ends the text at the limit, even mid-sentence."""
    if len(text) < _MAX_CHARS or text.endswith((".", "!", "?")):
        return text
    end = max(text.rfind(mark) for mark in ",;.")
    return f"{text[:end].rstrip()}." if end > _MAX_CHARS // 3 else text


Condition = Annotated[str, Field(min_length=10, max_length=_MAX_CHARS), AfterValidator(_whole)]
