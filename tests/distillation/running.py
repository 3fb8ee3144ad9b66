"""Nodes of the distillation graph, run one after the other without the graph."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore

from langchain_pld import Task
from langchain_pld.distillation.context import DistillationContext
from langchain_pld.distillation.nodes.pending_answers import Node
from langchain_pld.distillation.plan import PLANS, Plan
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.examples import ExampleSet


async def run_nodes(
    *nodes: Node,
    task: Task,
    sets: dict[Role, ExampleSet],
    store: InMemoryStore | None = None,
    **numbers: Any,
) -> dict[str, Any]:
    """The state after the nodes, its log joined; numbers change the light plan."""
    store = store or InMemoryStore()
    run = RunStore(store, "run")
    for role, rows in sets.items():
        await run.put_examples(role, rows)
    plan = Plan.model_validate({**PLANS["light"].model_dump(), **numbers})
    state: Any = {"run_id": "run", "task": task, "plan": plan, "log": []}
    runtime = Runtime(context=DistillationContext(), store=store, stream_writer=lambda _: None)
    for node in nodes:
        update = await node(state, runtime)
        state = {**state, **update, "log": [*state["log"], *update["log"]]}
    return {**state, "run": run, "said": "\n".join(state["log"])}
