"""Messages in the place of others, and the note that guards leave on a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, ToolMessage
from langgraph.types import Command

from langchain_pld.guardrail.decision import Decision

__all__ = [
    "NOTES",
    "WAITING",
    "WITHHELD",
    "BlockedMessage",
    "annotate",
    "placeholder",
    "replace_results",
    "with_arguments",
]

BlockedMessage: TypeAlias = str | Callable[[Decision], Any]
"""What is said instead of blocked content, or a function that makes it of the decision."""

NOTES = "pld_guard"
"""Key in a message's `response_metadata` under which guards note what they decided about it."""
WITHHELD = "[withheld by a guardrail]"
"""What stands in the history in place of a blocked message."""
WAITING = "[waiting for a person's decision]"
"""What stands in the history while a person is asked."""


def annotate(message: Any, decision: Decision | None, guard: str | None = None) -> Any:
    """A copy of a message with a note of what was decided about it; the note holds none of the text.

    Args:
        message: The message.
        decision: What the guards decided; a person's refusal when absent.
        guard: Under which name it is noted; the names of the guards that checked when absent.
    """
    note: dict[str, Any] = {"action": "block", "reason": "a person refused it"}
    if decision is not None:
        # Where a message is marked, a question that could not be put has become a block.
        note = {
            "action": decision.action if decision.allowed else "block",
            "label": decision.label,
            "reason": decision.reason,
        }
        guard = guard or "+".join(decision.guards)
    notes = {**(message.response_metadata.get(NOTES) or {}), guard or "person": note}
    return message.model_copy(update={"response_metadata": {**message.response_metadata, NOTES: notes}})


def placeholder(message: BaseMessage, words: str) -> Any:
    """A message in the place of another: nothing of what that one said or wanted to do is kept."""
    common: dict[str, Any] = {"content": words, "id": message.id, "name": message.name}
    if isinstance(message, AIMessage):
        return AIMessage(**common, usage_metadata=message.usage_metadata)
    if isinstance(message, ToolMessage):
        return ToolMessage(**common, tool_call_id=message.tool_call_id, status="error")
    if isinstance(message, ChatMessage):
        return ChatMessage(**common, role=message.role)
    return HumanMessage(**common)


def with_arguments(message: AIMessage, arguments: dict[str | None, dict[str, Any]]) -> AIMessage:
    """The message with other arguments in some of its calls, wherever providers keep a copy of them."""
    if not arguments:
        return message
    calls = [{**call, "args": arguments.get(call["id"], call["args"])} for call in message.tool_calls]
    content = message.content
    if isinstance(content, list):
        content = [_with_block_arguments(block, arguments) for block in content]
    kept = {
        key: value for key, value in message.additional_kwargs.items() if key not in {"tool_calls", "function_call"}
    }
    return message.model_copy(update={"tool_calls": calls, "content": content, "additional_kwargs": kept})


def _with_block_arguments(block: Any, arguments: dict[str | None, dict[str, Any]]) -> Any:
    call = (
        next((block[key] for key in ("id", "call_id") if block.get(key) in arguments), None)
        if isinstance(block, dict)
        else None
    )
    if call is None:
        return block
    args = arguments[call]
    new = {"input": args, "args": args, "arguments": json.dumps(args)}
    return {key: new.get(key, value) for key, value in block.items() if key != "partial_json"}


def replace_results(result: Any, instead: dict[int, BaseMessage], pending: dict[str, Any]) -> Any:
    """A tool's result with some messages exchanged, and with the questions to a person in the state."""
    if isinstance(result, list):
        return [replace_results(part, instead, pending) for part in result]
    if isinstance(result, Command):
        update = result.update or {}
        update = dict(update) if isinstance(update, dict) else {"messages": update}
        found = update.get("messages", [])
        found = found if isinstance(found, list) else [found]
        changed = {**update, "messages": [instead.get(id(message), message) for message in found]}
        return replace(result, update={**changed, **({"pld_pending": pending} if pending else {})})
    message = instead.get(id(result), result)
    return Command(update={"messages": [message], "pld_pending": pending}) if pending else message
