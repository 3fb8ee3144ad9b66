"""Labels for unlabelled examples: the teacher votes several times, and only agreement counts.

Each vote is asked differently, with the labels in another order, so that the teacher's habits do not decide. After
self-consistency (Wang et al. 2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field, create_model

from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.run.progress import OnProgress
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.templates import fill
from langchain_pld.examples import Example
from langchain_pld.student.sanitize import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Vote", "elect", "vote_messages"]

_WAYS = (
    "Decide which label fits best.",
    "Go through the labels one by one, say for each what speaks for and against it, then decide.",
    "Ask yourself which labels can be ruled out, and take the one that is left.",
)


class Vote(BaseModel):
    """One vote; the schema that is asked for lists the task's labels."""

    reason: str = Field(max_length=400)
    label: str


async def elect(
    task: Task, rows: Sequence[Example], teacher: Teacher, plan: Plan, on_progress: OnProgress = lambda *_: None
) -> tuple[list[Example], list[Failure]]:
    """Label examples by votes, ignoring labels they may have.

    Args:
        task: The task.
        rows: The examples.
        teacher: The voter.
        plan: Sets the number of votes, and the share needed for a label; a failed call counts against every label.
        on_progress: Called with examples done and total.

    Returns:
        The examples that got a label, in order, and the failures.
    """
    named: Any = Literal[task.label_names]
    ballot = create_model("Vote", __base__=Vote, label=(named, ...))
    failures: list[Failure] = []

    async def label_of(row: Example) -> str | None:
        answers = await ask_all(teacher.ask(vote_messages(task, row, number), ballot) for number in range(plan.votes))
        failures.extend(answer for answer in answers if isinstance(answer, Failure))
        counts = Counter(answer.label for answer in answers if isinstance(answer, Vote))
        label, most = max(counts.items(), key=lambda item: item[1], default=("", 0))
        return label if most >= plan.agreement * plan.votes - 1e-9 else None

    labels = await ask_all(map(label_of, rows), on_progress)
    agreed = zip(rows, labels, strict=True)
    return [row.model_copy(update={"label": label}) for row, label in agreed if label is not None], failures


def vote_messages(task: Task, example: Example, number: int) -> list[BaseMessage]:
    """The question of one vote, different for each number below three times the number of labels."""
    turn, way = number % len(task.labels), number // len(task.labels)
    labels = [*task.labels[turn:], *task.labels[:turn]]
    lines = "\n".join(f"- {label.name}: {label.description}".removesuffix(": ") for label in labels)
    system = fill("vote", instructions=task.instructions, labels=lines, way=_WAYS[way % len(_WAYS)])
    return [SystemMessage(system), HumanMessage(delimited(clean_text(task.render(example.input))))]
