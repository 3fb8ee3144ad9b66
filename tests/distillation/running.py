"""Nodes of the distillation graph, run one after the other without the graph."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langgraph.store.memory import InMemoryStore

from langchain_pld import Task
from langchain_pld.distillation.plan import PLANS, Plan
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.state import DistillationState
from langchain_pld.examples import ExampleSet
from tests.fakes import FakeChatModel, scored

Node = Callable[[DistillationState, Run], Awaitable[dict[str, Any]]]


async def run_nodes(
    *nodes: Node,
    task: Task,
    sets: dict[Role, ExampleSet],
    teacher: FakeChatModel,
    student: FakeChatModel | None = None,
    state: dict[str, Any] | None = None,
    **numbers: Any,
) -> dict[str, Any]:
    """The state after the nodes, with the run's store and its log in one text; numbers change the light plan."""
    undecided = FakeChatModel(script=lambda _: scored(dict.fromkeys(task.label_names, 1 / len(task.labels))))
    store = RunStore(InMemoryStore(), "run")
    for role, rows in sets.items():
        await store.put_examples(role, rows)
    plan = Plan.model_validate({**PLANS["light"].model_dump(), **numbers})
    after: Any = {"task": task, "plan": plan, **(state or {})}
    log: list[str] = []
    for node in nodes:
        run = await Run.open(
            node.__name__, task=task, plan=plan, store=store, student=student or undecided, teacher_model=teacher
        )
        after |= await node(after, run)
        log += run.log
    return {**after, "store": store, "said": "\n".join(log)}
