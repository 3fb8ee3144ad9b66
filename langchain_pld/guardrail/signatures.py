"""Signatures that only this deployment can make: whoever may write into the state cannot forge the note "checked".

The key comes from the environment variable `PLD_SIGNING_KEY`; without it, each process has a random one of its own, and
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

from langchain_pld.guardrail.message_edits import NOTES

__all__ = ["is_signed", "sign", "signature_of"]

_RANDOM_KEY = secrets.token_bytes(32)


def signature_of(guard: str, parts: Any) -> str:
    """The signature of one guard on some content.

    Args:
        guard: The guard's name: one guard's signature is worth nothing to another.
        parts: The content, as plain values.
    """
    key = os.environ.get("PLD_SIGNING_KEY", "").encode() or _RANDOM_KEY
    try:
        text = json.dumps([guard, parts], sort_keys=True, default=str)
    except (RecursionError, ValueError, TypeError):  # nested without end: what cannot be signed is always checked
        text = secrets.token_hex()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def sign(message: Any, guard: str) -> Any:
    """A copy of a message with a guard's signature on its content."""
    notes = dict(message.response_metadata.get(NOTES) or {})
    notes[guard] = {**notes.get(guard, {}), "signature": _of_message(message, guard)}
    return message.model_copy(update={"response_metadata": {**message.response_metadata, NOTES: notes}})


def is_signed(message: BaseMessage, guard: str) -> bool:
    """Whether a message has a guard's signature, and the content that was signed."""
    notes = message.response_metadata.get(NOTES)
    note = notes.get(guard) if isinstance(notes, dict) else None
    found = note.get("signature") if isinstance(note, dict) else None
    return isinstance(found, str) and hmac.compare_digest(found.encode(), _of_message(message, guard).encode())


def _of_message(message: BaseMessage, guard: str) -> str:
    about = getattr(message, "tool_call_id", None)
    return signature_of(guard, [message.type, about, message.content, message.additional_kwargs])
