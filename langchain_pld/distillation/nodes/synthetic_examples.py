"""Boundary examples that the teacher makes up for small labels, always marked as synthetic.

A text that copies a shown one or is already in the data is dropped; the others have to win a blind vote of the teacher.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.distillation.roles import text_key
from langchain_pld.distillation.rules.prompt_injection import contains_instruction
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.teacher import Teacher
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.errors import InputError
from langchain_pld.examples import Example
from langchain_pld.student.sanitize import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Invented", "invent", "small_labels"]

_SHOWN = 5
_SHOWN_CHARS = 400


class Invented(BaseModel):
    """The teacher's texts; for a task with fields, each a mapping of them."""

    texts: list[str | dict[str, str]] = Field(max_length=20)


def small_labels(task: Task, rows: Sequence[Example]) -> list[str]:
    """Labels with less than half an even share of the rows."""
    counts = [sum(row.label == label for row in rows) for label in task.label_names]
    even = len(rows) / len(task.labels)
    return [label for label, count in zip(task.label_names, counts, strict=True) if count < even / 2]


async def invent(
    task: Task,
    label: str,
    rows: Sequence[Example],
    teacher: Teacher,
    *,
    count: int,
    screen: Screen,
    taken: Collection[str],
    seed: int,
) -> list[Example] | Failure:
    """Have the teacher make up examples of one label, in one call.

    Args:
        task: The task.
        label: The label.
        rows: Labelled train rows, some of which are shown to the teacher.
        teacher: The teacher.
        count: Number of examples.
        screen: Rejects texts that copy from those shown.
        taken: Keys (`text_key`) of all texts in the data, whatever their role.
        seed: Seed of the choice of rows to show.

    Returns:
        Up to `count` examples with ids beginning with `synthetic-`; rejected texts are missing.
    """
    shuffler = random.Random(f"{seed} {label}")
    own = [row for row in rows if row.label == label]
    others = [row for row in rows if row.label != label]
    shown = [shuffler.sample(some, min(_SHOWN, len(some))) for some in (own, others)]
    answer = await teacher.ask(_messages(task, label, count, *shown), Invented)
    if isinstance(answer, Failure):
        return answer
    sources = [task.render(row.input) for some in shown for row in some]
    keys = set(taken)
    made: list[Example] = []
    for number, text in enumerate(answer.texts[:count]):
        example = Example(id=f"synthetic-{label}-{number}", input=text, label=label)
        try:
            rendered = task.render(text)
        except InputError:
            continue
        copied = any(screen.leak(rendered, source) for source in sources)
        if copied or contains_instruction(rendered) or text_key(task, text) in keys:
            continue
        keys.add(text_key(task, text))
        made.append(example)
    return made


def _messages(task: Task, label: str, count: int, own: list[Example], others: list[Example]) -> list[BaseMessage]:
    form = f"Each is an object with the fields {', '.join(task.fields)}." if task.fields else ""
    system = fill(
        "invent",
        instructions=task.instructions,
        labels=label_lines(task),
        label=label,
        count=str(count),
        form=form,
    )
    parts = [f'Texts with the label "{label}":', *(_quote(task, row) for row in own)]
    parts += ["\nTexts with other labels:", *(_quote(task, row) for row in others)]
    return [SystemMessage(system), HumanMessage("\n".join(parts))]


def _quote(task: Task, row: Example) -> str:
    return delimited(clean_text(task.render(row.input))[:_SHOWN_CHARS])
