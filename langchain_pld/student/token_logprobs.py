"""The log-probabilities that a chat model's message carries, in Ollama's or OpenAI's shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage

__all__ = ["TokenLogprobs", "token_logprobs"]


class TokenLogprobs(NamedTuple):
    """One generated token with its most probable alternatives."""

    token: str
    """The token's text."""
    alternatives: tuple[tuple[str, float], ...]
    """Token text and log-probability, as the server listed them."""


def token_logprobs(message: AIMessage) -> list[TokenLogprobs]:
    """The tokens of `response_metadata["logprobs"]`; a malformed one ends the list."""
    raw: Any = message.response_metadata.get("logprobs")
    if isinstance(raw, Mapping):
        raw = raw.get("content")
    if not isinstance(raw, Iterable) or isinstance(raw, str | bytes):
        return []
    tokens: list[TokenLogprobs] = []
    for entry in raw:
        token = _field(entry, "token")
        alternatives = _field(entry, "top_logprobs") or [entry]
        if not isinstance(token, str) or not isinstance(alternatives, Iterable):
            break
        pairs = [(_field(option, "token"), _field(option, "logprob")) for option in alternatives]
        # Some servers list the most probable tokens only, and the one that was written is none of them.
        if token not in {text for text, _ in pairs if isinstance(text, str)}:
            pairs.append((token, _field(entry, "logprob")))
        # A NaN or a positive log-probability is no probability: do not read the rest as if it were one.
        if not all(map(_is_alternative, pairs)) or math.fsum([math.exp(value) for _, value in pairs]) > 1.01:
            break
        tokens.append(TokenLogprobs(token=token, alternatives=tuple(pairs)))
    return tokens


def _field(entry: Any, name: str) -> Any:
    # Asked 42 times an answer: to ask a dict whether it is a Mapping takes longer than all the rest.
    if type(entry) is dict or isinstance(entry, Mapping):
        return entry.get(name)
    return getattr(entry, name, None)


def _is_alternative(pair: tuple[Any, Any]) -> bool:
    text, value = pair
    # NaN compares false; an integer too large for a float is none that a server means.
    number = type(value) is float or (isinstance(value, int | float) and not isinstance(value, bool))
    return isinstance(text, str) and number and (-1e300 <= value <= 1e-6 or value == -math.inf)
