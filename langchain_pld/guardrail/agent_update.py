"""A guard's changes to an agent's state: messages that pass, are withheld, or end the run."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config

from langchain_pld.guardrail.content import Content, Stage, read_message
from langchain_pld.guardrail.decision import Decision
from langchain_pld.guardrail.guard import Guard
from langchain_pld.guardrail.invisible import strip_invisible
from langchain_pld.guardrail.message_edits import NOTES, WAITING, WITHHELD, annotate, placeholder
from langchain_pld.guardrail.signatures import signature_of

__all__ = ["UNKNOWN_TOOL", "AgentGuard", "StateUpdate", "checked_in", "has_new", "questions_in", "running_config"]

UNKNOWN_TOOL = "unknown_tool"
"""The name of a refused call whose own name no tool has: it may hold anything."""


@dataclass(frozen=True)
class AgentGuard:
    """The guards of one middleware, and what it says for them."""

    name: str
    """Name of the middleware; in its notes and signatures."""
    guards: Mapping[Stage, Sequence[Guard]]
    """The guards by the stage at which they check."""
    blocked_message: str | None
    """What the user reads instead of blocked content; by default the policy's message."""

    @cached_property
    def _signer(self) -> str:
        guards = [guard.identity for guards in self.guards.values() for guard in guards]
        return f"{self.name} {hashlib.sha256(json.dumps(guards).encode()).hexdigest()}"

    def annotate(self, message: BaseMessage, decision: Decision | None) -> Any:
        """The message with a note of the decision, or of a person's refusal if there is none."""
        return annotate(message, decision, self.name)

    def signature(self, *parts: Any) -> str:
        """This guard's signature on plain values."""
        return signature_of(self._signer, parts)

    def signature_of(self, stage: Stage, message: BaseMessage) -> str:
        """The signature that marks a message as checked."""
        return self.signature(stage, message.id, *_content_parts(message, calls=stage == "input"))

    def signature_of_call(self, call: ToolCall) -> str:
        """The signature that marks a tool call as checked."""
        return self.signature("tool_call", call["id"], call["name"], call["args"])

    def sign(self, message: BaseMessage) -> Any:
        """A copy of a message with this guard's signature on its content."""
        return _with_signature(message, self.name, self._signer)

    def unchecked(self, stage: Stage, messages: Sequence[BaseMessage], state: Any) -> list[BaseMessage]:
        """The messages of a stage that this guard has not let pass as they are.

        An input is whatever neither the model nor a tool of this agent said, in whatever role it comes.
        """
        checked = checked_in(state)
        others = ToolMessage if "tool_result" in self.guards else ()
        kind = {"output": AIMessage, "tool_result": ToolMessage}.get(stage, BaseMessage)
        found = [message for message in messages if isinstance(message, kind)]
        if stage == "input":
            found = [message for message in found if not isinstance(message, others)]
        return [
            message
            for message in (found[-1:] if stage == "output" else found)  # earlier answers were there before this turn
            if read_message(message, calls=stage == "input") != Content("")
            and self.signature_of(stage, message) not in checked
            and not _has_signature(message, self.name, self._signer)
            and not _has_signature(message, _PLACEHOLDER, _PLACEHOLDER)
        ]

    def has_blocked(self, message: BaseMessage | None) -> bool:
        """Whether a message stands in the place of an answer that this guard blocked."""
        note = message.response_metadata.get(NOTES) if isinstance(message, AIMessage) else None
        return isinstance(note, dict) and note.get(self.name, {}).get("action") == "block"

    def placeholder(self, message: BaseMessage, words: str, decision: Decision | None = None) -> Any:
        """A signed message in place of another, with the ids of its calls if the history needs them."""
        other = placeholder(message, words)
        if isinstance(message, AIMessage) and words == WITHHELD and message.tool_calls:
            other.tool_calls = [{**call, "name": UNKNOWN_TOOL, "args": {}} for call in message.tool_calls]
        if words != WAITING:
            other = self.annotate(other, decision)
        return self._sign_own_words(other, decision)

    def answer(self, decision: Decision | None, words: str | None = None) -> AIMessage:
        """The answer that ends a run with blocked input."""
        message = self.annotate(AIMessage(words or self.words(decision)), decision)
        signed: AIMessage = self._sign_own_words(message, decision)
        return signed

    def _sign_own_words(self, message: BaseMessage, decision: Decision | None) -> Any:
        """Sign for every guard; what a person said instead is left to the other guards."""
        if decision is None and message.content not in (WITHHELD, WAITING, self.words(None)):
            return self.sign(message)
        return _with_signature(message, _PLACEHOLDER, _PLACEHOLDER)

    def refusal(self, message: BaseMessage, decision: Decision | None, words: str | None = None) -> AIMessage:
        """The message in place of a blocked answer."""
        answer: AIMessage = self.placeholder(message, words or self.words(decision), decision)
        return answer

    def refusal_of_call(self, call: ToolCall, decision: Decision | None, words: str | None = None) -> ToolMessage:
        """The message in place of a blocked call's result."""
        reason = decision.reason if decision is not None else "a person refused it"
        words = words or (
            f"The tool {call['name']} was not run: a guardrail does not allow this call ({reason}). Do not repeat it."
        )
        message = ToolMessage(words, name=call["name"], tool_call_id=call["id"] or "", status="error")
        signed: ToolMessage = self._sign_own_words(self.annotate(message, decision), decision)
        return signed

    def words(self, decision: Decision | None) -> str:
        """What the user reads instead of blocked content."""
        policy = next(iter(self.guards.values()))[0].policy
        return self.blocked_message or (decision.message if decision is not None else policy.violation_message)


@dataclass
class StateUpdate:
    """What a hook changes in the state."""

    guard: AgentGuard
    messages: list[Any] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    pending: dict[str, Any] = field(default_factory=dict)
    ends: bool = False
    replacements: dict[int, Any] = field(default_factory=dict)
    """By the identity of a message, what takes its place."""

    def as_dict(self, *, jump: bool = True) -> dict[str, Any] | None:
        """The update; `None` where nothing changes."""
        found = {"messages": self.messages, "pld_checked": self.checked, "pld_pending": self.pending}
        update: dict[str, Any] = {key: value for key, value in found.items() if value}
        return {**update, "jump_to": "end"} if self.ends and jump else update or None

    def replace(self, message: BaseMessage, other: BaseMessage) -> None:
        """Replace a message, also in the state if it is there."""
        if other is message:
            return
        self.replacements[id(message)] = other
        if message.id is not None:
            self.messages.append(other)

    def allow(self, stage: Stage, message: BaseMessage, decision: Decision | None = None) -> BaseMessage:
        """Let a message pass; gives it as it goes on. Without a decision a person let it pass."""
        passed = message
        if decision is not None and decision.strips_invisible and stage != "output":
            passed = strip_invisible(passed)
        if decision is not None and decision.action == "flag":
            passed = self.guard.annotate(passed, decision)
        if stage == "tool_result":  # signed itself: returning a tool's result must not take an update of the state
            signed: BaseMessage = self.guard.sign(passed)
            return signed
        self.checked.append(self.guard.signature_of(stage, passed))
        return passed

    def withhold(self, stage: Stage, message: BaseMessage, decision: Decision | None, words: str | None = None) -> None:
        """Put a placeholder in the place of a message; a blocked answer ends the run."""
        if stage == "output":
            answer = self.guard.refusal(message, decision, words)
            self.checked.append(self.guard.signature_of("output", answer))
            self.end(answer)
            return
        said = (stage == "tool_result" and words) or WITHHELD
        self.replace(message, self.guard.placeholder(message, said, decision))

    def end(self, answer: AIMessage) -> None:
        """End the run with an answer."""
        self.messages.append(answer)
        self.ends = True


def has_new(found: Sequence[BaseMessage], messages: Sequence[BaseMessage]) -> bool:
    """Whether one of them is of this turn. An older one, sent again as history, only gives way."""
    last = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)
    new = {message.id for message in messages[last + 1 :]}
    return any(message.id in new for message in found)


def checked_in(state: Any) -> set[str]:
    """The signatures in a state; a client may have put anything there."""
    found = _get(state, "pld_checked")
    return {item for item in found if isinstance(item, str)} if isinstance(found, list) else set()


def questions_in(state: Any) -> dict[str, dict[str, Any]]:
    """The questions in a state, the same way."""
    found = _get(state, "pld_pending")
    return {key: item for key, item in found.items() if isinstance(item, dict)} if isinstance(found, dict) else {}


def _get(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, dict) else getattr(state, key, None)


_PLACEHOLDER = "placeholder"


def _content_parts(message: BaseMessage, *, calls: bool) -> list[Any]:
    """All that is read of a message."""
    names = ["content", "additional_kwargs", "name", "role", "tool_call_id", "invalid_tool_calls"]
    names += ["tool_calls"] if calls else []
    return [message.type, *(getattr(message, name, None) for name in names)]


def _with_signature(message: BaseMessage, key: str, signer: str) -> Any:
    """A copy of a message with a signature on all of its content."""
    signatures = message.response_metadata.get(_SIGNATURES)
    signature = signature_of(signer, _content_parts(message, calls=True))
    signatures = {**(signatures if isinstance(signatures, dict) else {}), key: signature}
    return message.model_copy(update={"response_metadata": {**message.response_metadata, _SIGNATURES: signatures}})


def _has_signature(message: BaseMessage, key: str, signer: str) -> bool:
    signatures = message.response_metadata.get(_SIGNATURES)
    found = signatures.get(key) if isinstance(signatures, dict) else None
    own = signature_of(signer, _content_parts(message, calls=True))
    return isinstance(found, str) and hmac.compare_digest(found.encode(), own.encode())


_SIGNATURES = "pld_signatures"


def running_config() -> RunnableConfig | None:
    """The config of the graph that runs; `None` outside of one."""
    try:
        return get_config()
    except RuntimeError:  # called outside a graph
        return None
