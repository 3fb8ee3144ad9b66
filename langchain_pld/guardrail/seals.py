"""Seals that only this deployment can make: a note "checked" cannot be forged by whoever may write into the state.

The key comes from the environment variable `PLD_SEAL_KEY`; without it, each process has a random one of its own, and
what another process checked is checked again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_pld.guardrail.replacement import MARK

__all__ = ["seal", "seal_of", "sealed"]

_RANDOM_KEY = secrets.token_bytes(32)


def seal_of(guard: str, parts: Any) -> str:
    """The seal of one guard on some content.

    Args:
        guard: The guard's name: one guard's seal is worth nothing to another.
        parts: The content, as plain values.
    """
    key = os.environ.get("PLD_SEAL_KEY", "").encode() or _RANDOM_KEY
    try:
        text = json.dumps([guard, parts], sort_keys=True, default=str)
    except (RecursionError, ValueError, TypeError):  # nested without end: such content has no seal, and is never known
        text = secrets.token_hex()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def seal(message: Any, guard: str) -> Any:
    """A copy of a message with a guard's seal on its content."""
    notes = dict(message.response_metadata.get(MARK) or {})
    notes[guard] = {**notes.get(guard, {}), "seal": _of_message(message, guard)}
    return message.model_copy(update={"response_metadata": {**message.response_metadata, MARK: notes}})


def sealed(message: BaseMessage, guard: str) -> bool:
    """Whether a message has a guard's seal, and the content that was sealed."""
    notes = message.response_metadata.get(MARK)
    note = notes.get(guard) if isinstance(notes, dict) else None
    found = note.get("seal") if isinstance(note, dict) else None
    return isinstance(found, str) and hmac.compare_digest(found.encode(), _of_message(message, guard).encode())


def _of_message(message: BaseMessage, guard: str) -> str:
    about = getattr(message, "tool_call_id", None)
    return seal_of(guard, [message.type, about, message.content, message.additional_kwargs])
