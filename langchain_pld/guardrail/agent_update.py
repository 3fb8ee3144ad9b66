"""What a guard in an agent changes in the agent's state: messages that pass, are withheld, or end the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config

from langchain_pld.guardrail.content import Content, Stage, call_text, read_message, strip_invisible
from langchain_pld.guardrail.decision import Decision
from langchain_pld.guardrail.guard import Guard
from langchain_pld.guardrail.message_edits import NOTES, WAITING, WITHHELD, annotate, placeholder
from langchain_pld.guardrail.signatures import is_signed, sign, signature_of

__all__ = ["AgentGuard", "StateUpdate", "has_new", "running_config", "stands_at", "state_get"]


@dataclass(frozen=True)
class AgentGuard:
    """The guards of one middleware, and what it says for them."""

    name: str
    """Name of the middleware; in its notes and signatures."""
    guards: Mapping[Stage, Sequence[Guard]]
    """The guards by the stage at which they check."""
    blocked_message: str | None
    """What the user reads instead of blocked content; the policy's sentence when absent."""

    def annotate(self, message: BaseMessage, decision: Decision | None) -> Any:
        """The message with a note of what was decided; without a decision a person refused it."""
        return annotate(message, decision, self.name)

    def signature_of(self, stage: Stage, message: BaseMessage) -> str:
        """What marks a message as checked, in the state."""
        return signature_of(self.name, [stage, message.id, message.content, message.additional_kwargs])

    def signature_of_call(self, call: ToolCall) -> str:
        """The same of a tool call."""
        return signature_of(self.name, ["tool_call", call["id"], call_text(call)])

    def unchecked(self, stage: Stage, messages: Sequence[BaseMessage], state: Any) -> list[BaseMessage]:
        """The messages of a stage that this guard has not let pass as they are."""
        checked = set(state_get(state, "pld_checked") or ())
        standing = [message for message in messages if stands_at(message, stage)]
        if stage == "output":  # the last answer alone: those before it were there when the turn began
            standing = standing[-1:]
        return [
            message
            for message in standing
            if read_message(message, calls=False) != Content("")
            and message.content not in (WITHHELD, WAITING)
            and self.signature_of(stage, message) not in checked
            and not is_signed(message, self.name)
        ]

    def has_blocked(self, message: BaseMessage | None) -> bool:
        """Whether a message stands in the place of an answer that this guard blocked."""
        note = message.response_metadata.get(NOTES) if isinstance(message, AIMessage) else None
        return isinstance(note, dict) and note.get(self.name, {}).get("action") == "block"

    def refusal(self, message: BaseMessage, decision: Decision | None, words: str | None = None) -> AIMessage:
        """What takes the place of a blocked answer."""
        answer: AIMessage = self.annotate(placeholder(message, words or self.words(decision)), decision)
        return answer

    def refusal_of_call(self, call: ToolCall, decision: Decision | None, words: str | None = None) -> ToolMessage:
        """What takes the place of the result of a blocked call."""
        reason = decision.reason if decision is not None else "a person refused it"
        words = words or (
            f"The tool {call['name']} was not run: a guardrail does not allow this call ({reason}). Do not repeat it."
        )
        message = ToolMessage(words, name=call["name"], tool_call_id=call["id"] or "", status="error")
        signed: ToolMessage = sign(self.annotate(message, decision), self.name)
        return signed

    def words(self, decision: Decision | None) -> str:
        """What the user reads in place of what was blocked."""
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
        """Put a message in the place of another; in the state too, where that one stands there."""
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
            signed: BaseMessage = sign(passed, self.guard.name)
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
        kept = self.guard.annotate(placeholder(message, (stage == "tool_result" and words) or WITHHELD), decision)
        self.replace(message, sign(kept, self.guard.name) if stage == "tool_result" else kept)

    def end(self, answer: AIMessage) -> None:
        """End the run with an answer."""
        self.messages.append(answer)
        self.ends = True


def has_new(found: Sequence[BaseMessage], messages: Sequence[BaseMessage]) -> bool:
    """Whether one of them is of this turn. An older one, sent again as history, only gives way."""
    last = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)
    new = {message.id for message in messages[last + 1 :]}
    return any(message.id in new for message in found)


def stands_at(message: BaseMessage, stage: Stage) -> bool:
    """Whether a message is one that a stage checks: input, output or tool_result."""
    if stage != "input":
        return isinstance(message, AIMessage if stage == "output" else ToolMessage)
    role = message.role if isinstance(message, ChatMessage) else message.type
    return role in {"human", "user"}


def state_get(state: Any, key: str) -> Any:
    """A value of a state that may be a mapping or an object; `None` where it has none."""
    return state.get(key) if isinstance(state, dict) else getattr(state, key, None)


def running_config() -> RunnableConfig | None:
    """The config of the graph that runs; `None` outside of one."""
    try:
        return get_config()
    except RuntimeError:  # called outside a graph
        return None
