"""generate: the teacher reasons about each example under its gold label.

In: the data files or the examples in the Store. Out: explanations in the Store, keyed by example id. One joint call
also drafts the condition that `extract` checks. An example whose call fails is recorded as failed; too many of them
end the run, with everything paid for kept.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field

from langchain_pld.artifact import DataFingerprint
from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.node import Node
from langchain_pld.distillation.plan import PLANS, Plan
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.roles import Role, RunStore, balanced, check_roles
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.teacher import Teacher
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.errors import DistillationError
from langchain_pld.examples import Example, ExampleSet, read_examples
from langchain_pld.student.hardening import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Explanation", "explanation_messages", "generate_node"]


class Explanation(BaseModel):
    """Why an example has its label, and the condition drafted from it."""

    reason: str = Field(min_length=1, max_length=400)
    condition: str = Field(min_length=10, max_length=300)
    cues: list[str] = Field(default_factory=list, max_length=3)
    counter_cues: list[str] = Field(default_factory=list, max_length=2)


def generate_node(models: RunModels) -> Node:
    """Build the node."""

    async def generate(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        run = RunStore(runtime.store, state.get("run_id") or "default")
        task, sets = await _load(state, run)
        plan = Plan.model_validate(state.get("plan") or PLANS[settings(runtime).effort])
        rows = balanced(sets["train"], plan.train_examples, settings(runtime).seed)
        teacher = Teacher(
            await models.teacher_for(runtime), node="generate", store=run.store, concurrency=plan.concurrency
        )
        failures = await _explain_all(task, rows, teacher, run, plan, runtime)
        note = f"generate: {len(rows) - len(failures)} of {len(rows)} examples explained by {teacher.spec}"
        if failures:
            note += f"; {len(failures)} failed, first: {failures[0]}"
        runtime.stream_writer(
            Progress(node="generate", step="done", done=len(rows), total=len(rows), note=note).model_dump()
        )
        return {
            "run_id": run.run_id,
            "task": task,
            "plan": plan,
            "data": {
                role: DataFingerprint(sha256=found.sha256, rows=len(found), source=found.source)
                for role, found in sets.items()
            },
            "explained": len(rows) - len(failures),
            "log": [f"plan: {plan.describe()}", note],
            "ledger": teacher.ledger,
        }

    return generate


def explanation_messages(task: Task, example: Example, *, objection: str = "") -> list[BaseMessage]:
    """The question about one example; `objection` says what was wrong with an earlier answer."""
    system = fill("explain", instructions=task.instructions, labels=label_lines(task), label=str(example.label))
    text = delimited(clean_text(task.render(example.input)))
    return [SystemMessage(system), HumanMessage(f"{text}\n\n{objection}" if objection else text)]


async def _explain_all(
    task: Task,
    rows: ExampleSet,
    teacher: Teacher,
    run: RunStore,
    plan: Plan,
    runtime: Runtime[DistillationContext],
) -> list[str]:
    """Explain each row; returns the reasons of the failed ones."""
    failures: list[str] = []
    done = 0

    async def explain(example: Example) -> None:
        nonlocal done
        # Asked one after the other label, so that the prompts of one label share their prefix in the model's cache.
        answer = await teacher.ask(explanation_messages(task, example), Explanation)
        if isinstance(answer, Failure):
            failures.append(f"{answer.kind}: {answer.message}")
            await run.put_many("explanations", {example.id: {"failed": answer.model_dump()}})
        else:
            await run.put_many("explanations", {example.id: {"explanation": answer.model_dump()}})
        done += 1
        runtime.stream_writer(
            Progress(node="generate", step="teacher explains examples", done=done, total=len(rows)).model_dump()
        )

    by_label = sorted(rows, key=lambda row: str(row.label))
    await asyncio.gather(*(explain(example) for example in by_label))
    if len(failures) > plan.max_failure_share * len(rows):
        msg = (
            f"{len(failures)} of {len(rows)} calls to the teacher {teacher.spec} failed, more than the "
            f"{plan.max_failure_share:.0%} allowed; first reason: {failures[0]}. What was paid for is kept: "
            "mend the cause and run again with the same store"
        )
        raise DistillationError(msg)
    return failures


async def _load(state: DistillationState, run: RunStore) -> tuple[Task, dict[Role, ExampleSet]]:
    """The task and the rows of each role, from the Store or from the files that the state names."""
    task = state.get("task")
    if task is None:
        if "task_file" not in state:
            msg = "a run needs a task: give `task_file` (a YAML file) or `task`"
            raise DistillationError(msg)
        task = await asyncio.to_thread(Task.from_yaml, state["task_file"])
    # LangGraph's server hands the input over as JSON and leaves it at that.
    task = Task.model_validate(task)
    files: dict[Role, str | None] = {
        "train": state.get("train_file"),
        "validation": state.get("validation_file"),
        "test": state.get("test_file"),
    }
    sets: dict[Role, ExampleSet] = {}
    for role, file in files.items():
        known = await run.examples(role)
        if known is not None:
            sets[role] = known
        elif file:
            sets[role] = await asyncio.to_thread(read_examples, Path(file), task)
            await run.put_examples(role, sets[role])
        elif role != "test":
            msg = f"a run needs {role} rows: give `{role}_file`"
            raise DistillationError(msg)
    check_roles(task, sets)
    return task, sets
