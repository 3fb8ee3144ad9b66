"""The form in which the student answers: which word or letter stands for which label."""

from __future__ import annotations

import string
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from langchain_pld.task import Task

__all__ = ["AnswerForm", "AnswerFormat", "Scorer"]

AnswerForm = Literal["words", "letters", "evidence"]
"""`words`: the label's word; `letters`: a letter code; `evidence`: a short quotation, then the label's word."""

Scorer = Literal["logprobs", "structured", "text"]
"""How an answer becomes label scores: token log-probabilities, a JSON-schema answer, or strict text."""


class AnswerFormat(BaseModel):
    """The answer form with its verbalizer: one code a label, in the order in which the prompt lists them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: AnswerForm = "words"
    """What the student writes."""
    codes: dict[str, str] = Field(min_length=2)
    """Label name to the word or letter that the student answers with."""

    @model_validator(mode="after")
    def _codes_differ(self) -> AnswerFormat:
        folded = [code.strip().casefold() for code in self.codes.values()]
        if "" in folded or len(set(folded)) < len(folded):
            msg = f"answer codes must be non-empty and differ from each other, got {self.codes}"
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

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in prompt order."""
        return tuple(self.codes)


ANSWER_FORMS: tuple[AnswerForm, ...] = get_args(AnswerForm)
