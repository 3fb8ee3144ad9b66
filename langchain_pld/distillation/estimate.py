"""What a run will ask at most, told before it begins: calls, tokens, money, and minutes where the model runs here.

The bound follows from the numbers of the plan. It leaves out what depends on luck: questions that are asked twice
because an answer did not fit, and calls that fail and are tried again. Races, ceilings and cached answers make a run
cheaper than this.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.prices import price_of
from langchain_pld.distillation.templates import label_lines
from langchain_pld.examples import ExampleSet
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.windows import estimated_tokens
from langchain_pld.task import Task

__all__ = ["READ_PER_S", "WRITTEN_PER_S", "Estimate", "EstimateLine", "estimate"]

READ_PER_S, WRITTEN_PER_S = 100, 15
"""Tokens a second of the default embedded model on two idle cores, measured; what a prompt shares with the one before
is not read again."""

_QUESTION, _CONDITION, _SHOWN_TEXT = 350, 75, 120
"""Tokens of a question's own words, of a condition, and of a text that is shown in part."""
_ANSWER, _USUAL_ANSWER = 300, 90
"""Tokens of a teacher's answer: the longest that the schema allows, and what is usual, for the minutes."""
_ENGLISH = 0.5
"""Tokens of English prose over the estimate from above; for the minutes."""
_CHAT = 20
"""Tokens around a text."""
_CONTENT_FREE = 3
"""Inputs without content that each prompt is tried on, for the contextual calibration."""
_PROBES = 4
"""Calls that find out how the student's answers can be read."""
_JUDGED = 12
"""Conditions that a judgement covers."""
_SHOWN = 8
"""Conditions or texts of one kind that a question shows."""


class EstimateLine(BaseModel):
    """What one node will ask one model, at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    """Node of the graph; `test` for the final reading of the test rows."""
    model: str
    """The model asked, as `provider:name`."""
    calls: int
    """Calls."""
    input_tokens: int
    """Prompt tokens of all calls."""
    output_tokens: int
    """Generated tokens of all calls."""
    cost: float | None
    """US dollars; `None` where the model's price is not known."""
    seconds: float | None
    """Seconds on two idle cores; `None` where the model does not run in this process."""
    how: str
    """How the calls were counted."""


class Estimate(BaseModel):
    """What a run will ask, at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lines: tuple[EstimateLine, ...]
    """A line for each node and model."""

    @property
    def calls(self) -> int:
        """Calls of all nodes."""
        return sum(line.calls for line in self.lines)

    @property
    def tokens(self) -> int:
        """Tokens of all nodes."""
        return sum(line.input_tokens + line.output_tokens for line in self.lines)

    @property
    def cost(self) -> float | None:
        """US dollars; `None` where a price is not known."""
        costs = [line.cost for line in self.lines]
        return None if None in costs else sum(cost or 0.0 for cost in costs)

    @property
    def seconds(self) -> float | None:
        """Seconds of the models in this process; `None` where there is none."""
        known = [line.seconds for line in self.lines if line.seconds is not None]
        return sum(known) if known else None


def estimate(
    task: Task,
    plan: Plan,
    *,
    train: ExampleSet,
    validation: ExampleSet,
    test: ExampleSet | None = None,
    teacher: str,
    student: str,
) -> Estimate:
    """Bound what a run will ask.

    Args:
        task: What is to be decided.
        plan: The numbers of the run.
        train: Rows that the teacher may see.
        validation: Rows for selection and calibration.
        test: Rows for the reported scores.
        teacher: The model that writes rules, as `provider:name`.
        student: The model that will decide, as `provider:name`.
    """
    lines: list[EstimateLine] = []

    def add(model: str, node: str, calls: int, shared: int, own: int, written: int, how: str, usual: int) -> None:
        price = price_of(model, plan.prices)
        tokens = {"input_tokens": calls * (shared + own), "output_tokens": calls * written}
        here = model.startswith("embedded:")
        lines.append(
            EstimateLine(
                node=node,
                model=model,
                calls=calls,
                **tokens,
                cost=None if price is None else price.of(**tokens),
                seconds=calls * (own * _ENGLISH / READ_PER_S + usual / WRITTEN_PER_S) if here else None,
                how=how,
            )
        )

    def asks(node: str, calls: int, own: int, how: str) -> None:
        if calls:
            add(teacher, node, calls, question, own, _ANSWER, how, _USUAL_ANSWER)

    def decides(node: str, texts: int, own: int, how: str) -> None:
        if texts:
            add(student, node, texts * stages, prompt, own, written, how, written)

    labels, count = len(task.labels), _length(task)
    question = _QUESTION + estimated_tokens(f"{task.instructions}\n{label_lines(task)}")
    rules = min(plan.most_rules, labels * plan.rules_per_label)
    stages = 2 if labels > 18 else 1
    prompt = min(plan.most_prompt_tokens, _plain_prompt(task) + rules * _CONDITION)
    written = 40 if "evidence" in plan.answer_forms else 1
    explained = min(plan.train_examples, len(train))
    train_text, row_text = count(train), count(validation) + _CHAT

    unlabelled = sum(row.label is None for row in train)
    voted = min(unlabelled, max(0, explained - (len(train) - unlabelled)))
    made_up = plan.synthetic_per_small_label * labels
    votes = plan.votes * (voted + made_up) + (labels if made_up else 0)
    explained += made_up
    how = f"{explained} examples, one call each" + (f", {votes} votes on labels" if votes else "")
    asks("generate", explained + votes, train_text, how)
    if plan.choose == "uncertain" and len(train) - unlabelled > plan.train_examples:
        pool = min(2 * plan.train_examples, len(train) - unlabelled)
        decides("generate", pool, train_text + _CHAT, f"{pool} examples without rules")
    asks("extract", explained, train_text, "each draft asked for once more")
    merges = labels * plan.rules_per_label * plan.drafts
    shown = _SHOWN * _CONDITION + (_SHOWN + plan.contrast_examples) * _SHOWN_TEXT
    asks("consolidate", merges + 1, shown, f"{labels} labels x {plan.rules_per_label} rules x {plan.drafts} drafts + 1")
    edits = plan.rounds * plan.revisions
    batches = labels + explained // _JUDGED if plan.judge else 0
    how = f"{plan.rounds} passes x {plan.revisions} confusions" + (f" + {batches} judgements" if batches else "")
    asks("critique", edits + batches, shown, how)
    decides("critique", plan.rounds * explained, train_text + _CHAT, f"{plan.rounds} passes x {explained} examples")
    asks("validate", int("teacher" in plan.answer_forms), 0, "one call for answer words")
    forms = _answer_forms(task, plan)
    prompts = 2 * forms + plan.trials + edits
    rows = len(validation) + _CONTENT_FREE
    how = f"{prompts} prompts x {rows} texts: 2 x {forms} answer forms, {plan.trials} trials, {edits} edits"
    decides("validate", prompts * rows + _PROBES, row_text, how)
    if test is not None:
        decides("test", 2 * len(test), count(test) + _CHAT, f"2 prompts x {len(test)} rows")
    return Estimate(lines=tuple(lines))


def _length(task: Task) -> Callable[[ExampleSet], int]:
    """Mean tokens of a text in a set of rows."""
    return lambda rows: round(fmean(estimated_tokens(task.render(row.input)) for row in rows)) if len(rows) else 0


def _plain_prompt(task: Task) -> int:
    answer = AnswerFormat.letters(task) if len(task.labels) <= 26 else AnswerFormat.two_stage(task)
    return estimated_tokens(compile_prompt(task, (), answer))


def _answer_forms(task: Task, plan: Plan) -> int:
    """Ways of answering that are tried, at most."""
    most = {"names": 1, "task": len(task.verbalizers), "familiar": 2, "teacher": 3, "letters": 1, "evidence": 1}
    return max(1, sum(most[source] for source in plan.answer_forms))
