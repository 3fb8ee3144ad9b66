"""Screens: what a drafted condition must not hold, each with a reason that a person can read.

A condition becomes part of a system prompt, so what it takes over from an example is how an example could plant
instructions there. Each screen is a pure function from the condition to a reason, or `None`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["leak", "planted", "screen"]

_NGRAM = 5
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d[\d.,:/-]*")
_ADDRESS = re.compile(
    r"https?://|www\.|\b[\w.+-]+@[\w-]+\.\w+|\b[\w-]+\.(?:com|org|net|io|ai|gov|edu)\b", re.IGNORECASE
)
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:rules?|instructions?|above|previous|prior|prompt|polic(?:y|ies))\b"
    r"|\b(?:system prompt|developer mode|jailbreak)\b"
    r"|^\s*(?:system|assistant|user|human)\s*:"
    r"|\bfrom now on\b"
    r"|\byou (?:are|must|should|will) now\b"
    r"|\bas an? (?:ai|language model|assistant)\b",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"```|<\s*/?\s*\w+[^>]*>|\b(?:def|import|eval|exec|SELECT|DROP TABLE)\b\s*[\w(*]|\{\{|\$\{")
_FORMAT = re.compile(
    r"\b(?:answer|respond|reply|output|return|print|write)\b.{0,30}"
    r"\b(?:json|xml|yaml|markdown|format|one word|letter|uppercase|lowercase|label only|sentences?)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)\b[A-Z][a-z]{2,}\b")


def screen(condition: str, sources: Iterable[str]) -> str | None:
    """The first reason why a condition must not reach a prompt, or `None`.

    Args:
        condition: The drafted condition.
        sources: The texts that it was drafted from.
    """
    return planted(condition) or next((reason for text in sources if (reason := leak(condition, text))), None)


def planted(condition: str) -> str | None:
    """Whether a condition holds instructions, addresses, code or rules about the form of the answer."""
    if _INSTRUCTION.search(condition):
        return "holds an instruction to the model"
    if _ADDRESS.search(condition):
        return "holds a web or e-mail address"
    if _CODE.search(condition):
        return "holds code or markup"
    if _FORMAT.search(condition):
        return "speaks of the form of the answer, which the compiled prompt decides"
    return None


def leak(condition: str, source: str) -> str | None:
    """Whether a condition takes over words, names or numbers of the text that it was drafted from."""
    shared = _ngrams(condition) & _ngrams(source)
    if shared:
        return f"shares {_NGRAM} or more words in a row with its source"
    if set(_NUMBER.findall(condition)) & set(_NUMBER.findall(source)):
        return "takes over a number of its source"
    names = set(_NAME.findall(condition)) & set(re.findall(r"\b[A-Z][a-z]{2,}\b", source))
    if names:
        return "takes over a name of its source"
    return None


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return {tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)}
