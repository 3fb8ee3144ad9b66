"""The log-probabilities in a chat model's message, in Ollama's or OpenAI's format."""

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
    """Token text and log-probability, as listed by the server."""


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
        # Some servers list only the most probable tokens, which may not include the written one.
        if token not in {text for text, _ in pairs if isinstance(text, str)}:
            pairs.append((token, _field(entry, "logprob")))
        # NaN and positive values are not log-probabilities, so the rest cannot be trusted either.
        if not all(map(_is_alternative, pairs)) or math.fsum([math.exp(value) for _, value in pairs]) > 1.01:
            break
        tokens.append(TokenLogprobs(token=token, alternatives=tuple(pairs)))
    return tokens


def _field(entry: Any, name: str) -> Any:
    # Called 42 times per answer: checking a dict against Mapping takes longer than all the rest.
    if type(entry) is dict or isinstance(entry, Mapping):
        return entry.get(name)
    return getattr(entry, name, None)


def _is_alternative(pair: tuple[Any, Any]) -> bool:
    text, value = pair
    # NaN compares false; no server means an integer too large for a float.
    number = type(value) is float or (isinstance(value, int | float) and not isinstance(value, bool))
    return isinstance(text, str) and number and (-1e300 <= value <= 1e-6 or value == -math.inf)
