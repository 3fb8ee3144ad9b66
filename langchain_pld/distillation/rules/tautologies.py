"""Tautologies: conditions that rest on the label, e.g. "If the text meets the criteria for the 'alpha' label".

They read like rules but decide nothing. Label names are ordinary words too, so a good condition may contain them, such
as "If the text insults a religion" for the label religion. The screen therefore looks for phrases about labels and for
conditions that add nothing to a label's name or definition.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from langchain_pld.student.sanitize import clean_text
from langchain_pld.task import Task

__all__ = ["is_tautology"]


def is_tautology(condition: str, task: Task, *, common: Collection[str] = ()) -> bool:
    """Whether a condition says only that a label applies.

    Args:
        condition: A drafted condition.
        task: The task with its labels.
        common: Lower-case words that many texts contain: if they are about product labels, "the label" is fine.
    """
    text = _normalized(clean_text(condition))
    if "label" not in common and _ABOUT_LABELS.search(text):
        return True
    names = tuple(map(_normalized, task.label_names))
    return _naming_a_label(names).search(text) is not None or _repeats_a_label(text, task)


def _repeats_a_label(text: str, task: Task) -> bool:
    """Whether a condition adds no words to a label's name or definition."""
    words, instructions = _content_words(text), _content_words(task.instructions)
    for label in task.labels:
        name, definition = _content_words(label.name), _content_words(label.description)
        if words and words in (name, definition):
            return True
        if name and words - (instructions - name) == name:
            return True
    return False


@lru_cache
def _naming_a_label(names: tuple[str, ...]) -> re.Pattern[str]:
    """Phrases that refer to a label by name."""
    name = "(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")"
    whole = rf"(?<!\w){_QUOTE}?{name}{_QUOTE}?(?!\w)"
    phrases = (
        rf"{_NOT_QUOTING_THE_TEXT}{_QUOTE}{name}{_QUOTE}",
        rf"\b(?:label|category|tag)(?: (?:is|of|called|named|as|for))?(?: ?[:=])? {whole}",
        rf"\bclass(?: (?:is|of|called|named))?(?: ?[:=])? {_QUOTE}{name}{_QUOTE}",
        rf"{whole} (?:label|category|tag)\b",
        rf"{_CRITERIA} (?:for|of) (?:being |the |an? )?{whole}",
        rf"\b(?:labell?ed|classified|categori[sz]ed|tagged|falls? (?:under|into|in)|belongs? (?:to|in))"
        rf"(?: (?:as|under|with|the|an?))* {whole}[.!]?$",
        rf"\b(?:counts? as|qualif(?:y|ies) as|considered(?: as| to be)?)(?: an?)? {whole}[.!]?$",
    )
    return re.compile("|".join(phrases))


def _content_words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(_normalized(text))).difference(_WORDS_OF_ALL_CONDITIONS)


def _normalized(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").split())


_WORD = re.compile(r"\w+")
_QUOTE = "[\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb]"
_NOT_QUOTING_THE_TEXT = "".join(
    rf"(?<!\b{word} )"
    for word in _WORD.findall("word words term terms phrase letter say says contains mentions uses like or and as")
)
"""A quotation from the text may well be a label's name."""
_CRITERIA = r"\b(?:criteri(?:a|on)|definition|description|requirements?|guidelines?)"
_ABOUT_LABELS = re.compile(
    r"\b(?:this|that|the (?:given|correct|right|same|above|assigned|other|respective)) (?:label|category)\b"
    r"|\bthe label\b(?! (?:on|of|that|which|says|reads)\b)"
    rf"|{_CRITERIA} (?:for|of) (?:\S+ ){{0,4}}?(?:label|category)\b"
    r"|\b(?:falls? (?:under|into|in)|belongs? (?:to|in)|fits|matches) (?:the|this|that) (?:label|category|class)\b"
)
_WORDS_OF_ALL_CONDITIONS = ENGLISH_STOP_WORDS.union(
    _WORD.findall(
        """text texts message messages post posts sentence sentences clause clauses note notes input content excerpt
        comment example instance case kind type contain contains express expresses describe describes show shows present
        presents involve involves include includes mention mentions indicate indicates refer refers concern concerns
        relate relates related clearly explicitly considered classified"""
    )
)
