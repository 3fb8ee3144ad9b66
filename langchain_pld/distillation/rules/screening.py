"""Screens: what a drafted condition or cue must not contain, with reasons for people.

A condition becomes part of a system prompt, so whatever it copies from an example could inject instructions. It must be
plain prose about texts, without the wording, names or numbers of the text that it was drafted from. What appears in
many texts is allowed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from langchain_pld.distillation.rules.prompt_injection import contains_instruction, find_injection, mentions_models
from langchain_pld.distillation.rules.tautologies import is_tautology
from langchain_pld.examples import Example
from langchain_pld.student.sanitize import clean_text, skeleton
from langchain_pld.task import Task

__all__ = ["Objection", "Screen"]

_NGRAM = 5
_MIN_CONTENT_WORDS = 2
_SPACELESS_NGRAM = 8
_MIN_GROUPS = 3
_MIN_SCRIPT_SHARE = 0.05
_NO_LABELS = "Say what stands in such a text. Do not write a label, and do not speak of labels, categories or criteria."


@dataclass(frozen=True)
class Objection:
    """Why a condition is refused."""

    reason: str
    """What the condition does, as the end of a sentence that begins with "a condition that"."""
    request: str
    """What to tell the teacher when asking for another."""


@dataclass(frozen=True)
class Screen:
    """What a condition of one task must not contain."""

    task: Task
    """A condition must not rest on its labels."""
    common: frozenset[str] = frozenset()
    """Words, folded for comparison, from the task's own wording or from texts of several groups."""
    scripts: frozenset[str] | None = None
    """Scripts that conditions may use, by the first word of the Unicode names; `None`: any."""
    about_models: bool = False
    """Whether the task is about texts that address a model, so that conditions must mention it."""

    @classmethod
    def of(cls, task: Task, rows: Iterable[Example]) -> Screen:
        """The screen for a task and the rows that conditions are drafted from; without rows any script is allowed."""
        own = " ".join([task.instructions, *(f"{label.name} {label.description}" for label in task.labels)])
        groups: dict[str, set[str]] = defaultdict(set)
        letters: dict[str, int] = defaultdict(int)
        for row in rows:
            text = task.render(row.input)
            for word in set(_WORD.findall(skeleton(text))):
                groups[word].add(row.group or row.id)
            for char in text[:500]:
                letters[_script(char)] += char.isalpha()
        common = {word for word, members in groups.items() if len(members) >= _MIN_GROUPS}
        scripts = {name for name, count in letters.items() if count > _MIN_SCRIPT_SHARE * sum(letters.values())}
        return cls(
            task=task,
            common=frozenset(common.union(_WORD.findall(skeleton(f"{own} {' '.join(task.fields)}")))),
            scripts=frozenset(scripts | _scripts(own)) if scripts else None,
            about_models=mentions_models(own),
        )

    def objection(self, condition: str, sources: Iterable[str] = ()) -> Objection | None:
        """The first objection to a condition or cue drafted from these sources, or `None`."""
        reason = find_injection(condition, labels=self.task.label_names, about_models=self.about_models)
        if reason is None and self.scripts is not None and _scripts(condition) - self.scripts:
            reason = "is written in another script than the texts"
        if reason is not None:
            return Objection(reason, 'Write one plain sentence, "If the text …", about such texts and nothing else.')
        if is_tautology(condition, self.task, common=self.common):
            return Objection("rests on a label instead of the text", _NO_LABELS)
        return next((found for source in sources if (found := self.leak(condition, source))), None)

    def leak(self, condition: str, source: str) -> Objection | None:
        """The objection if a condition copies words, numbers or names from a text that its author saw."""
        words = self._shared_words(condition, source)
        if words is not None:
            return Objection("shares words in a row with its source", f'Do not use the words "{words}" of the text.')
        numbers = _numbers(condition) & _numbers(source) - self.common
        if numbers:
            return Objection("takes over a number of its source", f'Leave out the number "{min(numbers)}".')
        names = self._names(condition, source)
        if names:
            return Objection("takes over a name of its source", f'Leave out the name "{min(names)}".')
        return None

    def _shared_words(self, condition: str, source: str) -> str | None:
        own, theirs = skeleton(condition), skeleton(source)
        # Any wording of a text that tries to steer a model may be the injection.
        size = _MIN_CONTENT_WORDS if contains_instruction(source) else _NGRAM
        known = set(_runs(_WORD.findall(theirs), size))
        for run in _runs(_WORD.findall(own), size):
            if run in known and sum(self._is_content(word) for word in run) >= _MIN_CONTENT_WORDS:
                return " ".join(run)
        known = set(_runs(_SPACELESS.findall(theirs), _SPACELESS_NGRAM))
        return next(("".join(run) for run in _runs(_SPACELESS.findall(own), _SPACELESS_NGRAM) if run in known), None)

    def _is_content(self, word: str) -> bool:
        return word not in ENGLISH_STOP_WORDS and word not in self.common

    def _names(self, condition: str, source: str) -> set[str]:
        """Words of the condition that the source always capitalises."""
        spelled = list(_spelled(source))
        lower = {skeleton(word) for word, _ in spelled if word.islower()}
        capitals = [(skeleton(word), begins) for word, begins in spelled if _is_capital(word)]
        # Capitals mean nothing in a headline or a shouted text.
        inside = {word for word, begins in capitals if not begins} if 2 * len(capitals) < len(spelled) else set()
        anywhere = {word for word, _ in capitals}
        return {
            word
            for word, begins in _spelled(condition)
            if self._is_content(key := skeleton(word))
            and key not in lower
            and (key in inside or (key in anywhere and _is_capital(word) and not begins))
        }


def _runs(items: list[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(items[n : n + size]) for n in range(len(items) - size + 1))


def _numbers(text: str) -> set[str]:
    """The numbers in a text, in ASCII digits without separators."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return {"".join(str(unicodedata.decimal(char)) for char in number if char.isdecimal()) for number in found}


def _spelled(text: str) -> Iterator[tuple[str, bool]]:
    """The words as spelled, and whether each begins a sentence."""
    text = clean_text(text)
    for match in _WORD.finditer(text):
        before = text[max(0, match.start() - 8) : match.start()].rstrip(_BEFORE_A_WORD)
        yield match.group(), not before or before[-1] in _SENTENCE_ENDS


def _is_capital(word: str) -> bool:
    return len(word) > 2 and word[0].isupper()


def _scripts(text: str) -> set[str]:
    return {_script(char) for char in clean_text(text) if char.isalpha()}


def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN").split(" ")[0]


_WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_NUMBER = re.compile(r"\d(?:[\d.,:/ -]*\d)?")
# Thai, Lao, Burmese, Khmer, Japanese and Chinese put no spaces between words.
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_BEFORE_A_WORD = " \t\"'()[]*-\u2013\u2014\u2018\u2019\u201c\u201d\u00ab\u00bb"
_SENTENCE_ENDS = ".!?:;\n\u2026\u3002\uff01\uff1f"
