"""What the tokens of an answer say: which label's word they spell, begin, or leave open."""

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
"""Characters from which on the beginning of a word counts for it; shorter ones are too often those of another."""

# Between letters these make one word of two: hyphens, apostrophes, slashes, dots and characters that are not drawn.
_JOINT = r"-_'\u2019\u02bc\uff07/\\.\u00b7\u2027\u30fb+&@\u2010-\u2013\ufe63\uff0d\u203f\u2040\u00ad"
_JOINT += r"\u200b-\u200d\u2060\ufeff"
_JOINTS = re.compile(f"[{_JOINT}]*")
_JOINED = re.compile(rf"[{_JOINT}\s]+")


class Masses(NamedTuple):
    """Where the probability of an answer fell."""

    labels: dict[str, float]
    """Label to the probability of its word."""
    unclear: dict[str, float]
    """What was begun, but may become one label's word or another's, or none."""
    others: dict[str, float]
    """What is no label's word."""


class LabelWords:
    """The words of an answer format, folded for comparing.

    Case, surrounding spaces and punctuation do not count.
    """

    def __init__(self, codes: Mapping[str, str], first_tokens: Mapping[str, Sequence[str]] | None = None) -> None:
        self._folded = {code.casefold(): label for label, code in codes.items()}
        # In their own case, since "I" is how a refusal begins.
        self._first = {text: label for label, texts in (first_tokens or {}).items() for text in texts}
        self._known = first_tokens is not None

    @classmethod
    def of(cls, answer: AnswerFormat) -> LabelWords:
        """Those of a format, with what is known of the student's tokenizer."""
        return cls(answer.codes, answer.first_tokens)

    def match(self, text: str) -> tuple[str | None, bool]:
        """The label whose word alone a text spells or begins, if there is one; and whether it may become a word."""
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
        """Whether a text is a whole word with which another one begins."""
        start = text.casefold()
        return any(code != start and code.startswith(start) for code in self._folded) and start in self._folded

    def fits(self, text: str, label: str, *, cut: bool) -> bool:
        """Whether all of a text is a label's word, with other words behind it or not; a part of it where it was cut."""
        start = text.lstrip(WRAPPING).casefold()
        if self._goes_on(start, label):
            return False
        return any(
            (start.startswith(code) and _ends(start[len(code) :])) or (cut and code.startswith(start.rstrip()))
            for code, name in self._folded.items()
            if name == label
        )

    def _goes_on(self, start: str, label: str) -> bool:
        """Whether a text says another label's longer word with a blank or another joint in it: medical advice."""
        if start in self._folded:
            return False
        folded = {_JOINED.sub(" ", code): name for code, name in self._folded.items()}
        said, own = _JOINED.sub(" ", start), [code for code, name in folded.items() if name == label]
        longer = [code for code, name in folded.items() if name != label and code.startswith(f"{own[0]} ")]
        return any(said.startswith(code[: len(own[0]) + 2]) for code in longer)

    def _begun(self, text: str) -> set[str]:
        """The labels whose word begins with a text. Punctuation behind it ends it, unless a word has it there."""
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

    Where the token that was written leaves open which word it begins, the next one tells. A written word that goes on
    as another one is no label's.

    Args:
        tokens: Those of the answer, the deciding one first.
        words: The words to tell.
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
            # An empty token is how some servers show that the answer ends.
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
    """Whether what follows a word is not part of it. Vowel signs and accents of many scripts are marks, not letters."""
    joint = _JOINTS.match(text)
    after = text[joint.end() if joint else 0 :][:1]
    return not (after.isalnum() or (after and unicodedata.category(after).startswith("M")))
