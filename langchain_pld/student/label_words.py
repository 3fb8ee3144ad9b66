"""Matching answer tokens to label words: which word they spell, begin, or leave open."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from langchain_pld.answer import AnswerFormat
from langchain_pld.student.token_logprobs import TokenLogprobs
from langchain_pld.task import WRAPPING

__all__ = ["SHORTEST_PREFIX", "LabelWords", "Masses", "word_masses"]

SHORTEST_PREFIX = 3
"""Characters from which on a prefix counts for its word; shorter ones too often begin another."""

# Between letters these join two words into one: hyphens, apostrophes, slashes, dots and invisible characters.
_JOINT = r"-_'\u2019\u02bc\uff07/\\.\u00b7\u2027\u30fb+&@\u2010-\u2013\ufe63\uff0d\u203f\u2040\u00ad"
_JOINT += r"\u200b-\u200d\u2060\ufeff"
_JOINTS = re.compile(f"[{_JOINT}]*")
_JOINED = re.compile(rf"[{_JOINT}\s]+")


class Masses(NamedTuple):
    """Where the probability of an answer fell."""

    labels: dict[str, float]
    """Label to the probability of its word."""
    unclear: dict[str, float]
    """Beginnings that may become one label's word, another's, or none."""
    others: dict[str, float]
    """Texts that are not a label's word."""


class LabelWords:
    """The words of an answer format, compared without case, surrounding spaces and punctuation."""

    def __init__(self, codes: Mapping[str, str], first_tokens: Mapping[str, Sequence[str]] | None = None) -> None:
        self._folded = {code.casefold(): label for label, code in codes.items()}
        # Case counts here, since "I" begins a refusal.
        self._first = {text: label for label, texts in (first_tokens or {}).items() for text in texts}
        self._known = first_tokens is not None

    @classmethod
    def of(cls, answer: AnswerFormat) -> LabelWords:
        """The words of a format, with what is known about the student's tokenizer."""
        return cls(answer.codes, answer.first_tokens)

    def match(self, text: str) -> tuple[str | None, bool]:
        """The only label whose word a text spells or begins, if any; and whether the text may become a word."""
        bare = text.strip(WRAPPING)
        start, begun = bare.casefold(), self._begun(text)
        exact = self._folded.get(start)
        may_begin = bool(begun) and (len(start) >= SHORTEST_PREFIX or exact is not None or not self._known)
        if bare in self._first:
            return self._first[bare], may_begin
        if exact is not None:
            return (exact if begun <= {exact} else None), may_begin
        is_beginning = len(start) >= SHORTEST_PREFIX and len(begun) == 1
        return (next(iter(begun)) if is_beginning else None), may_begin

    def exact(self, text: str) -> str | None:
        """The label whose whole word a text is."""
        return self._folded.get(text.strip(WRAPPING).casefold())

    def nests(self, text: str) -> bool:
        """Whether a text is a whole word that another word begins with."""
        start = text.casefold()
        return any(code != start and code.startswith(start) for code in self._folded) and start in self._folded

    def fits(self, text: str, label: str, *, cut: bool) -> bool:
        """Whether a text is a label's word, or part of it if cut, with or without other words after it."""
        start = text.lstrip(WRAPPING).casefold()
        if self._goes_on(start, label):
            return False
        return any(
            (start.startswith(code) and _ends(start[len(code) :])) or (cut and code.startswith(start.rstrip()))
            for code, name in self._folded.items()
            if name == label
        )

    def _goes_on(self, start: str, label: str) -> bool:
        """Whether a text is another label's longer word with a space or other joint in it: medical advice."""
        if start in self._folded:
            return False
        folded = {_JOINED.sub(" ", code): name for code, name in self._folded.items()}
        said, own = _JOINED.sub(" ", start), [code for code, name in folded.items() if name == label]
        longer = [code for code, name in folded.items() if name != label and code.startswith(f"{own[0]} ")]
        return any(said.startswith(code[: len(own[0]) + 2]) for code in longer)

    def _begun(self, text: str) -> set[str]:
        """The labels whose word begins with a text. Punctuation ends the text, unless a word contains it there."""
        start = text.lstrip(WRAPPING).casefold()
        bare = start.rstrip(WRAPPING)
        if not bare:
            return set()
        begun = {label for code, label in self._folded.items() if code.startswith(start)}
        if begun or bare == start:
            return begun
        exact = self._folded.get(bare)
        return set() if exact is None else {exact}


def word_masses(tokens: Sequence[TokenLogprobs], words: LabelWords, *, cut: bool) -> Masses:
    """Add up the probability of each label's word.

    If the written token does not settle which word it begins, the next one does. A written word that continues as
    another word counts for no label.

    Args:
        tokens: The tokens of the answer, the deciding one first.
        words: The words to match.
        cut: Whether the answer ended at the token limit.
    """
    labels: dict[str, float] = defaultdict(float)
    unclear: dict[str, float] = defaultdict(float)
    others: dict[str, float] = defaultdict(float)
    before, weight = "", 1.0
    for index, (written, alternatives) in enumerate(tokens):
        rest = "".join([token.token for token in tokens[index + 1 :]])
        open_ = 0.0
        for text, logprob in alternatives:
            mass, so_far = weight * math.exp(logprob), before + text
            # Some servers mark the end of the answer with an empty token.
            label, may_begin = words.match(so_far)
            label = label if text or not before else words.exact(before)
            is_open = label is None and may_begin
            if label is None and not is_open and before and _ends(text):
                label = words.exact(before)
            if text == written and not (cut and not rest):
                if label is not None and not words.fits(so_far + rest, label, cut=cut):
                    label, is_open = None, may_begin
                if is_open and not open_:
                    open_ = mass
                    continue
            (unclear if is_open else others if label is None else labels)[label or so_far] += mass
        before += written
        weight = open_
        if not weight:
            return Masses(labels, unclear, others)
    whole = words.exact(before)
    if whole is None:
        others[before] += weight
    elif cut:
        unclear[before] += weight
    else:
        labels[whole] += weight
    return Masses(labels, unclear, others)


def _ends(text: str) -> bool:
    """Whether a word ends before this text. Vowel signs and accents of many scripts are marks, not letters."""
    joint = _JOINTS.match(text)
    after = text[joint.end() if joint else 0 :][:1]
    return not (after.isalnum() or (after and unicodedata.category(after).startswith("M")))
