"""What a guard reads from a graph's state, and the updates after its decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_pld.errors import InputError
from langchain_pld.guardrail.content import Stage, stage_messages, stage_value
from langchain_pld.guardrail.guard import Guard
from langchain_pld.guardrail.invisible import strip_invisible
from langchain_pld.steps import Steps, arun_steps, run_steps
from langchain_pld.student.inputs import ClassifierInput

__all__ = ["blocked_update", "guards_of_one_stage", "reworded_update", "state_value", "steps_node", "stripped_update"]


def steps_node(
    steps: Callable[[Any, RunnableConfig], Steps[Any]],
    *,
    name: str | None = None,
    kind: type[RunnableLambda[Any, Any]] = RunnableLambda,
) -> RunnableLambda[Any, Any]:
    """A node that runs some logic on the state, in sync and async graphs."""

    def run(state: Any, config: RunnableConfig) -> Any:
        return run_steps(steps(state, config))

    async def arun(state: Any, config: RunnableConfig) -> Any:
        return await arun_steps(steps(state, config))

    return kind(run, arun, name=name)


def guards_of_one_stage(guards: Guard | Sequence[Guard]) -> tuple[list[Guard], Stage]:
    """The guards of a node, and their stage.

    Raises:
        InputError: There are none, or they stand at different stages.
    """
    several = [guards] if isinstance(guards, Guard) else list(guards)
    stages = sorted({guard.stage for guard in several})
    if len(stages) != 1:
        msg = f"the guards of one node need one stage, got {', '.join(stages) or 'no guard'}"
        raise InputError(msg)
    return several, several[0].stage


def state_value(
    state: Any, key: str, stage: Stage, select: Callable[[Any], ClassifierInput] | None = None
) -> ClassifierInput:
    """What a guard of a stage checks of a state.

    Raises:
        InputError: The state has no such key.
    """
    if select is not None:
        return select(state)
    value = _get(state, key)
    part: ClassifierInput = stage_value(value, stage) if _is_messages(value) else value
    return part


def blocked_update(state: Any, key: str, stage: Stage, message: str) -> dict[str, Any]:
    """Take what a stage checked out of the history and put a message in its place; other than messages is left alone.

    Raises:
        InputError: The messages have no ids, so that they cannot be replaced.
    """
    value = _get(state, key)
    if not _is_messages(value):
        return {}
    blocked = stage_messages(value, stage)
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


def stripped_update(state: Any, key: str, stage: Stage) -> dict[str, Any]:
    """Take invisible characters out of what a stage checked, as the guards did to check it."""
    value = _get(state, key)
    if not _is_messages(value):
        return {key: strip_invisible(value)}
    return {key: [strip_invisible(found) for found in stage_messages(value, stage)]} if stage != "tool_call" else {}


def reworded_update(state: Any, key: str, stage: Stage, words: str) -> dict[str, Any]:
    """Put a person's words in the place of what a stage checked: the text itself, or messages."""
    value = _get(state, key)
    if not _is_messages(value):
        return {key: words}
    *earlier, last = stage_messages(value, stage)
    if stage == "tool_result":  # each belongs to a call and must stay
        return {key: [message.model_copy(update={"content": words}) for message in (*earlier, last)]}
    removed = [RemoveMessage(id=str(message.id)) for message in earlier]
    return {key: [*removed, last.model_copy(update={"content": words})]}


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
