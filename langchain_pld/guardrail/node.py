"""A guard as a node of any LangGraph graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import Command

from langchain_pld.errors import InputError
from langchain_pld.guardrail.check import Decision, Guard, Stage, acheck_all, check_all
from langchain_pld.guardrail.content import stage_input, stage_text, visible_only
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.verdict import Verdict

__all__ = ["GuardrailNode", "classifier_node", "cleaned", "guardrail_node", "replacement", "same_stage", "value_of"]


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
            (see `stage_input`), or whatever else the classifiers take.
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
    watch = [guards] if isinstance(guards, Guard) else list(guards)
    stage = same_stage(watch)
    if (goto_allowed is None) != (goto_blocked is None):
        msg = (
            "give both goto_allowed and goto_blocked, or neither: a node that sometimes goes somewhere needs an edge "
            "for the other times, and LangGraph follows that edge in every case"
        )
        raise InputError(msg)
    asks = any("interrupt" in guard.policy.actions for guard in watch)
    if asks and goto_blocked is not None and goto_interrupt is None:
        msg = "a policy asks a person: pass goto_interrupt, or use create_guardrail_graph, which asks by itself"
        raise InputError(msg)

    def outcome(state: Any, decision: Decision) -> Any:
        decision.enforce()
        update: dict[str, Any] = {output_key: decision.summary()}
        if replace_blocked and select is None and not decision.allowed and decision.action != "interrupt":
            update |= replacement(_get(state, input_key), stage, decision.message, key=input_key)
        elif decision.allowed and decision.removes_invisible and select is None:
            update |= cleaned(_get(state, input_key), stage, key=input_key)
        if goto_allowed is None or goto_blocked is None:
            return update
        asked = goto_interrupt if decision.action == "interrupt" else None
        return Command(update=update, goto=goto_allowed if decision.allowed else asked or goto_blocked)

    def check(state: Any, config: RunnableConfig) -> Any:
        return outcome(state, check_all(watch, value_of(state, input_key, select, stage), config))

    async def acheck(state: Any, config: RunnableConfig) -> Any:
        return outcome(state, await acheck_all(watch, value_of(state, input_key, select, stage), config))

    ends = tuple(dict.fromkeys(end for end in (goto_allowed, goto_blocked, goto_interrupt) if end is not None))
    node = (_drawn_to(ends) if ends else GuardrailNode)(check, acheck, name=name)
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

    def classify(state: Any, config: RunnableConfig) -> dict[str, Any]:
        verdict = classifier.invoke(value_of(state, input_key, None, "input"), config)
        return {output_key: verdict.model_dump(mode="json")}

    async def aclassify(state: Any, config: RunnableConfig) -> dict[str, Any]:
        verdict = await classifier.ainvoke(value_of(state, input_key, None, "input"), config)
        return {output_key: verdict.model_dump(mode="json")}

    return RunnableLambda(classify, aclassify, name=name)


def _drawn_to(ends: tuple[str, ...]) -> type[GuardrailNode]:
    """The class of nodes that go to some others; LangGraph draws the edges that the return type of a call names."""

    class DrawnNode(GuardrailNode):
        def __call__(self, state, config=None):  # type: ignore[no-untyped-def]
            return self.invoke(state, config)

    DrawnNode.__call__.__annotations__ = {"return": Command[Literal[ends]]}  # type: ignore[valid-type]
    return DrawnNode


def value_of(
    state: Any, input_key: str, select: Callable[[Any], ClassifierInput] | None, stage: Stage
) -> ClassifierInput:
    """What a guard of a stage checks of a state.

    Raises:
        InputError: The state has no such key.
    """
    if select is not None:
        return select(state)
    value = _get(state, input_key)
    if _is_messages(value):
        part: ClassifierInput = stage_text(value, stage)
        return part
    checked: ClassifierInput = value
    return checked


def replacement(value: Any, stage: Stage, message: str, *, key: str) -> dict[str, Any]:
    """The update that takes what a stage checked out of a history and puts a message in its place.

    Args:
        value: What the state holds; anything but messages is left alone.
        stage: Where the guard stands.
        message: What stands in the place of what is taken out.
        key: The state key of the messages.

    Raises:
        InputError: The messages have no ids, so that they cannot be replaced.
    """
    if not _is_messages(value):
        return {}
    blocked = stage_input(value, stage)
    if not all(found.id for found in blocked):
        msg = (
            f"the messages under {key!r} have no ids and cannot be taken out of the history; annotate the key with "
            "add_messages, or pass replace_blocked=False"
        )
        raise InputError(msg)
    if stage == "input":
        return {key: [*(RemoveMessage(id=str(found.id)) for found in blocked), AIMessage(message)]}
    if stage == "tool_result":
        return {key: [found.model_copy(update={"content": message, "artifact": None}) for found in blocked]}
    return {key: [AIMessage(message, id=found.id) for found in blocked]}


def cleaned(value: Any, stage: Stage, *, key: str) -> dict[str, Any]:
    """The update that takes invisible characters out of what a stage checked, as the guards did to check it."""
    if not _is_messages(value):
        return {key: visible_only(value)}
    return {key: [visible_only(found) for found in stage_input(value, stage)]} if stage != "tool_call" else {}


def same_stage(guards: Sequence[Guard]) -> Stage:
    """The one stage of some guards.

    Raises:
        InputError: There are none, or they stand at different stages.
    """
    stages = sorted({guard.stage for guard in guards})
    if len(stages) != 1:
        msg = f"the guards of one node need one stage, got {', '.join(stages) or 'no guard'}"
        raise InputError(msg)
    return guards[0].stage


def _get(state: Any, key: str) -> Any:
    if isinstance(state, Mapping):
        if key in state:
            return state[key]
        found = ", ".join(map(str, state)) or "nothing"
    elif hasattr(state, key):
        return getattr(state, key)
    else:
        found = type(state).__name__
    msg = f"the state has no {key!r} to check (found {found}); pass input_key or select"
    raise InputError(msg)


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(message, BaseMessage) for message in value)
