"""The guard on what an agent answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain.agents.middleware import ModelResponse, hook_config
from langchain.agents.middleware.types import ExtendedModelResponse
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from langchain_core.runnables.config import set_config_context, var_child_runnable_config
from langgraph.types import Command
from pydantic import BaseModel
from typing_extensions import override

from langchain_pld.guardrail.check import Decision, quiet_config
from langchain_pld.guardrail.content import checkable, visible_text
from langchain_pld.guardrail.middleware import (
    Answered,
    GuardState,
    PLDGuardrailMiddleware,
    astored,
    running_config,
    stored,
)
from langchain_pld.guardrail.replacement import MARK, WAITING, emptied, marked

__all__ = ["OutputGuard"]


class OutputGuard(PLDGuardrailMiddleware):
    """Checks the model's answer before anything else sees it."""

    stage = "output"

    @override
    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        # The model's tokens are kept out of every stream: what is shown is what the node returns, after the check.
        with set_config_context(quiet_config(running_config())) as context:
            response = context.run(handler, request)
        return self._outcome(response, self._decide([_answer(response)])[0])

    @override
    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        token = var_child_runnable_config.set(quiet_config(running_config()))
        try:
            response = await handler(request)
        finally:
            var_child_runnable_config.reset(token)
        return self._outcome(response, (await self._adecide([_answer(response)]))[0])

    @override
    @hook_config(can_jump_to=["end"])
    def after_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        if pending := self._pending(state):
            return stored(self._answered(pending))
        return self._ended(state)

    @override
    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        if pending := self._pending(state):
            return await astored(self._answered(pending))
        return self._ended(state)

    def _ended(self, state: GuardState) -> dict[str, Any] | None:
        last = state["messages"][-1] if state["messages"] else None
        # Without the jump an agent with a response format would ask the model again.
        return {"jump_to": "end"} if self._blocked(last) else None

    def _blocked(self, message: BaseMessage | None) -> bool:
        note = message.response_metadata.get(MARK) if isinstance(message, AIMessage) else None
        return isinstance(note, dict) and note.get(self.name, {}).get("action") == "block"

    def _outcome(self, response: Any, decision: Decision) -> Any:
        last = next((message for message in reversed(response.result) if isinstance(message, AIMessage)), AIMessage(""))
        if decision.allowed:
            if decision.action != "flag":
                return response
            result = [marked(m, decision, self.name) if m is last else m for m in response.result]
            return replace(response, result=result)
        # A structured answer is an object of the caller's, which a checkpoint may not keep while a person is asked.
        if decision.action == "ask" and response.structured_response is None:
            last.id = last.id or str(uuid4())
            kept = [message_to_dict(message) for message in response.result]
            question = self._question(decision, last.id, visible_text(last), kept=kept)
            return ExtendedModelResponse(
                model_response=ModelResponse(result=[emptied(last, WAITING)]),
                command=Command(update={"pld_pending": question}),
            )
        return ModelResponse(result=[self._refusal(last, decision)])

    def _refusal(self, message: AIMessage, decision: Decision | None, words: str | None = None) -> Any:
        return marked(emptied(message, words or self._words(decision)), decision, self.name)

    def _answered(self, pending: dict[str, Any]) -> Answered:
        settled, kept = self._ask(pending)
        update: dict[str, Any] = {"messages": [], "pld_pending": dict.fromkeys(pending)}
        for item, found in zip(pending.values(), settled, strict=True):
            messages = messages_from_dict(item["kept"])
            last = next(message for message in reversed(messages) if isinstance(message, AIMessage))
            if not found.allowed:
                messages, update["jump_to"] = [self._refusal(last, None, found.words)], "end"
            elif found.words:
                edited = last.model_copy(update={"content": found.words})
                messages = [edited if message is last else message for message in messages]
            update["messages"] += messages
        return update, kept


def _answer(response: ModelResponse[Any]) -> Any:
    """What the output guard is handed; nothing where the model only calls tools, which is clear."""
    answers = [checkable(message) for message in response.result if isinstance(message, AIMessage)]
    structured = response.structured_response
    if structured is not None:
        # A structured answer may come as a tool call, without any text.
        dumped = structured.model_dump(mode="json") if isinstance(structured, BaseModel) else structured
        answers.append(json.dumps(dumped, ensure_ascii=False, default=str))
    if all(isinstance(answer, str) for answer in answers):
        return "\n".join(answer for answer in answers if answer.strip())
    return [answer if isinstance(answer, BaseMessage) else AIMessage(answer) for answer in answers]
