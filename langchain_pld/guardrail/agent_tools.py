"""A tool call inside an agent: checked before the tool runs, and its result before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from langchain_pld.errors import InputError
from langchain_pld.guardrail.agent_checks import check, mark_own, sort_messages
from langchain_pld.guardrail.agent_update import UNKNOWN_TOOL, AgentGuard, StateUpdate, checked_in
from langchain_pld.guardrail.content import Content, read_call, read_message
from langchain_pld.guardrail.guarded_tool import GuardedTool
from langchain_pld.guardrail.message_edits import WITHHELD, replace_results
from langchain_pld.steps import Call, Steps
from langchain_pld.student.failures import passes_through

__all__ = ["call_tool"]


def call_tool(guard: AgentGuard, request: Any, handler: Callable[[Any], Any]) -> Steps[Any]:
    """Call a tool behind a guard.

    Also the last gate: what was changed after the check, by a person or another middleware, does not run unchecked.
    """
    checks_results = "tool_result" in guard.guards
    checked = checked_in(request.state)
    if "tool_call" in guard.guards:
        refusal = yield from _check_call(guard, request.tool_call, checked, known=request.tool is not None)
        if refusal is not None:
            return refusal
        checked.add(guard.signature_of_call(request.tool_call))
    if checks_results or "tool_call" in guard.guards:
        request = _with_guarded_tools(guard, request, checked, nostream=checks_results)
    try:
        result = yield Call(lambda: handler(request), lambda: handler(request))
    except Exception as error:
        if not checks_results or passes_through(error):
            raise
        # Others may make a message of it.
        [decision] = yield from check(guard, "tool_result", [str(error)])
        if decision.allowed:
            raise
        call = request.tool_call
        failure = ToolMessage("", name=call["name"], tool_call_id=call["id"] or "", status="error")
        return guard.placeholder(failure, WITHHELD, decision)
    messages = _result_messages(guard, result)
    update = StateUpdate(guard)
    if checks_results:
        for message in messages:
            message.id = message.id or str(uuid4())
        with_words = [message for message in messages if read_message(message) != Content("")]
        yield from sort_messages(guard, "tool_result", with_words, messages, update)
    else:
        update.replacements = {id(m): own for m, own in zip(messages, mark_own(guard, messages), strict=True)}
    return replace_results(result, update.replacements, update.pending)


def _check_call(
    guard: AgentGuard, call: ToolCall, checked: Collection[str], *, known: bool
) -> Steps[ToolMessage | None]:
    """What takes the place of a call's result where it must not run."""
    if "tool_call" not in guard.guards or guard.signature_of_call(call) in checked:
        return None
    [decision] = yield from check(guard, "tool_call", [read_call(call)])
    if decision.allowed and not decision.strips_invisible:
        return None
    shown = call if known else ToolCall(name=UNKNOWN_TOOL, args={}, id=call["id"])
    return guard.refusal_of_call(shown, decision)


def _with_guarded_tools(guard: AgentGuard, request: Any, checked: Collection[str], *, nostream: bool) -> Any:
    """The request with tools that check their arguments: a middleware behind this one may change them."""

    def behind_guard(tool: Any) -> Any:
        if not isinstance(tool, BaseTool):
            return tool
        return GuardedTool.of(tool, lambda call: _check_call(guard, call, checked, known=True), nostream=nostream)

    request = request.override(tool=behind_guard(request.tool))
    if tools := getattr(request.runtime, "tools", None):
        runtime = replace(request.runtime, tools=[behind_guard(tool) for tool in tools])
        request = replace(request, runtime=runtime)
    return request


def _result_messages(guard: AgentGuard, result: Any) -> list[BaseMessage]:
    """The messages that a tool's result brings."""
    if isinstance(result, list):
        return [message for part in result for message in _result_messages(guard, part)]
    found: Any = [result]
    if isinstance(result, Command):
        update = result.update or {}
        found = update.get("messages", []) if isinstance(update, dict) else update
    found = found if isinstance(found, list) else [found]
    if "tool_result" in guard.guards and not all(isinstance(message, BaseMessage) for message in found):
        msg = f"{guard.name} cannot read what a tool returned; return a ToolMessage, or a Command with messages"
        raise InputError(msg)
    return [message for message in found if isinstance(message, BaseMessage)]
