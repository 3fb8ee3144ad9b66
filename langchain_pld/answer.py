"""How the student answers: which word or letter stands for which label."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_pld.task import WRAPPING, Task

__all__ = ["MOST_OPTIONS", "AnswerForm", "AnswerFormat", "Scorer"]

AnswerForm = Literal["words", "letters", "evidence", "two_stage"]
"""`words`: the label's word; `letters`: a letter; `evidence`: a short quotation, then the label's word; `two_stage`:
the letter of the best label of each group, then that of the best of these."""

Scorer = Literal["logprobs", "structured", "text"]
"""How an answer becomes label scores: token log-probabilities, a JSON-schema answer, or strict text."""

MOST_OPTIONS = 18
"""Most labels in one question of the two-stage form; servers list 20 alternatives, so two are left for other
spellings."""


class AnswerFormat(BaseModel):
    """The answer form and its verbalizer: one code per label, in prompt order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: AnswerForm = "words"
    """What the student writes."""
    codes: dict[str, str] = Field(min_length=2)
    """Label name to the word or letter of the answer; for two stages, the group's letter and the label's letter."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Tokens for thinking before the answer, for students whose thinking cannot be switched off."""
    first_tokens: dict[str, tuple[str, ...]] | None = Field(default=None, exclude_if=lambda known: known is None)
    """Label name to short first tokens of its code in the student's tokenizer, which would otherwise be ambiguous;
    `None` if not known."""
    orders: Literal[1] = 1
    """Always 1; kept because the hashes of artifacts cover it."""

    @model_validator(mode="after")
    def _codes_can_be_read(self) -> AnswerFormat:
        edged = [code for code in self.codes.values() if code != code.strip(WRAPPING)]
        if edged:
            msg = (
                f"the answer code {edged[0]!r} begins or ends with white space or punctuation, which is stripped from "
                "answers; use a plain word or letter"
            )
            raise ValueError(msg)
        folded = [code.casefold() for code in self.codes.values()]
        if "" in folded or len(set(folded)) < len(folded):
            msg = f"answer codes must be non-empty and differ from each other, got {self.codes}"
            raise ValueError(msg)
        if self.form == "two_stage":
            letters = set(string.ascii_uppercase)
            if not all(len(code) == 2 and letters.issuperset(code) for code in self.codes.values()):
                msg = "two-stage codes are two letters from A to Z, the group's and the label's"
                raise ValueError(msg)
            if len(self.groups) < 2:
                msg = "two stages need at least two groups of labels"
                raise ValueError(msg)
        return self

    @classmethod
    def words(cls, task: Task, verbalizer: dict[str, str] | None = None, *, form: AnswerForm = "words") -> AnswerFormat:
        """Answer with the words of `verbalizer`, or with the label names."""
        chosen = verbalizer or {name: name for name in task.label_names}
        return cls(form=form, codes={name: chosen[name] for name in task.label_names})

    @classmethod
    def letters(cls, task: Task) -> AnswerFormat:
        """Answer with A, B, C, …; with two letters from the 27th label on."""
        alphabet = string.ascii_uppercase
        names = task.label_names
        codes = alphabet if len(names) <= len(alphabet) else [a + b for a in alphabet for b in alphabet]
        return cls(form="letters", codes=dict(zip(names, codes, strict=False)))

    @classmethod
    def two_stage(cls, task: Task) -> AnswerFormat:
        """Answer in two stages, with as few groups as possible.

        Groups are cut from the labels sorted by name, so that names with a common prefix, which are mostly related, are
        compared side by side.

        Raises:
            ValueError: There are fewer than 4 labels, or more than `MOST_OPTIONS` squared.
        """
        names = sorted(task.label_names, key=str.casefold)
        count = max(2, -(-len(names) // MOST_OPTIONS))
        if len(names) < 4 or count > MOST_OPTIONS:
            msg = f"two stages serve 4 to {MOST_OPTIONS**2} labels, task {task.name!r} has {len(names)}"
            raise ValueError(msg)
        codes: dict[str, str] = {}
        for group in range(count):
            members = names[group * len(names) // count : (group + 1) * len(names) // count]
            letters = string.ascii_uppercase
            codes |= {name: letters[group] + letters[place] for place, name in enumerate(members)}
        return cls(form="two_stage", codes=codes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in prompt order."""
        return tuple(self.codes)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Letter of each group to its labels; empty unless the form is `two_stage`."""
        if self.form != "two_stage":
            return {}
        letters = dict.fromkeys(code[0] for code in self.codes.values())
        return {letter: tuple(name for name, code in self.codes.items() if code[0] == letter) for letter in letters}

    def best_letters(self, best: Mapping[str, str]) -> AnswerFormat:
        """The format of the last question: one label of each group, under the group's letter."""
        return self._stage({label: group for group, label in best.items()})

    def member_letters(self, group: str) -> AnswerFormat:
        """The format of a first-stage question: the labels of one group.

        Raises:
            ValueError: The group has only one label, so there is nothing to ask.
        """
        return self._stage({name: self.codes[name][1] for name in self.groups[group]})

    def _stage(self, codes: dict[str, str]) -> AnswerFormat:
        return AnswerFormat(form="letters", codes=codes, thinking_tokens=self.thinking_tokens)
