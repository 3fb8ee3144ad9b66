"""The guard on what users say to an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents.middleware import hook_config
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ChatMessage
from typing_extensions import override

from langchain_pld.guardrail.check import Decision
from langchain_pld.guardrail.content import visible_text
from langchain_pld.guardrail.middleware import Answered, GuardState, PLDGuardrailMiddleware, astored, stored
from langchain_pld.guardrail.replacement import WITHHELD, emptied, marked

__all__ = ["InputGuard"]


class InputGuard(PLDGuardrailMiddleware):
    """Checks each user message once, before the model sees it."""

    stage = "input"

    @override
    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        fresh = self._fresh(state)
        return self._outcome(state, fresh, self._decide(fresh))

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        fresh = self._fresh(state)
        return self._outcome(state, fresh, await self._adecide(fresh))

    @override
    @hook_config(can_jump_to=["end"])
    def before_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        if pending := self._pending(state):
            return stored(self._answered(state, pending))
        fresh = self._fresh(state)
        return self._outcome(state, fresh, self._decide(fresh), ask=False)

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: GuardState, runtime: Any) -> dict[str, Any] | None:
        if pending := self._pending(state):
            return await astored(self._answered(state, pending))
        fresh = self._fresh(state)
        decisions = await self._adecide(fresh)
        return self._outcome(state, fresh, decisions, ask=False)

    def _fresh(self, state: GuardState) -> list[AnyMessage]:
        checked = set(state.get("pld_checked") or ())
        return [
            message
            for message in state["messages"]
            if _from_user(message) and message.content and self._mark_of(message) not in checked
        ]

    def _mark_of(self, message: BaseMessage) -> str:
        return self._digest(message.id, message.content)

    def _outcome(
        self, state: GuardState, fresh: Sequence[AnyMessage], decisions: Sequence[Decision], *, ask: bool = True
    ) -> dict[str, Any] | None:
        """The update after checks. Without `ask`, a question blocks: here it could not outlive the node."""
        passed: list[BaseMessage] = []
        asked: list[tuple[AnyMessage, Decision]] = []
        refused: list[tuple[AnyMessage, Decision]] = []
        for message, decision in zip(fresh, decisions, strict=True):
            if decision.action == "ask" and ask:
                asked.append((message, decision))
            elif not decision.allowed:
                refused.append((message, decision))
            else:
                passed.append(marked(message, decision, self.name) if decision.action == "flag" else message)
        if self._ends(state, refused):
            # What a person would have been asked about goes with the turn.
            refused, asked = refused + asked, []
        pending: dict[str, Any] = {}
        for message, decision in asked:
            pending |= self._question(decision, message.id, visible_text(message))
        return self._update(state, passed, refused, pending)

    def _answered(self, state: GuardState, pending: dict[str, Any]) -> Answered:
        by_id = {message.id: message for message in state["messages"]}
        settled, kept = self._ask(pending)
        passed: list[BaseMessage] = []
        refused: list[tuple[AnyMessage, Decision | None]] = []
        words: str | None = None
        for item, found in zip(pending.values(), settled, strict=True):
            message = by_id[item["about"]]
            if not found.allowed:
                refused.append((message, None))
                words = words or found.words
            else:
                passed.append(message.model_copy(update={"content": found.words}) if found.words else message)
        return self._update(state, passed, refused, dict.fromkeys(pending), words=words), kept

    def _update(
        self,
        state: GuardState,
        passed: Sequence[BaseMessage],
        refused: Sequence[tuple[AnyMessage, Decision | None]],
        pending: dict[str, Any],
        *,
        words: str | None = None,
    ) -> dict[str, Any] | None:
        held = [marked(emptied(message, WITHHELD), decision, self.name) for message, decision in refused]
        update: dict[str, Any] = {"messages": [*passed, *held]}
        if passed or held:
            update["pld_checked"] = [self._mark_of(message) for message in update["messages"]]
        if pending:
            update["pld_pending"] = pending
        if self._ends(state, refused):
            answer = AIMessage(words or self._words(refused[0][1]))
            update["messages"].append(marked(answer, refused[0][1], self.name))
            update["jump_to"] = "end"
        return update if passed or held or pending else None

    def _ends(self, state: GuardState, refused: Sequence[tuple[AnyMessage, Decision | None]]) -> bool:
        """Whether a refused message is of this turn. An older one, sent again as history, only gives way."""
        messages = state["messages"]
        last = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)
        new = {message.id for message in messages[last + 1 :]}
        return any(message.id in new for message, _ in refused)


def _from_user(message: BaseMessage) -> bool:
    role = message.role if isinstance(message, ChatMessage) else message.type
    return role in {"human", "user"}
