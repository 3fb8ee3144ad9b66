"""Reading the task, rows and name of a run from the input or the Store."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from langgraph.store.base import BaseStore

from langchain_pld.artifact import DataFingerprint
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.state import DistillationState
from langchain_pld.errors import DistillationError
from langchain_pld.examples import ExampleSet, examples_from, read_examples
from langchain_pld.task import Task

__all__ = ["read_input"]

_ROLES: tuple[Role, ...] = get_args(Role)
_NO_MATTER = {"max_calls", "max_tokens", "max_usd", "max_minutes", "reviewer", "require_review"}
"""Settings that do not affect the results of a run."""


async def read_input(
    state: DistillationState, config: DistillConfig, store: BaseStore | None, thread: str | None
) -> tuple[RunStore, dict[str, Any]]:
    """Read the input of a run, and keep its rows in the Store.

    A run without a name is named after its thread and input, so that a fork with other settings does not overwrite the
    results of the first.

    Returns:
        The run's part of the Store, and the part of the state with task, plan and data.

    Raises:
        DistillationError: Task or rows are missing, the thread or name belongs to another run, or a file is missing.
        ExampleError: Rows are wrong or have two roles.
    """
    if "data" in state:
        msg = (
            "this thread already has a run; start another one in a new thread, or continue this one from a checkpoint "
            "of its history, without an input"
        )
        raise DistillationError(msg)
    task, plan = await _task(state), config.resolve_plan(state.get("plan"))
    new = {role: rows for role in _ROLES if (rows := await _rows(state, role, task)) is not None}
    run = RunStore(store, state.get("run_id") or _name(thread, config, plan, task, new))
    sets: dict[Role, ExampleSet] = {}
    for role in _ROLES:
        known = await run.examples(role)
        rows = new.get(role, known)
        if rows is None and role != "test":
            msg = f"a run needs {role} rows: give `{role}_file` (.jsonl or .csv) or `{role}_rows`"
            raise DistillationError(msg)
        if known is not None and rows is not None and known.sha256 != rows.sha256:
            msg = f"the run {run.run_id!r} began with other {role} rows; give another run_id, or none"
            raise DistillationError(msg)
        if rows is not None:
            sets[role] = rows
    check_roles(task, sets)
    for role, rows in new.items():
        await run.put_examples(role, rows)
    data = {
        role: DataFingerprint(sha256=rows.sha256, rows=len(rows), source=rows.source) for role, rows in sets.items()
    }
    # Rows of the input are in the Store now.
    emptied: dict[str, Any] = {f"{role}_rows": [] for role in sets if state.get(f"{role}_rows")}
    log = [f"plan: {plan.describe()}"]
    return run, {"run_id": run.run_id, "task": task, "plan": plan, "data": data, "log": log, **emptied}


async def _task(state: DistillationState) -> Task:
    if "task" in state:
        return state["task"]
    if not state.get("task_file"):
        msg = "a run needs a task: give `task_file` (a YAML file) or `task`"
        raise DistillationError(msg)
    return await asyncio.to_thread(Task.from_yaml, state["task_file"])


async def _rows(state: DistillationState, role: Role, task: Task) -> ExampleSet | None:
    """The rows in the input or in its file."""
    rows, file = state.get(f"{role}_rows"), state.get(f"{role}_file")
    if rows:
        assert isinstance(rows, list)
        return await asyncio.to_thread(examples_from, rows, task, source=f"{role}_rows")
    if file:
        return await asyncio.to_thread(read_examples, Path(str(file)), task)
    return None


def _name(thread: str | None, config: DistillConfig, plan: Plan, task: Task, new: Mapping[Role, ExampleSet]) -> str:
    parts = {
        "settings": {key: value for key, value in config.changed.items() if key not in _NO_MATTER},
        "plan": plan.model_dump(mode="json", exclude={"budget", "require_review"}),
        "task": task.model_dump(mode="json"),
        "rows": {role: rows.sha256 for role, rows in new.items()},
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{thread or 'run'}-{digest}"
