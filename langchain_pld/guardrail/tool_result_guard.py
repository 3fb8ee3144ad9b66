"""The guard on what tools return to an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
from langgraph.types import Command
from typing_extensions import override

from langchain_pld.errors import InputError
from langchain_pld.guardrail.check import Decision
from langchain_pld.guardrail.content import visible_text
from langchain_pld.guardrail.middleware import Answered, GuardState, PLDGuardrailMiddleware, astored, stored
from langchain_pld.guardrail.replacement import WAITING, WITHHELD, emptied, exchanged, marked

__all__ = ["ToolResultGuard"]


class ToolResultGuard(PLDGuardrailMiddleware):
    """Checks what a tool returned before the model sees it."""

    stage = "tool_result"

    @override
    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        result = handler(request)
        messages = self._messages(result)
        return self._outcome(result, messages, self._decide(messages))

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        result = await handler(request)
        messages = self._messages(result)
        return self._outcome(result, messages, await self._adecide(messages))

    @override
    def before_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        pending = self._pending(state)
        return stored(self._answered(pending)) if pending else None

    @override
    async def abefore_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        pending = self._pending(state)
        return await astored(self._answered(pending)) if pending else None

    def _messages(self, result: Any) -> list[BaseMessage]:
        """The messages that a tool's result brings, each with something in it to check."""
        if isinstance(result, list):
            return [message for part in result for message in self._messages(part)]
        found: Any = [result]
        if isinstance(result, Command):
            update = result.update or {}
            found = update.get("messages", []) if isinstance(update, dict) else update
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(message, BaseMessage) for message in found):
            msg = f"{self.name} cannot read what a tool returned; return a ToolMessage, or a Command with messages"
            raise InputError(msg)
        return [message for message in found if message.content]

    def _outcome(self, result: Any, messages: Sequence[BaseMessage], decisions: Sequence[Decision]) -> Any:
        instead: dict[int, BaseMessage] = {}
        pending: dict[str, Any] = {}
        for message, decision in zip(messages, decisions, strict=True):
            if decision.action == "ask":
                message.id = message.id or str(uuid4())
                pending |= self._question(decision, message.id, visible_text(message), kept=message_to_dict(message))
                instead[id(message)] = emptied(message, WAITING)
            elif not decision.allowed:
                instead[id(message)] = marked(emptied(message, WITHHELD), decision, self.name)
            elif decision.action == "flag":
                instead[id(message)] = marked(message, decision, self.name)
        return exchanged(result, instead, pending)

    def _answered(self, pending: dict[str, Any]) -> Answered:
        settled, kept = self._ask(pending)
        messages: list[BaseMessage] = []
        for item, found in zip(pending.values(), settled, strict=True):
            message = messages_from_dict([item["kept"]])[0]
            if not found.allowed:
                message = marked(emptied(message, found.words or WITHHELD), None, self.name)
            elif found.words:
                message = message.model_copy(update={"content": found.words})
            messages.append(message)
        return {"messages": messages, "pld_pending": dict.fromkeys(pending)}, kept
