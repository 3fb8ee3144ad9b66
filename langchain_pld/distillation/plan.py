"""How much work a run does: effort presets as concrete numbers, and what it may spend at most."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from langchain_pld.distillation.prices import Price
from langchain_pld.errors import InputError

__all__ = ["PLANS", "AnswerSource", "Budget", "ClusterMode", "Effort", "Plan", "plan_of"]

AnswerSource = Literal["names", "task", "familiar", "teacher", "letters", "evidence"]
"""Where a candidate answer comes from: `names` of the labels; word sets of the `task` file; `familiar` sets, built in;
sets of the `teacher`; `letters`; `evidence`, the best of the words with a quotation before it."""

ClusterMode = Literal["auto", "paper", "kmeans"]
"""How micro-rules are grouped, see `cluster_label`: the first healthy of several methods, the paper's, or k-means."""

Effort = Literal["light", "medium", "heavy"]


class Budget(BaseModel):
    """Limits of a run; `None` is no limit. Teacher and student count together.

    A run that reaches one of them asks no further, and ends with the best prompt so far and the finish reason
    `budget`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int | None = Field(default=None, ge=0)
    """Model calls; answers from the cache are none."""
    tokens: int | None = Field(default=None, ge=0)
    """Prompt and generated tokens together."""
    usd: float | None = Field(default=None, ge=0)
    """US dollars, by published prices or the user's. A model that costs nothing is asked on when they are spent."""
    minutes: float | None = Field(default=None, ge=0)
    """Minutes of work; the time between being stopped and being resumed does not count."""

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
    """Which labelled examples, where there are more: `random`, balanced over labels; `uncertain`: half of them so, the
    other half those that the student gets wrong or is least sure about without rules, out of twice as many."""
    votes: int = Field(default=3, ge=2, le=6)
    """Labels that the teacher gives to each unlabelled example, asked in as many ways. Unlabelled examples are used
    only where the labelled ones do not fill `train_examples`."""
    agreement: float = Field(default=1.0, gt=0.5, le=1)
    """Share of the votes that has to be for one label; an example with less is left out."""
    synthetic_per_small_label: int = Field(default=0, ge=0, le=10)
    """Examples near the boundary that the teacher makes up for each label with less than half of an even share. Each
    has to win a vote as well; none is ever a validation or test example."""
    judge: bool = False
    """Whether the teacher judges the micro-rules, a dozen a call, after the screens did."""
    clustering: ClusterMode = "auto"
    """How micro-rules are grouped inside each label."""
    rules_per_label: int = Field(gt=0)
    """Clusters, hence merged rules, a label."""
    contrast_examples: int = Field(ge=0)
    """Examples of other labels that the teacher sees when it merges a cluster."""
    drafts: int = Field(default=1, gt=0)
    """Rules that the teacher drafts for each cluster, each from other texts; the student's scores choose among them."""
    trials: int = Field(ge=0)
    """Candidate prompts that are scored in search of better rules: without one of them, with another draft, with one
    more, in another order."""
    orders: bool = False
    """Whether other orders of the rules are among the trials."""
    rounds: int = Field(default=0, ge=0)
    """Passes of critique and validation at most: the teacher edits rules in view of the student's mistakes on train
    rows. The first pass in which no edit helps is the last."""
    revisions: int = Field(default=2, gt=0)
    """Confusions of one label with another that the teacher looks into in a pass, the most frequent first."""
    race_level: float = Field(default=0.05, ge=0, lt=1)
    """A candidate is not scored to the end once a one-sided test at this level says that it is behind; 0: never."""
    most_rules: int = Field(default=24, gt=0)
    """Rules of a prompt at most."""
    most_prompt_tokens: int = Field(default=2000, gt=0)
    """Tokens of a prompt at most, counted with the student's tokenizer where there is one, else estimated."""
    conflict_similarity: float = Field(default=0.85, gt=0, le=1)
    """Cosine from which on the conditions of two labels' rules count as nearly the same; the teacher then tells them
    apart."""
    ceiling: float | None = Field(default=0.99, gt=0, le=1)
    """Validation macro-F1 from which on nothing more is tried; `None`: never."""
    answer_forms: tuple[AnswerSource, ...] = Field(default=("names", "task"), min_length=1)
    """Which ways of answering are tried, each on all validation rows, with and without rules."""
    concurrency: int = Field(default=8, gt=0)
    """Teacher calls in flight."""
    max_failure_share: float = Field(default=0.3, gt=0, le=1)
    """Above this share of failed teacher calls the run ends."""
    replace_level: float = Field(default=0.8, gt=0, lt=1)
    """The distilled prompt replaces the zero-shot one when the confidence interval of the paired difference in
    macro-F1 at this level lies above zero."""
    max_risk: float | None = Field(default=None, gt=0, lt=1)
    """The highest risk that the student may run alone: a gate for it is fitted on the validation rows. `None`: no gate,
    it always decides."""
    require_review: bool = False
    """The rules must be accepted by a person before the artifact can be used; the run waits for it."""
    budget: Budget = Field(default_factory=Budget)
    """What the run may spend at most."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """Prices that go before the built-in table; model name to price, see `price_of`."""

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
