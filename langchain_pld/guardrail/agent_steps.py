"""What the hooks of an agent's guard yield, and what does it: sync and async differ here alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context, var_child_runnable_config
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp

from langchain_pld.guardrail import held_content
from langchain_pld.guardrail.check import Decision, Guard, GuardrailError, acheck_all, check_all
from langchain_pld.guardrail.content import Stage
from langchain_pld.guardrail.human_review import StoreItem
from langchain_pld.guardrail.silent_callbacks import silent_config

__all__ = ["Changes", "Check", "Fetch", "Handle", "Hold", "Keep", "Steps", "arun_steps", "run_steps", "running_config"]

Steps = Generator[Any, Any, Any]
"""Yields what is to be done, is sent what came of it, and returns what the hook returns."""
Guards = Mapping[Stage, Sequence[Guard]]


@dataclass(frozen=True)
class Check:
    """Have some values checked; gives the decisions."""

    stage: Stage
    values: Sequence[Any]


@dataclass(frozen=True)
class Handle:
    """Go on with the model or the tool; gives its response."""

    request: Any
    silent: bool = False


@dataclass(frozen=True)
class Hold:
    """Keep content while a person is asked."""

    key: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Fetch:
    """Fetch kept content; gives `None` where it is lost."""

    key: str


@dataclass(frozen=True)
class Keep:
    """Keep what people answered."""

    items: Sequence[StoreItem]


@dataclass
class Changes:
    """What a hook changes in the state."""

    messages: list[Any] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    pending: dict[str, Any] = field(default_factory=dict)
    ends: bool = False
    instead: dict[int, Any] = field(default_factory=dict)
    """By the identity of a message, what takes its place."""

    def exchange(self, message: BaseMessage, other: BaseMessage) -> None:
        """Put a message in the place of another; in the state too, where that one stands there."""
        if other is message:
            return
        self.instead[id(message)] = other
        if message.id is not None:
            self.messages.append(other)

    def update(self, *, jump: bool = True) -> dict[str, Any] | None:
        """The update of the state; `None` where nothing changes."""
        found = {"messages": self.messages, "pld_checked": self.checked, "pld_pending": self.pending}
        update: dict[str, Any] = {key: value for key, value in found.items() if value}
        return {**update, "jump_to": "end"} if self.ends and jump else update or None


def run_steps(steps: Steps, guards: Guards, handler: Callable[[Any], Any] | None = None) -> Any:
    """Do what the steps ask for, one after the other; gives what they return."""
    outcome: Any = None
    try:
        while True:
            outcome = _perform(steps.send(outcome), guards, handler)
    except StopIteration as done:
        return done.value


async def arun_steps(steps: Steps, guards: Guards, handler: Callable[[Any], Awaitable[Any]] | None = None) -> Any:
    """The same without blocking the event loop."""
    outcome: Any = None
    try:
        while True:
            outcome = await _aperform(steps.send(outcome), guards, handler)
    except StopIteration as done:
        return done.value


def _perform(step: Any, guards: Guards, handler: Any) -> Any:
    config = running_config()
    match step:
        case Check(stage, values):
            return [_enforce(check_all(guards[stage], value, config)) for value in values]
        case Handle(request, silent):
            if not silent:
                return handler(request)
            # The model's tokens are kept out of every stream: what is shown is what the node returns, checked.
            with set_config_context(silent_config(config)) as context:
                return context.run(handler, request)
        case Hold(key, content):
            return held_content.put(key, content)
        case Fetch(key):
            return held_content.get(key)
        case Keep(items):
            if store := held_content.running_store():
                for item in items:
                    store.put(*item)
    return None


async def _aperform(step: Any, guards: Guards, handler: Any) -> Any:
    config = running_config()
    match step:
        case Check(stage, values):
            checks = (acheck_all(guards[stage], value, config) for value in values)
            return [_enforce(decision) for decision in await asyncio.gather(*checks)]
        case Handle(request, silent):
            if not silent:
                return await handler(request)
            token = var_child_runnable_config.set(silent_config(config))
            try:
                return await handler(request)
            finally:
                var_child_runnable_config.reset(token)
        case Hold(key, content):
            return await held_content.aput(key, content)
        case Fetch(key):
            return await held_content.aget(key)
        case Keep(items):
            if store := held_content.running_store():
                for item in items:
                    await store.aput(*item)
    return None


class _AgentGuardrailError(GuardrailError, GraphBubbleUp):
    """Passes through middlewares that try again or fall back after an error: a refusal is no error of theirs."""


def _enforce(decision: Decision) -> Decision:
    if decision.action == "raise":
        raise _AgentGuardrailError(decision)
    return decision


def running_config() -> RunnableConfig | None:
    """The config of the graph that runs; `None` outside of one."""
    try:
        return get_config()
    except RuntimeError:  # called outside a graph
        return None
