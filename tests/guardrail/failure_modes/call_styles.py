"""The places where a guard stands, each called in each style, with one question: what came out, and who was asked?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_pld import PLDClassifier
from langchain_pld.guardrail import (
    Guard,
    GuardrailPolicy,
    PLDGuardrailMiddleware,
    create_guardrail_graph,
    guarded,
    guardrail_node,
)
from langchain_pld.student.failures import RetryPolicy
from tests.fakes import FakeChatModel
from tests.guardrail.agents import FakeMainModel, FakeStreamingStudent, by_word, says
from tests.student.small_artifact import artifact

MODES = ["messages", "updates", "values", "custom", "tasks"]
BLOCKED = "does not meet the rules"
UNCHECKED = "could not be checked"


class State(MessagesState):
    guardrail: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What one call gave."""

    out: Any
    """The final value."""
    shown: list[Any]
    """Everything that the caller saw, parts of a stream included."""
    reached: bool
    """Whether the guarded model was asked."""

    def __str__(self) -> str:
        return str(self.shown)

    @property
    def spoken(self) -> list[str]:
        """The texts of the messages that were streamed as messages."""
        parts = [part[1][0] for part in self.shown if isinstance(part, tuple) and part[0] == "messages"]
        parts += [part for part in self.shown if isinstance(part, BaseMessage)]
        return [str(part.text) for part in parts]


def watch(script: Any = by_word, *, streaming: bool = False, policy: Any = None, **changes: Any) -> Guard:
    """A guard whose student is scripted; `changes` are those of its artifact."""
    options = {name: changes.pop(name) for name in ("timeout_s", "long_input") if name in changes}
    student = (FakeStreamingStudent if streaming else FakeChatModel)(script=script)
    classifier = PLDClassifier(
        artifact=artifact(**changes), student=student, retry=RetryPolicy(attempts=1, initial_s=0), **options
    )
    return Guard(classifier, GuardrailPolicy(block_labels=["sad"], **(policy or {})))


def seen_by(guard: Guard) -> list[list[BaseMessage]]:
    """What the student of `watch` was asked, call by call."""
    asked: list[list[BaseMessage]] = guard.classifier.student.asked  # type: ignore[attr-defined]
    return asked


def _node(guards: Any, model: FakeMainModel, checkpointer: Any) -> Any:
    node = guardrail_node(guards, goto_allowed="model", goto_blocked=END)
    builder = StateGraph(State)
    builder.add_node("guard", node, destinations=node.destinations)
    builder.add_node("model", _asking(model))
    builder.add_edge(START, "guard")
    builder.add_edge("model", END)
    return builder.compile(checkpointer=checkpointer)


def _subgraph(guards: Any, model: FakeMainModel, checkpointer: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("guard", create_guardrail_graph(guards))
    builder.add_node("model", _asking(model))
    builder.add_edge(START, "guard")
    builder.add_conditional_edges("guard", lambda state: "model" if state["guardrail"]["allowed"] else END)
    builder.add_edge("model", END)
    return builder.compile(checkpointer=checkpointer)


def _agent(guards: Any, model: FakeMainModel, checkpointer: Any) -> Any:
    return create_agent(model, middleware=[PLDGuardrailMiddleware(guards)], checkpointer=checkpointer)


def _chain(guards: Any, model: FakeMainModel, checkpointer: Any) -> Any:
    return guarded(model, input_guards=guards)


def _asking(model: FakeMainModel) -> Any:
    def ask(state: State) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aask(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return RunnableLambda(ask, aask)


PLACES: dict[str, Callable[..., Any]] = {"node": _node, "subgraph": _subgraph, "agent": _agent, "chain": _chain}
HOWS = ("invoke", "ainvoke", "stream", "astream")


@dataclass(frozen=True)
class CallStyle:
    """One place, called in one style."""

    place: str
    how: str

    def build(self, guards: Any, *, model: FakeMainModel | None = None, checkpointer: Any = None) -> Any:
        """The Runnable with the guard in it."""
        return PLACES[self.place](guards, model or main_model(), checkpointer)

    def input(self, text: str) -> Any:
        """What the Runnable is called with."""
        return text if self.place == "chain" else {"messages": [("user", text)]}

    def __call__(self, guards: Any, text: str, config: Any = None, **options: Any) -> Result:
        """Guard the input of a model and call it."""
        model = options.pop("model", None) or main_model()
        before = len(model.asked)
        out, shown = called(self.build(guards, model=model, **options), self.input(text), self.how, config)
        return Result(out, shown, len(model.asked) > before)


def called(runnable: Any, given: Any, how: str, config: Any = None) -> tuple[Any, list[Any]]:
    """Call a Runnable; the last part, and all that was seen."""
    modes = {} if not hasattr(runnable, "stream_channels_asis") else {"stream_mode": MODES}
    if how == "invoke":
        out = runnable.invoke(given, config)
        return out, [out]
    if how == "ainvoke":
        out = asyncio.run(runnable.ainvoke(given, config))
        return out, [out]
    if how == "stream":
        shown = list(runnable.stream(given, config, **modes))
        return shown[-1], shown

    async def collect() -> list[Any]:
        return [part async for part in runnable.astream(given, config, **modes)]

    shown = asyncio.run(collect())
    return shown[-1], shown


def main_model(*replies: AIMessage) -> FakeMainModel:
    """The guarded model."""
    return FakeMainModel(replies=list(replies) or [says("Hello to you.")] * 200)


def each_style(places: Sequence[str] = tuple(PLACES), hows: Sequence[str] = HOWS) -> Any:
    """Parametrises a test with `style`."""
    made = [CallStyle(place, how) for place in places for how in hows]
    return pytest.mark.parametrize("style", made, ids=[f"{style.place}-{style.how}" for style in made])
