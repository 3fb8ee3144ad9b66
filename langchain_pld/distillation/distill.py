"""`distill`: the whole job in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Checkpointer

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.distillation.context import DistillationContext
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.plan import PLANS, Effort, Plan
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.roles import Role, RunStore, check_roles
from langchain_pld.distillation.state import DistillationInput
from langchain_pld.errors import DistillationError
from langchain_pld.examples import ExampleSet
from langchain_pld.task import Task

__all__ = ["adistill", "distill"]


async def adistill(
    task: Task,
    *,
    train: ExampleSet,
    validation: ExampleSet,
    test: ExampleSet | None = None,
    teacher: BaseChatModel | str,
    student: BaseChatModel | str,
    effort: Effort | Plan = "light",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
    run_id: str = "default",
    config: RunnableConfig | None = None,
) -> DistilledPrompt:
    """Distil a task's labelled examples into a tested prompt.

    Args:
        task: What is to be decided.
        train: Rows that the teacher may see.
        validation: Rows for selection and calibration.
        test: Rows that are read once, at the end, for the scores in the artifact.
        teacher: Chat model that writes the rules, or `provider:name`.
        student: Chat model that will decide, or `provider:name`.
        effort: A preset, or concrete numbers.
        seed: Seed of every random choice.
        on_progress: Called with each step's progress.
        store: Keeps examples, teacher's answers and scores; with a lasting one, a call once paid is not paid again.
        checkpointer: Keeps the state between nodes. A run that it knows goes on at the node that was not finished;
            one that is finished gives its artifact.
        run_id: Name of the run in store and checkpointer.
        config: Callbacks, tags and metadata for the graph's run.

    Raises:
        ExampleError: A text plays two roles, or a label has no rows.
        DistillationError: Too many of the teacher's calls failed, or the checkpointer knows a run of this name that
            began with another task, plan or rows.
        StudentError: The student cannot be reached, or no answer of it can be read.
    """
    sets: dict[Role, ExampleSet] = {"train": train, "validation": validation}
    if test is not None:
        sets["test"] = test
    check_roles(task, sets)
    graph = build_distillation_graph(
        teacher=teacher, student=student, store=store or InMemoryStore(), checkpointer=checkpointer
    )
    start: DistillationInput = {
        "run_id": run_id,
        "task": task,
        "plan": effort if isinstance(effort, Plan) else PLANS[effort],
    }
    config = RunnableConfig(**{**(config or {}), "run_name": "distil"})
    artifact: DistilledPrompt | None = None
    goes_on = False
    if checkpointer:
        config["configurable"] = {"thread_id": run_id, **config.get("configurable", {})}
        known = await graph.aget_state(config)
        if known.values:
            _check_same(run_id, known.values, start, sets)
            if "artifact" in known.values and not known.next:
                return DistilledPrompt.model_validate(known.values["artifact"])
            goes_on = True
    run = RunStore(graph.store, run_id)
    for role, rows in sets.items():
        await run.put_examples(role, rows)
    async for mode, event in graph.astream(
        None if goes_on else start, config, context=DistillationContext(seed=seed), stream_mode=["custom", "values"]
    ):
        if mode == "custom" and on_progress:
            on_progress(Progress.model_validate(event))
        elif mode == "values" and isinstance(event, dict):
            artifact = event.get("artifact", artifact)
    assert artifact is not None, "the graph ended without an artifact"
    return artifact


def distill(
    task: Task,
    *,
    train: ExampleSet,
    validation: ExampleSet,
    test: ExampleSet | None = None,
    teacher: BaseChatModel | str,
    student: BaseChatModel | str,
    effort: Effort | Plan = "light",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
    run_id: str = "default",
    config: RunnableConfig | None = None,
) -> DistilledPrompt:
    """As `adistill`, for code without an event loop; see there for arguments and errors."""
    return asyncio.run(
        adistill(
            task,
            train=train,
            validation=validation,
            test=test,
            teacher=teacher,
            student=student,
            effort=effort,
            seed=seed,
            on_progress=on_progress,
            store=store,
            checkpointer=checkpointer,
            run_id=run_id,
            config=config,
        )
    )


def _check_same(run_id: str, known: dict[str, Any], start: DistillationInput, sets: Mapping[Role, ExampleSet]) -> None:
    """Make sure that a run goes on with what it began with."""
    changed = [what for what in ("task", "plan") if known.get(what) != start.get(what)]
    if "data" in known:
        began = {role: fingerprint.sha256 for role, fingerprint in known["data"].items()}
        if began != {role: rows.sha256 for role, rows in sets.items()}:
            changed.append("rows")
    if changed:
        msg = (
            f"the run {run_id!r} began with another {' and other '.join(changed)}; give a new run_id, "
            "answers that were paid for are not paid again"
        )
        raise DistillationError(msg)
