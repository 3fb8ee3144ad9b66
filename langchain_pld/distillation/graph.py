"""The distillation graph: generate, extract, critique, consolidate, validate; back to critique; review if required."""

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
"""Does a node's work and returns the changed part of the state."""


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
        teacher: The model that writes rules; by default the one in the run's context.
        student: The model that will decide; by default the one in the run's context.
        embeddings: Embeddings of drafted conditions, for clustering; by default offline.
        store: Keeps examples, explanations and scores. LangGraph's server has its own; elsewhere one is needed, e.g.
            `InMemoryStore()`.
        checkpointer: Keeps the state, for resuming; LangGraph's server has its own.

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
    """Opens the run for each node; its models, if any, replace those in the settings."""

    def __init__(
        self, teacher: BaseChatModel | None, student: BaseChatModel | None, embeddings: Embeddings | None
    ) -> None:
        self._teacher, self._student, self._embeddings = teacher, student, embeddings
        self._chat_model, self._vectors = cache(resolve_chat_model), cache(resolve_embeddings)
        self._store: RunStore | None = None

    async def open(
        self, node: str, state: DistillationState, runtime: Runtime[DistillConfig]
    ) -> tuple[Run, dict[str, Any]]:
        """The run as a node sees it, and for the first node the initial part of the state."""
        # Without a context LangGraph passes `None`.
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
            # Budget, gate and review may have changed for the rest of the run.
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
    """A node of the graph: opens the run, does the work, and merges ledger, log and overview into the state.

    With an offline teacher, a node stops at the first step with missing answers, writes all questions of that step into
    one request file, and interrupts the graph. When resumed, the node runs again, with earlier answers and scores from
    the Store.
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
        # Earlier resume values come back here first; they mean nothing, since answers are read from files.
        while True:
            interrupt(request)

    return work


def _after_critique(state: DistillationState) -> Literal["consolidate", "validate"]:
    """Merge micro-rules; proposals of later passes change rules already merged."""
    return "validate" if "champion" in state else "consolidate"


def _after_validate(state: DistillationState) -> Literal["critique", "review", "__end__"]:
    """Back to critique until there is an artifact."""
    return after_validate(validate_state(state)) if "artifact" in state else "critique"


def _after_review(state: DistillationState) -> Literal["validate", "__end__"]:
    """Back to be scored with the accepted rules, until the artifact is signed."""
    return after_review(validate_state(state))
