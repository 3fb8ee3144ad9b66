"""A guard, or a classifier, as a node of any LangGraph graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import Command

from langchain_pld.errors import InputError
from langchain_pld.guardrail.graph_state import (
    blocked_update,
    guards_of_one_stage,
    state_value,
    steps_node,
    stripped_update,
)
from langchain_pld.guardrail.guard import Guard, check_steps
from langchain_pld.steps import Call, Steps
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.verdict import Verdict

__all__ = ["GuardrailNode", "classifier_node", "guardrail_node"]


class GuardrailNode(RunnableLambda[Any, Any]):
    """The node that `guardrail_node` makes."""

    destinations: tuple[str, ...]
    """The nodes that it may go to."""


def guardrail_node(
    guards: Guard | Sequence[Guard],
    *,
    input_key: str = "messages",
    output_key: str = "guardrail",
    select: Callable[[Any], ClassifierInput] | None = None,
    goto_allowed: str | None = None,
    goto_blocked: str | None = None,
    goto_interrupt: str | None = None,
    replace_blocked: bool = True,
    name: str = "guardrail",
) -> GuardrailNode:
    """Make a node: state in, a state update or a `Command` out.

    The update holds `Decision.summary()` under `output_key`. Without destinations the graph routes by it; with them
    the node goes there itself, and then it must have no edge of its own: LangGraph would follow that one as well.

    Args:
        guards: One guard, or several of one stage; they check side by side and the strictest wins.
        input_key: Where the state holds what is checked: messages, of which the stage takes its part
            (see `stage_messages`), or whatever else the classifiers take.
        output_key: Where the decision goes.
        select: Takes what is checked from the whole state, instead of `input_key`.
        goto_allowed: The next node for what is allowed; `langgraph.graph.END` ends the graph.
        goto_blocked: The next node for what is not.
        goto_interrupt: The next node where a person is to be asked.
        replace_blocked: Take a blocked message out of the history: the policy's message stands in its place. Needs
            the `add_messages` reducer on `input_key`; acts only where that holds messages.
        name: Name in traces.

    Raises:
        InputError: The guards stand at different stages, only one of the destinations is given, or the policy asks a
            person and there is nowhere to ask.

    Example:
        >>> node = guardrail_node(guard, goto_allowed="model", goto_blocked=END)  # doctest: +SKIP
        >>> builder.add_node("guard", node)  # doctest: +SKIP
    """
    several, stage = guards_of_one_stage(guards)
    if (goto_allowed is None) != (goto_blocked is None):
        msg = (
            "give both goto_allowed and goto_blocked, or neither: a node that sometimes goes somewhere needs an edge "
            "for the other times, and LangGraph follows that edge in every case"
        )
        raise InputError(msg)
    interrupts = any("interrupt" in guard.policy.actions for guard in several)
    if interrupts and goto_blocked is not None and goto_interrupt is None:
        msg = "a policy asks a person: pass goto_interrupt, or use create_guardrail_graph, which asks by itself"
        raise InputError(msg)

    def steps(state: Any, config: RunnableConfig) -> Steps[Any]:
        decision = yield from check_steps(several, state_value(state, input_key, stage, select), config)
        decision.enforce()
        update: dict[str, Any] = {output_key: decision.summary()}
        if select is None:
            if replace_blocked and not decision.allowed and decision.action != "interrupt":
                update |= blocked_update(state, input_key, stage, decision.message)
            elif decision.allowed and decision.strips_invisible:
                update |= stripped_update(state, input_key, stage)
        if goto_allowed is None or goto_blocked is None:
            return update
        stop = goto_interrupt if decision.action == "interrupt" and goto_interrupt is not None else goto_blocked
        return Command(update=update, goto=goto_allowed if decision.allowed else stop)

    ends = tuple(dict.fromkeys(end for end in (goto_allowed, goto_blocked, goto_interrupt) if end is not None))
    node = cast("GuardrailNode", steps_node(steps, name=name, kind=_drawn_to(ends) if ends else GuardrailNode))
    node.destinations = ends
    return node


def classifier_node(
    classifier: Runnable[Any, Verdict],
    *,
    input_key: str = "messages",
    output_key: str = "verdict",
    name: str = "classify",
) -> Runnable[Any, dict[str, Any]]:
    """Make a node of a classifier: the verdict goes into the state under `output_key`, as plain values.

    A classifier added to a graph by itself is no node: LangGraph finds none of the state's keys in its verdict.

    Args:
        classifier: A `PLDClassifier`, or any Runnable that gives a `Verdict`.
        input_key: Where the state holds what is classified.
        output_key: Where the verdict goes.
        name: Name in traces.

    Example:
        >>> builder.add_node("classify", classifier_node(classifier, output_key="mood"))  # doctest: +SKIP
    """

    def steps(state: Any, config: RunnableConfig) -> Steps[dict[str, Any]]:
        value = state_value(state, input_key, "input")
        verdict = yield Call(lambda: classifier.invoke(value, config), lambda: classifier.ainvoke(value, config))
        return {output_key: verdict.model_dump(mode="json")}

    return steps_node(steps, name=name)


def _drawn_to(ends: tuple[str, ...]) -> type[GuardrailNode]:
    """The class of nodes that go to some others; LangGraph draws the edges that the return type of a call names."""

    class DrawnNode(GuardrailNode):
        def __call__(self, state, config=None):  # type: ignore[no-untyped-def]
            return self.invoke(state, config)

    DrawnNode.__call__.__annotations__ = {"return": Command[Literal[ends]]}  # type: ignore[valid-type]
    return DrawnNode
