"""The form in which the student answers: which word or letter stands for which label."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_pld.task import WRAPPING, Task

__all__ = ["MOST_OPTIONS", "AnswerForm", "AnswerFormat", "Scorer"]

AnswerForm = Literal["words", "letters", "evidence", "two_stage"]
"""`words`: the label's word; `letters`: a letter code; `evidence`: a short quotation, then the label's word;
`two_stage`: asked for each group of labels, the letter of the best; then, of those, the letter of the best."""

Scorer = Literal["logprobs", "structured", "text"]
"""How an answer becomes label scores: token log-probabilities, a JSON-schema answer, or strict text."""

MOST_OPTIONS = 18
"""Most answers that one question of the two-stage form offers; with 20 alternatives shown there is room for two more
spellings."""


class AnswerFormat(BaseModel):
    """The answer form with its verbalizer: one code a label, in the order in which the prompt lists them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: AnswerForm = "words"
    """What the student writes."""
    codes: dict[str, str] = Field(min_length=2)
    """Label name to the word or letter that the student answers with; for two stages, the group's letter and the
    label's letter in it."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Room for thinking before the answer, in tokens, for students whose thinking cannot be switched off."""
    first_tokens: dict[str, tuple[str, ...]] | None = Field(default=None, exclude_if=lambda known: known is None)
    """Label name to first tokens of its code, as the student's tokenizer cuts it, that are too short to be told from
    another word's without knowing this; `None` where it is not known."""
    orders: Literal[1] = 1
    """Always 1: the label orders that each text is asked in, kept because artifacts' hashes cover it."""

    @model_validator(mode="after")
    def _codes_can_be_read(self) -> AnswerFormat:
        edged = [code for code in self.codes.values() if code != code.strip(WRAPPING)]
        if edged:
            msg = (
                f"the answer code {edged[0]!r} begins or ends in white space or punctuation, which a reader takes off; "
                "use a plain word or letter"
            )
            raise ValueError(msg)
        folded = [code.casefold() for code in self.codes.values()]
        if "" in folded or len(set(folded)) < len(folded):
            msg = f"answer codes must be non-empty and differ from each other, got {self.codes}"
            raise ValueError(msg)
        if self.form == "two_stage":
            letters = set(string.ascii_uppercase)
            if not all(len(code) == 2 and letters.issuperset(code) for code in self.codes.values()):
                msg = "codes of two stages are two letters from A to Z, the group's and the label's"
                raise ValueError(msg)
            if len(self.groups) < 2:
                msg = "two stages need at least two groups of labels"
                raise ValueError(msg)
        return self

    @classmethod
    def words(cls, task: Task, verbalizer: dict[str, str] | None = None, *, form: AnswerForm = "words") -> AnswerFormat:
        """Answer with words: those of `verbalizer`, or the label names."""
        chosen = verbalizer or {name: name for name in task.label_names}
        return cls(form=form, codes={name: chosen[name] for name in task.label_names})

    @classmethod
    def letters(cls, task: Task) -> AnswerFormat:
        """Answer with A, B, C, …; two letters from the 27th label on."""
        alphabet = string.ascii_uppercase
        names = task.label_names
        codes = alphabet if len(names) <= len(alphabet) else [a + b for a in alphabet for b in alphabet]
        return cls(form="letters", codes=dict(zip(names, codes, strict=False)))

    @classmethod
    def two_stage(cls, task: Task) -> AnswerFormat:
        """Answer in two stages: as few groups as can be, each of as many labels as one answer shows.

        Labels are sorted by name before they are cut into groups, so that names with a common beginning, which are
        mostly kin, are told from each other side by side.

        Raises:
            ValueError: There are fewer than 4 labels, or more than two stages of `MOST_OPTIONS` can tell apart.
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
        """Letter of each group to its labels, where the form is `two_stage`; else nothing."""
        if self.form != "two_stage":
            return {}
        letters = dict.fromkeys(code[0] for code in self.codes.values())
        return {letter: tuple(name for name, code in self.codes.items() if code[0] == letter) for letter in letters}

    def best_letters(self, best: Mapping[str, str]) -> AnswerFormat:
        """The last question of two stages, as a format of its own: one label of each group, with the group's letter."""
        return self._stage({label: group for group, label in best.items()})

    def member_letters(self, group: str) -> AnswerFormat:
        """A question of the first stage: the labels of one group, each with its letter.

        Raises:
            ValueError: The group has one label only, so that there is nothing to ask.
        """
        return self._stage({name: self.codes[name][1] for name in self.groups[group]})

    def _stage(self, codes: dict[str, str]) -> AnswerFormat:
        return AnswerFormat(form="letters", codes=codes, thinking_tokens=self.thinking_tokens)
