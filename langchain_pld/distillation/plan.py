"""How much work a run does: effort presets as concrete numbers, and the budget."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from langchain_pld.distillation.prices import Price
from langchain_pld.errors import InputError

__all__ = ["PLANS", "AnswerSource", "Budget", "ClusterMode", "Effort", "Plan", "plan_of"]

AnswerSource = Literal["names", "task", "familiar", "teacher", "letters", "evidence"]
"""Where a candidate answer comes from: label `names`; word sets of the `task` file; built-in `familiar` sets; sets of
the `teacher`; `letters`; `evidence`, the best words after a quotation."""

ClusterMode = Literal["auto", "paper", "kmeans"]
"""How to group micro-rules, see `cluster_label`: the first healthy of several methods, the paper's, or k-means."""

Effort = Literal["light", "medium", "heavy"]


class Budget(BaseModel):
    """Limits of a run, teacher and student together; `None` is no limit.

    A run that reaches one asks nothing more, and ends with the best prompt so far and the finish reason `budget`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int | None = Field(default=None, ge=0)
    """Model calls; cached answers do not count."""
    tokens: int | None = Field(default=None, ge=0)
    """Prompt and generated tokens together."""
    usd: float | None = Field(default=None, ge=0)
    """US dollars, at published or the user's prices. Free models may still be asked once they are spent."""
    minutes: float | None = Field(default=None, ge=0)
    """Minutes of work, not counting interruptions."""

    def describe(self) -> str:
        """The limits in a few words."""
        limits = [
            f"{self.calls} calls" if self.calls is not None else "",
            f"{self.tokens} tokens" if self.tokens is not None else "",
            f"{self.usd:g} USD" if self.usd is not None else "",
            f"{self.minutes:g} minutes" if self.minutes is not None else "",
        ]
        return ", ".join(filter(None, limits)) or "no limit"


class Plan(BaseModel):
    """The numbers that decide what a run costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_examples: int = Field(gt=0)
    """Labelled examples that the teacher explains, balanced over labels."""
    choose: Literal["random", "uncertain"] = "random"
    """Which labelled examples to take, if there are more: `random`, balanced over labels; `uncertain`, half at random,
    the other half the hardest for the student without rules, out of twice as many."""
    votes: int = Field(default=3, ge=2, le=6)
    """Teacher's votes, each asked differently, on the label of an unlabelled example; used only if the labelled ones do
    not fill `train_examples`."""
    agreement: float = Field(default=1.0, gt=0.5, le=1)
    """Least share of the votes for one label; examples with less are left out."""
    synthetic_per_small_label: int = Field(default=0, ge=0, le=10)
    """Boundary examples that the teacher makes up for each label with less than half an even share. Each has to win a
    vote too; none becomes a validation or test example."""
    judge: bool = False
    """Whether the teacher judges the screened micro-rules, a dozen per call."""
    clustering: ClusterMode = "auto"
    """How to group the micro-rules of each label."""
    rules_per_label: int = Field(gt=0)
    """Clusters, hence merged rules, per label."""
    contrast_examples: int = Field(ge=0)
    """Examples of other labels that the teacher sees when it merges a cluster."""
    drafts: int = Field(default=1, gt=0)
    """Rules drafted per cluster, each from other texts; the student's scores choose among them."""
    trials: int = Field(ge=0)
    """Candidate prompts to score in search of better rules: one less, another draft, one more, another order."""
    orders: bool = False
    """Whether the trials include other orders of the rules."""
    rounds: int = Field(default=0, ge=0)
    """Maximum passes of critique and validation, in which the teacher edits rules after the student's mistakes on train
    rows. A pass without improvement is the last."""
    revisions: int = Field(default=2, gt=0)
    """Confusions of two labels to revise per pass, most frequent first."""
    race_level: float = Field(default=0.05, ge=0, lt=1)
    """Level of the one-sided test that stops scoring a candidate that is behind; 0: never."""
    most_rules: int = Field(default=24, gt=0)
    """Maximum rules of a prompt."""
    most_prompt_tokens: int = Field(default=2000, gt=0)
    """Maximum tokens of a prompt, counted with the student's tokenizer if available, else estimated."""
    conflict_similarity: float = Field(default=0.85, gt=0, le=1)
    """Cosine from which on rules of two labels conflict, so that the teacher rewrites them."""
    ceiling: float | None = Field(default=0.99, gt=0, le=1)
    """Validation macro-F1 that is good enough to stop; `None`: never."""
    answer_forms: tuple[AnswerSource, ...] = Field(default=("names", "task"), min_length=1)
    """The answer formats to try, each on all validation rows, with and without rules."""
    concurrency: int = Field(default=8, gt=0)
    """Teacher calls in flight."""
    max_failure_share: float = Field(default=0.3, gt=0, le=1)
    """The run ends above this share of failed teacher calls."""
    replace_level: float = Field(default=0.8, gt=0, lt=1)
    """Confidence level of the interval of the paired difference in macro-F1; the distilled prompt replaces the
    zero-shot one if the interval lies above zero."""
    max_risk: float | None = Field(default=None, gt=0, lt=1)
    """Highest risk at which the student may decide alone; a gate for it is fitted on the validation rows. `None`: no
    gate."""
    require_review: bool = False
    """Whether a person has to accept the rules before the artifact can be used; the run waits for it."""
    budget: Budget = Field(default_factory=Budget)
    """The limits of the run."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """Model name to price; takes precedence over published prices, see `price_of`."""

    def describe(self) -> str:
        """The numbers in one line."""
        picked = "picked at random" if self.choose == "random" else "half of them those the student finds hard"
        several = f" in {self.drafts} drafts each" if self.drafts > 1 else ""
        parts = (
            f"the teacher explains up to {self.train_examples} examples, {picked}",
            f"makes up {self.synthetic_per_small_label} more for each label that has few"
            if self.synthetic_per_small_label
            else "",
            "judges what it wrote" if self.judge else "",
            f"writes up to {_count(self.rules_per_label, 'rule')} a label{several}",
            f"corrects them in view of the student's mistakes, in at most {_count(self.rounds, 'pass', 'passes')}"
            if self.rounds
            else "",
            f"the student tries up to {_count(self.trials, 'change')} of the rules, and answers with "
            + ", ".join(_ANSWERS[source] for source in self.answer_forms),
            f"new rules are kept if the {self.replace_level:.0%} interval of their gain lies above zero",
            f"clusters by {self.clustering}" if self.clustering != "auto" else "",
            "a person reviews the rules" if self.require_review else "",
            f"a gate at a risk of {self.max_risk:g}" if self.max_risk is not None else "",
            f"budget: {self.budget.describe()}",
        )
        return "; ".join(filter(None, parts))


_ANSWERS: dict[AnswerSource, str] = {
    "names": "the labels' names",
    "task": "the task's own words",
    "familiar": "familiar words",
    "teacher": "words of the teacher's choice",
    "letters": "letters",
    "evidence": "a word after a quotation",
}


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


PLANS: dict[Effort, Plan] = {
    "light": Plan(train_examples=60, rules_per_label=2, contrast_examples=6, trials=4, rounds=1),
    "medium": Plan(
        train_examples=150,
        choose="uncertain",
        judge=True,
        rules_per_label=4,
        contrast_examples=8,
        drafts=2,
        trials=12,
        rounds=3,
        revisions=3,
        answer_forms=("names", "task", "familiar", "evidence"),
    ),
    "heavy": Plan(
        train_examples=400,
        choose="uncertain",
        votes=5,
        agreement=0.8,
        judge=True,
        rules_per_label=6,
        contrast_examples=10,
        drafts=3,
        trials=32,
        orders=True,
        rounds=6,
        revisions=5,
        answer_forms=("names", "task", "familiar", "teacher", "letters", "evidence"),
    ),
}


def plan_of(effort: Effort | Plan) -> Plan:
    """The numbers of a preset; a plan as it is.

    Raises:
        InputError: There is no such preset.
    """
    if isinstance(effort, Plan):
        return effort
    try:
        return PLANS[effort]
    except (KeyError, TypeError):
        msg = f"there is no effort {effort!r}; choose {', '.join(map(repr, PLANS))}, or give a Plan"
        raise InputError(msg) from None
