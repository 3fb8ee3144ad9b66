"""The guard on which tools an agent calls, and with what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import ModelResponse
from langchain.agents.middleware.types import ExtendedModelResponse, ToolCallRequest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langgraph.types import Command
from typing_extensions import override

from langchain_pld.guardrail.check import Decision
from langchain_pld.guardrail.content import call_text
from langchain_pld.guardrail.middleware import Answered, GuardState, PLDGuardrailMiddleware, astored, stored
from langchain_pld.guardrail.replacement import marked, with_arguments

__all__ = ["ToolCallGuard"]


class ToolCallGuard(PLDGuardrailMiddleware):
    """Checks name and arguments of each call; a blocked tool is not run."""

    stage = "tool_call"

    @override
    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        response = handler(request)
        calls = _open_calls(response)
        return self._outcome(response, calls, self._decide([call_text(call) for call in calls]))

    @override
    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        response = await handler(request)
        calls = _open_calls(response)
        return self._outcome(response, calls, await self._adecide([call_text(call) for call in calls]))

    @override
    def after_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        pending = self._pending(state)
        return stored(self._answered(state, pending)) if pending else None

    @override
    async def aafter_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        pending = self._pending(state)
        return await astored(self._answered(state, pending)) if pending else None

    # The last gate: what was changed after the check, by a person or another middleware, does not run unchecked.
    @override
    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        if self._passed(request):
            return handler(request)
        decision = self._decide([call_text(request.tool_call)])[0]
        return handler(request) if decision.allowed else self._refusal(request.tool_call, decision)

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        if self._passed(request):
            return await handler(request)
        decision = (await self._adecide([call_text(request.tool_call)]))[0]
        return await handler(request) if decision.allowed else self._refusal(request.tool_call, decision)

    def _passed(self, request: ToolCallRequest) -> bool:
        state = request.state
        checked = state.get("pld_checked") if isinstance(state, dict) else None
        return self._mark_of(request.tool_call) in (checked or ())

    def _mark_of(self, call: ToolCall) -> str:
        return self._digest(call["id"], call_text(call))

    def _refusal(self, call: ToolCall, decision: Decision | None, words: str | None = None) -> Any:
        reason = decision.reason if decision is not None else "a person refused it"
        words = words or (
            f"The tool {call['name']} was not run: a guardrail does not allow this call ({reason}). Do not repeat it."
        )
        message = ToolMessage(words, name=call["name"], tool_call_id=call["id"] or "", status="error")
        return marked(message, decision, self.name)

    def _outcome(self, response: Any, calls: Sequence[ToolCall], decisions: Sequence[Decision]) -> Any:
        if not calls:
            return response
        checked: list[str] = []
        pending: dict[str, Any] = {}
        refused: dict[str | None, ToolMessage] = {}
        flag: Decision | None = None
        for call, decision in zip(calls, decisions, strict=True):
            if decision.action == "ask" and call["id"]:
                pending |= self._question(decision, call["id"], call_text(call), call=dict(call))
            elif not decision.allowed:
                refused[call["id"]] = self._refusal(call, decision)
            else:
                checked.append(self._mark_of(call))
                flag = decision if decision.action == "flag" else flag
        result = [
            with_arguments(m, {call_id: {} for call_id in refused}) if isinstance(m, AIMessage) else m
            for m in response.result
        ]
        if flag is not None:
            result = [marked(m, flag, self.name) if isinstance(m, AIMessage) else m for m in result]
        return ExtendedModelResponse(
            model_response=replace(response, result=[*result, *refused.values()]),
            command=Command(update={"pld_checked": checked, "pld_pending": pending}),
        )

    def _answered(self, state: GuardState, pending: dict[str, Any]) -> Answered:
        settled, kept = self._ask(pending)
        checked: list[str] = []
        refused: dict[str | None, ToolMessage] = {}
        edited: dict[str | None, dict[str, Any]] = {}
        for item, found in zip(pending.values(), settled, strict=True):
            call: ToolCall = item["call"]
            if not found.allowed:
                refused[call["id"]] = self._refusal(call, None, found.words)
                continue
            if found.arguments is not None:
                edited[call["id"]] = found.arguments
                call = {**call, "args": found.arguments}
            checked.append(self._mark_of(call))
        changed = {**edited, **{call_id: {} for call_id in refused}}
        authors = [
            with_arguments(message, changed)
            for message in state["messages"]
            if isinstance(message, AIMessage) and any(call["id"] in changed for call in message.tool_calls)
        ]
        update = {
            "messages": [*authors, *refused.values()],
            "pld_checked": checked,
            "pld_pending": dict.fromkeys(pending),
        }
        return update, kept


def _open_calls(response: ModelResponse[Any]) -> list[ToolCall]:
    """The tool calls that will be run: those of a structured answer already have their result."""
    answered = {message.tool_call_id for message in response.result if isinstance(message, ToolMessage)}
    return [
        call
        for message in response.result
        if isinstance(message, AIMessage)
        for call in message.tool_calls
        if call["id"] not in answered
    ]
