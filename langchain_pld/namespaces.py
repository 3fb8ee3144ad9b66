"""Labels of a Store's namespace, made from names that people give."""

from __future__ import annotations

import hashlib
import string
from typing import Final

__all__ = ["namespace_label"]

_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "-_")
_LONGEST: Final = 120
"""A database indexes a namespace as one text, and only so many bytes of it."""
_SHOWN: Final = 60


def namespace_label(name: str) -> str:
    """The label for a name: letters, digits, `-` and `_` stay, other bytes of its UTF-8 become `=XX`.

    Two names never share a label. A long name keeps its beginning and ends with a hash, behind `==`, which no other
    label contains.

    Args:
        name: A run, a task or a model, called as the user likes.

    Example:
        >>> namespace_label("chat.v2")
        'chat=2Ev2'
    """
    label = "".join(char if char in _PLAIN else _escaped(char) for char in name)
    if len(label) > _LONGEST:
        return f"{label[:_SHOWN]}=={hashlib.sha256(label.encode()).hexdigest()[:32]}"
    return label or "="


def _escaped(char: str) -> str:
    # A name out of JSON may hold half of a surrogate pair.
    return "".join(f"={byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
