"""Conditions that rest on the label instead of the text, e.g. "If the text meets the criteria for the 'alpha' label".

They read like rules and decide nothing. Label names are ordinary words as well, and a good condition may hold them, for
instance "If the text insults a religion" for the label religion. So only the forms are looked for that speak of labels,
and conditions in which nothing is left beside a label's name or definition.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from langchain_pld.student.sanitize import clean_text
from langchain_pld.task import Task

__all__ = ["circular"]


def circular(condition: str, task: Task, *, common: Collection[str] = ()) -> bool:
    """Whether a condition says no more than that a label applies.

    Args:
        condition: A drafted condition.
        task: The task with its labels.
        common: Words that the texts themselves hold often, in lower case: where texts are about product labels, a
            condition may say "the label".
    """
    text = _spaced(clean_text(condition))
    if "label" not in common and _ABOUT_LABELS.search(text):
        return True
    names = tuple(_spaced(name) for name in task.label_names)
    return any(form.search(text) for form in _forms(names)) or _only_a_label(text, task)


def _only_a_label(text: str, task: Task) -> bool:
    """Whether a condition has no words of its own beside a label's name or definition."""
    own, asked = _content(text), _content(task.instructions)
    for label in task.labels:
        name, definition = _content(label.name), _content(label.description)
        if own and own in (name, definition):
            return True
        if name and own - (asked - name) == name:
            return True
    return False


@lru_cache
def _forms(names: tuple[str, ...]) -> list[re.Pattern[str]]:
    """Forms that speak of a label by its name."""
    name = "(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")"
    own = rf"(?<!\w){_QUOTE}?{name}{_QUOTE}?(?!\w)"
    return [
        re.compile(form)
        for form in (
            rf"{_NO_WORD_OF_THE_TEXT}{_QUOTE}{name}{_QUOTE}",
            rf"\b(?:label|category|tag)(?: (?:is|of|called|named|as|for))?(?: ?[:=])? {own}",
            rf"\bclass(?: (?:is|of|called|named))?(?: ?[:=])? {_QUOTE}{name}{_QUOTE}",
            rf"{own} (?:label|category|tag)\b",
            rf"{_CRITERIA} (?:for|of) (?:being |the |an? )?{own}",
            rf"\b(?:labell?ed|classified|categori[sz]ed|tagged|falls? (?:under|into|in)|belongs? (?:to|in))"
            rf"(?: (?:as|under|with|the|an?))* {own}[.!]?$",
            rf"\b(?:counts? as|qualif(?:y|ies) as|considered(?: as| to be)?)(?: an?)? {own}[.!]?$",
        )
    ]


def _content(text: str) -> frozenset[str]:
    """What is left of a text without the words that all conditions have."""
    return frozenset(word for word in _WORD.findall(_spaced(text)) if word not in _FRAME)


def _spaced(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").split())


_QUOTE = "[\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb]"
_NO_WORD_OF_THE_TEXT = "".join(
    rf"(?<!\b{word} )"
    for word in (
        *("word", "words", "term", "terms", "phrase", "letter", "say", "says", "contains", "mentions", "uses"),
        *("like", "or", "and", "as"),
    )
)
"""Not behind these: what a text says may well be a label's name."""
_CRITERIA = r"\b(?:criteri(?:a|on)|definition|description|requirements?|guidelines?)"
_ABOUT_LABELS = re.compile(
    r"\b(?:this|that|the (?:given|correct|right|same|above|assigned|other|respective)) (?:label|category)\b"
    r"|\bthe label\b(?! (?:on|of|that|which|says|reads)\b)"
    rf"|{_CRITERIA} (?:for|of) (?:\S+ ){{0,4}}?(?:label|category)\b"
    r"|\b(?:falls? (?:under|into|in)|belongs? (?:to|in)|fits|matches) (?:the|this|that) (?:label|category|class)\b"
)
_WORD = re.compile(r"\w+")
_FRAME = ENGLISH_STOP_WORDS | frozenset(
    (
        *("text", "texts", "message", "messages", "post", "posts", "sentence", "sentences", "clause", "clauses"),
        *("note", "notes", "input", "content", "excerpt", "comment", "example", "instance", "case", "kind", "type"),
        *(
            "contain",
            "contains",
            "express",
            "expresses",
            "describe",
            "describes",
            "show",
            "shows",
            "present",
            "presents",
        ),
        *(
            "involve",
            "involves",
            "include",
            "includes",
            "mention",
            "mentions",
            "indicate",
            "indicates",
            "refer",
            "refers",
        ),
        *("concern", "concerns", "relate", "relates", "related", "clearly", "explicitly", "considered", "classified"),
    )
)
