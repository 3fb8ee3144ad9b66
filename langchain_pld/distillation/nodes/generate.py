"""generate: the teacher explains why each example has its label.

In: the rows in the Store. Out: the selected examples and their explanations, both in the Store. One call explains an
example and drafts the condition that `extract` checks. Failed calls are recorded; too many end the run, but everything
paid for is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.distillation.nodes.example_selection import select_examples, stop_at_too_many
from langchain_pld.distillation.rules.condition import Condition
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import content_key
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.search.model_checks import check_embeddings, check_student
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.examples import Example
from langchain_pld.student.sanitize import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Explanation", "explanation_messages", "generate"]


class Explanation(BaseModel):
    """Why an example has its label, and the condition drafted from it."""

    reason: str = Field(min_length=1, max_length=400)
    condition: Condition
    cues: list[str] = Field(default_factory=list, max_length=3)
    counter_cues: list[str] = Field(default_factory=list, max_length=2)


async def generate(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node."""
    del state  # what it needs lies in the Store
    teacher = run.teacher(unproven=True)
    await check_student(run, await run.store.require("validation"))
    await check_embeddings(run)
    chosen = await select_examples(run, teacher)
    failures = await _explain(run, teacher, [row.example for row in chosen])
    note = f"{len(chosen) - len(failures)} of {len(chosen)} examples explained by {teacher.spec}"
    if failures:
        note += f"; {len(failures)} failed, first: {failures[0].kind}: {failures[0].message}"
    run.announce(note)
    return {}


def explanation_messages(task: Task, example: Example, *, objection: str = "") -> list[BaseMessage]:
    """The question about one example, with the objection to an earlier answer."""
    system = fill("explain", instructions=task.instructions, labels=label_lines(task), label=str(example.label))
    text = delimited(clean_text(task.render(example.input)))
    return [SystemMessage(system), HumanMessage(f"{text}\n\n{objection}" if objection else text)]


async def _explain(run: Run, teacher: Teacher, rows: Sequence[Example]) -> list[Failure]:
    """Explain each row; returns the failures."""
    failures: list[Failure] = []

    async def explain(example: Example) -> None:
        answer = await teacher.ask(explanation_messages(run.task, example), Explanation)
        if isinstance(answer, Failure):
            failures.append(answer)
        kind = "failed" if isinstance(answer, Failure) else "explanation"
        await run.store.put_many("explanations", {content_key(example): {kind: answer.model_dump()}})

    # Label by label, so that prompts of one label share their prefix in the model's cache.
    by_label = sorted(rows, key=lambda row: str(row.label))
    await ask_all(map(explain, by_label), run.progress("teacher explains examples"))
    stop_at_too_many(failures, len(rows), teacher, run.plan)
    return failures
