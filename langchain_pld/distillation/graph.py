"""The distillation graph: generate, extract, critique, consolidate, validate; back to critique; review where asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Literal, cast

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer, interrupt

from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.nodes.consolidate import consolidate
from langchain_pld.distillation.nodes.critique import critique
from langchain_pld.distillation.nodes.extract import extract
from langchain_pld.distillation.nodes.generate import generate
from langchain_pld.distillation.nodes.overview import overview
from langchain_pld.distillation.nodes.review import after_review, after_validate, review
from langchain_pld.distillation.nodes.run_input import read_input
from langchain_pld.distillation.nodes.validate import validate
from langchain_pld.distillation.rules.embeddings import resolve_embeddings
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import check_teacher
from langchain_pld.distillation.state import DistillationInput, DistillationOutput, DistillationState, validate_state
from langchain_pld.distillation.templates import use_wording
from langchain_pld.errors import AnswersPendingError
from langchain_pld.models.batch import BatchChatModel
from langchain_pld.models.resolve import resolve_chat_model

__all__ = ["build_distillation_graph"]

Node = Callable[[DistillationState, Run], Awaitable[dict[str, Any]]]
"""Does a node's work; gives the part of the state that it changes."""


def build_distillation_graph(
    *,
    teacher: BaseChatModel | str | None = None,
    student: BaseChatModel | str | None = None,
    embeddings: Embeddings | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
) -> CompiledStateGraph[DistillationState, DistillConfig, DistillationInput, DistillationOutput]:
    """Compile the graph.

    Args:
        teacher: The model that writes rules; the run's context names it when absent.
        student: The model that will decide; the run's context names it when absent.
        embeddings: Vectors of drafted conditions, for clustering; an offline default when absent.
        store: Where examples, explanations and scores are kept. LangGraph's server brings its own; elsewhere one is
            needed, e.g. `InMemoryStore()`.
        checkpointer: Where the state is kept, for resuming; LangGraph's server brings its own.

    Returns:
        A compiled graph that takes a `DistillationInput` and a `DistillConfig`.
    """
    runs = _Runs(
        resolve_chat_model(teacher) if teacher is not None else None,
        resolve_chat_model(student) if student is not None else None,
        embeddings,
    )
    graph = StateGraph(
        DistillationState,
        context_schema=DistillConfig,
        input_schema=DistillationInput,
        output_schema=DistillationOutput,
    )
    for node in (generate, extract, critique, consolidate, validate, review):
        graph.add_node(node.__name__, _in_run(node, runs))
    graph.add_edge(START, "generate")
    graph.add_edge("generate", "extract")
    graph.add_edge("extract", "critique")
    graph.add_conditional_edges("critique", _after_critique)
    graph.add_edge("consolidate", "validate")
    graph.add_conditional_edges("validate", _after_validate)
    graph.add_conditional_edges("review", _after_review)
    return graph.compile(store=store, checkpointer=checkpointer, name="distillation")


class _Runs:
    """Opens the run for each node: the only place where models are resolved and runs begin.

    Args:
        teacher: Used in place of the teacher that the settings name.
        student: Used in place of their student.
        embeddings: Used in place of their embeddings.
    """

    def __init__(
        self, teacher: BaseChatModel | None, student: BaseChatModel | None, embeddings: Embeddings | None
    ) -> None:
        self._teacher, self._student, self._embeddings = teacher, student, embeddings
        self._chat_model, self._vectors = cache(resolve_chat_model), cache(resolve_embeddings)
        self._store: RunStore | None = None

    async def open(
        self, node: str, state: DistillationState, runtime: Runtime[DistillConfig]
    ) -> tuple[Run, dict[str, Any]]:
        """The run as a node sees it, and for the first node the part of the state that the run begins with."""
        # Without a context LangGraph hands over `None`.
        config = (runtime.context or DistillConfig()).inherit(state.get("settings", {}))
        # Importing a provider and looking up model files block.
        teacher, student, embeddings = await asyncio.to_thread(self._models, config)
        begun: dict[str, Any] = {}
        if node == "generate":
            check_teacher(teacher)
            thread = runtime.execution_info.thread_id if runtime.execution_info else None
            self._store, begun = await read_input(state, config, runtime.store, thread)
            state = cast("DistillationState", {**state, **begun})
        elif self._store is None or (self._store.store, self._store.run_id) != (runtime.store, state["run_id"]):
            self._store = RunStore(runtime.store, state["run_id"])
        run = await Run.open(
            node,
            task=state["task"],
            # Another budget, gate or review may have been set for the rest of the run.
            plan=config.resolve_plan(state["plan"]),
            store=self._store,
            student=student,
            teacher_model=teacher,
            embeddings=embeddings,
            config=config,
            report=lambda progress: runtime.stream_writer(progress.model_dump()),
        )
        return run, begun

    def _models(self, config: DistillConfig) -> tuple[BaseChatModel, BaseChatModel, Embeddings | None]:
        return (
            self._teacher or self._chat_model(config.teacher),
            self._student or self._chat_model(config.student),
            self._embeddings or (self._vectors(config.embeddings) if config.embeddings else None),
        )


def _in_run(node: Node, runs: _Runs) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The node of the graph: opens the run, does the work, and merges ledger, log and overview into the state.

    Where the teacher answers later, a node ends at the first step whose answers are missing. All questions of that step
    are written into one request file, and the graph is interrupted. When it is resumed the node runs again: what was
    answered and scored before comes from the Store.
    """
    name = node.__name__

    async def work(state: DistillationState, runtime: Runtime[DistillConfig]) -> dict[str, Any]:
        state = validate_state(state)
        run, begun = await runs.open(name, state, runtime)
        state = cast("DistillationState", {**state, **begun})
        try:
            with use_wording(run.config.wording):
                update: dict[str, Any] = {**begun, **await node(state, run)}
        except AnswersPendingError as pending:
            if not isinstance(run.teacher_model, BatchChatModel):
                raise
            request = await asyncio.to_thread(run.teacher_model.request, pending.questions, node=name)
        else:
            update |= {"log": [*begun.get("log", ()), *run.log], "ledger": run.spending.ledger}
            update |= {"settings": run.config.changed}
            after = cast("DistillationState", {**state, **update})
            return {**update, "overview": await overview(after, run.store)}
        run.report(Progress(node=name, step="waits", note=f"waits for {request['questions']} answers"))
        # What the graph was resumed with before comes back here first. Answers are read from files, so it says nothing.
        while True:
            interrupt(request)

    return work


def _after_critique(state: DistillationState) -> Literal["consolidate", "validate"]:
    """Micro-rules are merged; proposals of later passes change rules that are merged already."""
    return "validate" if "champion" in state else "consolidate"


def _after_validate(state: DistillationState) -> Literal["critique", "review", "__end__"]:
    """Back to critique until there is an artifact."""
    return after_validate(validate_state(state)) if "artifact" in state else "critique"


def _after_review(state: DistillationState) -> Literal["validate", "__end__"]:
    """Scored with the accepted rules, then signed."""
    return after_review(validate_state(state))
