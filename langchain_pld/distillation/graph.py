"""The distillation graph: generate, extract, critique, consolidate, validate; back to critique; review where asked."""

from __future__ import annotations

from typing import Any, Literal, cast

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer

from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.nodes.consolidate import consolidate_node
from langchain_pld.distillation.nodes.critique import critique_node
from langchain_pld.distillation.nodes.extract import extract_node
from langchain_pld.distillation.nodes.generate import generate_node
from langchain_pld.distillation.nodes.overview import overview
from langchain_pld.distillation.nodes.pending_answers import Node, waiting
from langchain_pld.distillation.nodes.review import after_review, after_validate, review_node
from langchain_pld.distillation.nodes.validate import validate_node
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.state import DistillationInput, DistillationOutput, DistillationState, typed
from langchain_pld.distillation.templates import worded
from langchain_pld.models.resolve import resolve_chat_model

__all__ = ["build_distillation_graph"]


def build_distillation_graph(
    *,
    teacher: BaseChatModel | str | None = None,
    student: BaseChatModel | str | None = None,
    embeddings: Embeddings | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
) -> CompiledStateGraph[DistillationState, DistillationContext, DistillationInput, DistillationOutput]:
    """Compile the graph.

    Args:
        teacher: The model that writes rules; the run's context names it when absent.
        student: The model that will decide; the run's context names it when absent.
        embeddings: Vectors of drafted conditions, for clustering; an offline default when absent.
        store: Where examples, explanations and scores are kept. LangGraph's server brings its own; elsewhere one is
            needed, e.g. `InMemoryStore()`.
        checkpointer: Where the state is kept, for resuming; LangGraph's server brings its own.

    Returns:
        A compiled graph that takes a `DistillationInput` and a `DistillationContext`.
    """
    models = RunModels(
        teacher=resolve_chat_model(teacher) if teacher is not None else None,
        student=resolve_chat_model(student) if student is not None else None,
        embeddings=embeddings,
    )
    graph = StateGraph(
        DistillationState,
        context_schema=DistillationContext,
        input_schema=DistillationInput,
        output_schema=DistillationOutput,
    )
    graph.add_node("generate", _as_set(waiting("generate", generate_node(models), models), models))
    graph.add_node("extract", _as_set(waiting("extract", extract_node(models), models), models))
    graph.add_node("critique", _as_set(waiting("critique", critique_node(models), models), models))
    graph.add_node("consolidate", _as_set(waiting("consolidate", consolidate_node(models), models), models))
    graph.add_node("validate", _as_set(waiting("validate", validate_node(models), models), models))
    graph.add_node("review", _as_set(review_node, models))
    graph.add_edge(START, "generate")
    graph.add_edge("generate", "extract")
    graph.add_edge("extract", "critique")
    graph.add_conditional_edges("critique", _after_critique)
    graph.add_edge("consolidate", "validate")
    graph.add_conditional_edges("validate", _after_validate)
    graph.add_conditional_edges("review", _after_review)
    return graph.compile(store=store, checkpointer=checkpointer, name="distillation")


def _as_set(node: Node, models: RunModels) -> Node:
    """The node as the run's settings want it: models, limits and the teacher's prompts; with an overview for people."""

    async def run(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        state = typed(state)
        chosen = settings(runtime).after(state.get("settings", {}))
        runtime = runtime.override(context=chosen)
        if "data" not in state:
            await models.check(runtime)
        if "plan" in state:
            # Another budget, gate or review may have been set for the rest of the run.
            state["plan"] = chosen.over(state["plan"])
        with worded(chosen.wording):
            update = await node(state, runtime)
        after = cast("DistillationState", {**state, **update})
        shown = await overview(after, RunStore(runtime.store, after["run_id"]))
        return {**update, "settings": chosen.changed, "overview": shown}

    return run


def _after_critique(state: DistillationState) -> Literal["consolidate", "validate"]:
    """Micro-rules are merged; proposals of later passes change rules that are merged already."""
    return "validate" if "champion" in state else "consolidate"


def _after_validate(state: DistillationState) -> Literal["critique", "review", "__end__"]:
    """Back to critique until there is an artifact."""
    return after_validate(typed(state)) if "artifact" in state else "critique"


def _after_review(state: DistillationState) -> Literal["validate", "__end__"]:
    """Scored with the accepted rules, then signed."""
    return after_review(typed(state))
