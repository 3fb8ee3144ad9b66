"""A graph of the review node alone: `validate` is replaced by one that compiles a prompt without asking a student.

Run as a module, it begins a run on a SQLite file and is killed while the run waits for its reviewer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Checkpointer

from langchain_pld import Example
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.nodes.review import after_review, after_validate, review
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.state import DistillationState
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import compile_prompt
from tests.fakes import FakeChatModel
from tests.student.small_artifact import TASK, WORDS, artifact

CONFIG: RunnableConfig = {"configurable": {"thread_id": "run"}}
TEXTS = {"t1": "Our old dog died on Monday and the whole house is quiet.", "t2": "We won the match!"}
LOSS = Rule(id="r-loss", label="sad", condition="It mourns a loss.", cues=("died",), sources=("t1",), support=1)
CHEER = Rule(id="r-cheer", label="glad", condition="It cheers.", sources=("t2", "gone"), support=2, effect=0.25)
EVEN = Rule(id="r-even", label="calm", condition="It mourns some loss.", support=0)
RULES = (LOSS, CHEER, EVEN)


def review_graph(
    checkpointer: Checkpointer, *, scored: list[Any] | None = None
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """`validate -> review -> validate -> review`, as in the whole graph."""

    async def validate(state: DistillationState) -> dict[str, Any]:
        rules = tuple(state["rules"])
        if scored is not None:
            scored.append((rules, state.get("reviewed")))
        prompt = compile_prompt(TASK, rules, WORDS)
        return {"artifact": artifact(rules=rules, system_prompt=prompt, require_review=True), "log": ["validate"]}

    async def review_in_run(state: DistillationState, runtime: Runtime[DistillConfig]) -> dict[str, Any]:
        run = await Run.open(
            "review",
            task=TASK,
            plan=PLANS["light"],
            store=RunStore(runtime.store, "run"),
            student=FakeChatModel(script=lambda _: AssertionError("asked")),
            config=runtime.context,
        )
        update = await review(state, run)
        return {**update, "log": run.log}

    graph = StateGraph(DistillationState, context_schema=DistillConfig)
    graph.add_node("validate", validate)
    graph.add_node("review", review_in_run)
    graph.add_edge(START, "validate")
    graph.add_conditional_edges("validate", after_validate)
    graph.add_conditional_edges("review", after_review)
    return graph.compile(checkpointer=checkpointer, store=InMemoryStore())


async def begin(graph: CompiledStateGraph[Any, Any, Any, Any]) -> dict[str, Any]:
    """Run until the reviewer is asked; gives the request."""
    assert graph.store is not None
    rows = ExampleSet.of([Example(id=key, input=text, label="sad") for key, text in TEXTS.items()], TASK)
    await RunStore(graph.store, "run").put_examples("train", rows)
    await graph.ainvoke({"run_id": "run", "task": TASK, "rules": list(RULES)}, CONFIG)
    return await waiting(graph)


async def waiting(graph: CompiledStateGraph[Any, Any, Any, Any]) -> dict[str, Any]:
    """What the run waits for."""
    (found,) = (await graph.aget_state(CONFIG)).interrupts
    return dict(found.value)


async def main(path: str) -> None:
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        await begin(review_graph(saver))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
