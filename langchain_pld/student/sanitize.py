"""Cleaning an untrusted text before it goes into a prompt.

The student reads the cleaned text; the caller's original is never changed. Invisible characters are removed, Latin
look-alikes are folded in words that mix scripts, and anything that could pass for our delimiters, a chat template's
control token or the answer marker is broken up.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NewType

__all__ = [
    "ANSWER_MARKER",
    "CLOSE",
    "OPEN",
    "OPENING",
    "CleanText",
    "clean_text",
    "delimited",
    "is_visible",
    "skeleton",
]

CleanText = NewType("CleanText", str)
"""A text that may go into a prompt; every part of it is clean as well."""

OPEN = "<<<"
"""Stands before the text in the prompt."""
CLOSE = ">>>"
"""Stands after it."""
OPENING = f"{OPEN}\n"
"""The beginning of every message that carries a text."""
ANSWER_MARKER = "=>"
"""Stands between evidence and label in the evidence-first answer form."""

# Look-alikes of Latin letters, from the confusables of Unicode Technical Standard 39, in both cases.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕһԁԛԝьгпкАВЕЗКМНОРСТУХІЈЅԌԚԜαινορτυχκΑΒΕΖΗΙΚΜΝΟΡΤΥΧı",
    "aeopcyxijshdqwbrnkABE3KMHOPCTYXIJSGQWaivoptuxkABEZHIKMNOPTYXi",
)
_FOREIGN = re.compile(r"[\u0370-\u03ff\u0400-\u052f\u0131]")
_LATIN = re.compile(r"[A-Za-z]")
# Including accents: one between two letters must not split the word.
_WORD = re.compile(r"[\w\u0300-\u036f]+")
# Letters by Unicode category, but invisible.
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\u2800")
_ASCII_CONTROLS = dict.fromkeys(code for code in (*range(32), 127) if chr(code) not in "\n\t")
_MOST_MARKS = 30  # as in the stream-safe format of Unicode Standard Annex 15
# All accents are U+0300 or above, so most texts never match.
_LONG_RUN = re.compile(r"[^\x00-\u02ff]{31,}")
_MARK_RUN = re.compile(
    r"((?:[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]){2})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
_CONTROL_TOKEN = re.compile(
    r"<(?=\||/?(?:s|think|system|user|assistant|tool_call|start_of_turn|end_of_turn|bos|eos|pad|unk|unused\d+|extra_id_\d+"
    r"|(?:start_of_|end_of_)?image(?:_soft_token)?|fim_\w+)\s*>|</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|IMG)\])",
    re.IGNORECASE,
)


def clean_text(text: str) -> CleanText:
    """The text as the student may read it.

    Compatibility forms are folded (NFKC), invisible, bidirectional and control characters removed, look-alikes in
    mixed-script words folded, and delimiters, control tokens and answer markers broken up. Idempotent. A text in one
    non-Latin script stays as it is.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        # ASCII needs no normalising, and its only invisible characters are control characters.
        return _neutralise(text.translate(_ASCII_CONTROLS))
    text = _normal(text)
    text = text.translate(_unseen)
    # Removing characters may have joined letters and accents, and so may folding below.
    text = _MARK_RUN.sub(r"\1", _normal(text))
    if _FOREIGN.search(text):
        text = _WORD.sub(_fold_mixed, text)
    return _neutralise(_normal(text))


def delimited(text: str) -> str:
    """The message that carries a cleaned text."""
    return f"{OPENING}{text}\n{CLOSE}"


def skeleton(text: str) -> str:
    """The cleaned text in lower case without accents and look-alikes, for comparison only.

    As in Unicode Technical Standard 39, texts that look alike have the same skeleton. Purely Cyrillic or Greek text
    becomes unreadable.
    """
    folded = unicodedata.normalize("NFKD", clean_text(text).translate(_LOOKALIKES))
    return "".join(char for char in folded if not unicodedata.combining(char)).casefold()


def _normal(text: str) -> str:
    """Fold compatibility forms; runs of accents are cut first, because sorting them takes quadratic time."""
    return unicodedata.normalize("NFKC", _LONG_RUN.sub(_few_marks, text))


def _few_marks(match: re.Match[str]) -> str:
    kept, run = [], 0
    for char in match.group():
        run = run + 1 if unicodedata.combining(char) else 0
        if run <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def is_visible(char: str) -> bool:
    """Whether a character, or the space it takes, can be seen."""
    if char in "\n\t":
        return True
    if char in _BLANK_LETTERS or unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn"}:
        return False
    return not 0xFE00 <= ord(char) <= 0xFE0F and not 0xE0100 <= ord(char) <= 0xE01EF  # variation selectors


class _Unseen(dict[int, int | None]):
    """A table for `str.translate` that drops invisible characters and remembers each decision."""

    def __missing__(self, code: int) -> int | None:
        kept = code if is_visible(chr(code)) else None
        if len(self) < _MOST_KNOWN:  # bounded, in case a text has every character
            self[code] = kept
        return kept


_MOST_KNOWN = 10_000
_unseen = _Unseen()


def _fold_mixed(match: re.Match[str]) -> str:
    word = match.group()
    return word.translate(_LOOKALIKES) if _LATIN.search(word) and _FOREIGN.search(word) else word


def _neutralise(text: str) -> CleanText:
    text = text.replace("<<<", "\u2039" * 3).replace(">>>", "\u203a" * 3).replace(ANSWER_MARKER, "= >")
    if "<" not in text and "[" not in text:
        return CleanText(text)
    return CleanText(_CONTROL_TOKEN.sub(lambda match: "\u2039" if match.group() == "<" else "(", text))
