"""Checks inside an agent: of messages that nobody has checked yet, and of the calls in a model's answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langgraph.errors import GraphBubbleUp

from langchain_pld.guardrail.agent_review import call_question, hold
from langchain_pld.guardrail.agent_update import UNKNOWN_TOOL, AgentGuard, StateUpdate, has_new, running_config
from langchain_pld.guardrail.content import Stage, read_call, read_message
from langchain_pld.guardrail.decision import Decision, GuardrailError
from langchain_pld.guardrail.guard import check_steps, side_by_side
from langchain_pld.guardrail.invisible import strip_invisible
from langchain_pld.guardrail.message_edits import WAITING, replace_calls
from langchain_pld.steps import Steps

__all__ = ["check", "check_calls", "check_new", "mark_own", "sort_messages"]


def check_new(
    guard: AgentGuard,
    stage: Stage,
    messages: Sequence[BaseMessage],
    state: Any,
    update: StateUpdate,
    *,
    can_ask: bool = True,
) -> Steps[None]:
    """Check the messages of a stage that were not checked as they are."""
    if stage in guard.guards:
        fresh = guard.unchecked(stage, messages, state)
        yield from sort_messages(guard, stage, fresh, messages, update, can_ask=can_ask)


def sort_messages(
    guard: AgentGuard,
    stage: Stage,
    fresh: Sequence[BaseMessage],
    messages: Sequence[BaseMessage],
    update: StateUpdate,
    *,
    can_ask: bool = True,
) -> Steps[None]:
    """Check some of the messages; each passes, is held for a person, or withheld."""
    values = [read_message(message, calls=False) if stage == "output" else message for message in fresh]
    decisions = yield from check(guard, stage, values)
    asked, refused = [], []
    for message, decision in zip(fresh, decisions, strict=True):
        if decision.action == "interrupt" and can_ask:
            asked.append((message, decision))
        elif not decision.allowed:
            refused.append((message, decision))
        else:
            update.replace(message, update.allow(stage, message, decision))
    ends = stage == "input" and has_new([message for message, _ in refused], messages)
    if ends:  # what a person would have been asked about goes with the turn
        refused, asked = refused + asked, []
    for message, decision in asked:
        update.pending |= yield from hold(guard, stage, decision, message, [message])
        update.replace(message, guard.placeholder(message, WAITING))
    for message, decision in refused:
        update.withhold(stage, message, decision)
    if ends:
        decision = refused[0][1]
        update.end(guard.answer(decision))


def check_calls(guard: AgentGuard, response: Any, update: StateUpdate, tools: Collection[str]) -> Steps[Any]:
    """Check the calls that will be run: those of a structured answer already have their result."""
    done = {message.tool_call_id for message in response.result if isinstance(message, ToolMessage)}
    authors = [message for message in response.result if isinstance(message, AIMessage)]
    calls = [call for author in authors for call in author.tool_calls if call["id"] not in done]
    decisions = yield from check(guard, "tool_call", [read_call(call) for call in calls])
    refusals: list[ToolMessage] = []
    changed: dict[str | None, ToolCall] = {}
    for call, decision in zip(calls, decisions, strict=True):
        if decision.action == "interrupt" and call["id"]:
            update.pending |= call_question(guard, decision, call)
        elif not decision.allowed:
            known = call["name"] if call["name"] in tools else UNKNOWN_TOOL
            changed[call["id"]] = ToolCall(name=known, args={}, id=call["id"])
            refusals.append(guard.refusal_of_call(changed[call["id"]], decision))
        else:
            if decision.strips_invisible:
                call = changed[call["id"]] = strip_invisible(call)
            update.checked.append(guard.signature_of_call(call))
    result = [replace_calls(m, changed) if isinstance(m, AIMessage) else m for m in response.result]
    if flags := [decision for decision in decisions if decision.action == "flag"]:
        result = [guard.annotate(m, flags[-1]) if isinstance(m, AIMessage) else m for m in result]
    return replace(response, result=[*result, *refusals])


def mark_own(guard: AgentGuard, messages: Sequence[BaseMessage], update: StateUpdate | None = None) -> list[Any]:
    """Mark what the model or a tool said, which is no input, whoever checks it."""
    if "input" not in guard.guards:
        return list(messages)
    own = [guard.sign(message) if isinstance(message, ToolMessage) else message for message in messages]
    for message in own:
        if update is not None and not isinstance(message, ToolMessage):
            message.id = message.id or str(uuid4())
            update.checked.append(guard.signature_of("input", message))
    return own


def check(guard: AgentGuard, stage: Stage, values: Sequence[Any]) -> Steps[list[Decision]]:
    """The decisions about some values, each by all guards of a stage."""
    config = running_config()
    decisions = yield from side_by_side([check_steps(guard.guards[stage], value, config) for value in values])
    for decision in decisions:
        if decision.action == "raise":
            raise _AgentGuardrailError(decision)
    return decisions


class _AgentGuardrailError(GuardrailError, GraphBubbleUp):
    """Passes through middlewares that try again or fall back after an error: a refusal is no error of theirs."""
