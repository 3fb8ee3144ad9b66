"""Namespace labels for a Store, made from user-chosen names."""

from __future__ import annotations

import hashlib
import string
from typing import Final

__all__ = ["namespace_label"]

_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "-_")
_LONGEST: Final = 120
"""Databases index a namespace as one text of limited length."""
_SHOWN: Final = 60


def namespace_label(name: str) -> str:
    """The label for a name: letters, digits, `-` and `_` stay, other UTF-8 bytes become `=XX`.

    Two names never share a label. A long name keeps its beginning and ends with `==`, which no other label contains,
    and a hash.

    Example:
        >>> namespace_label("chat.v2")
        'chat=2Ev2'
    """
    label = "".join(char if char in _PLAIN else _escaped(char) for char in name)
    if len(label) > _LONGEST:
        return f"{label[:_SHOWN]}=={hashlib.sha256(label.encode()).hexdigest()[:32]}"
    return label or "="


def _escaped(char: str) -> str:
    # A name from JSON may contain half a surrogate pair.
    return "".join(f"={byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
