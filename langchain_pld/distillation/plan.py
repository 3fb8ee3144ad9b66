"""How much work a run does: effort presets as concrete numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PLANS", "AnswerSource", "Effort", "Plan"]

AnswerSource = Literal["names", "task", "familiar", "teacher", "letters", "evidence"]
"""Where a candidate answer comes from: `names` of the labels; word sets of the `task` file; `familiar` sets, built in;
sets of the `teacher`; `letters`; `evidence`, the best of the words with a quotation before it."""

Effort = Literal["light", "medium", "heavy"]


class Plan(BaseModel):
    """The numbers that decide what a run costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_examples: int = Field(gt=0)
    """Labelled examples that the teacher explains, balanced over labels."""
    rules_per_label: int = Field(gt=0)
    """Clusters, hence merged rules, a label."""
    contrast_examples: int = Field(ge=0)
    """Examples of other labels that the teacher sees when it merges a cluster."""
    eliminations: int = Field(ge=0)
    """Rounds of backward elimination, one candidate prompt a round."""
    answer_forms: tuple[AnswerSource, ...] = Field(default=("names", "task"), min_length=1)
    """Which ways of answering are tried, each on all validation rows, with and without rules."""
    concurrency: int = Field(default=8, gt=0)
    """Teacher calls in flight."""
    max_failure_share: float = Field(default=0.3, gt=0, le=1)
    """Above this share of failed teacher calls the run ends."""
    replace_level: float = Field(default=0.8, gt=0, lt=1)
    """The distilled prompt replaces the zero-shot one when the confidence interval of the paired difference in
    macro-F1 at this level lies above zero."""
    gate_alpha: float | None = Field(default=None, gt=0, lt=1)
    """The highest risk that the student may run alone: a gate for it is fitted on the validation rows. `None`: no gate,
    it always decides."""

    def describe(self) -> str:
        """The numbers in one line."""
        return (
            f"up to {self.train_examples} examples explained, {self.rules_per_label} rules a label, "
            f"{self.eliminations} elimination rounds, answers from {', '.join(self.answer_forms)}, "
            f"replacement at a {self.replace_level:.0%} interval"
        )


PLANS: dict[Effort, Plan] = {
    "light": Plan(train_examples=60, rules_per_label=2, contrast_examples=6, eliminations=2),
    "medium": Plan(
        train_examples=150,
        rules_per_label=4,
        contrast_examples=8,
        eliminations=6,
        answer_forms=("names", "task", "familiar", "evidence"),
    ),
    "heavy": Plan(
        train_examples=400,
        rules_per_label=6,
        contrast_examples=10,
        eliminations=16,
        answer_forms=("names", "task", "familiar", "teacher", "letters", "evidence"),
    ),
}
