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

__all__ = ["signature_of"]

_RANDOM_KEY = secrets.token_bytes(32)


def signature_of(signer: str, parts: Any) -> str:
    """The signature of somebody on some content.

    Args:
        signer: One signer's signature is worth nothing to another.
        parts: The content, as plain values.
    """
    key = os.environ.get("PLD_SIGNING_KEY", "").encode() or _RANDOM_KEY
    try:
        text = json.dumps([signer, parts], sort_keys=True, default=str)
    except (RecursionError, ValueError, TypeError):  # nested without end: what cannot be signed is always checked
        text = secrets.token_hex()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
