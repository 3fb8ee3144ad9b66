"""Replacing messages, and the notes that guards leave on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langgraph.types import Command

from langchain_pld.guardrail.content import is_technical
from langchain_pld.guardrail.decision import Decision

__all__ = [
    "NOTES",
    "WAITING",
    "WITHHELD",
    "BlockedMessage",
    "annotate",
    "placeholder",
    "replace_calls",
    "replace_results",
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
    common: dict[str, Any] = {"content": words, "id": message.id}
    if message.name and is_technical(message.name):
        common["name"] = message.name
    if isinstance(message, AIMessage):
        return AIMessage(**common, usage_metadata=message.usage_metadata)
    if isinstance(message, ToolMessage):
        return ToolMessage(**common, tool_call_id=message.tool_call_id, status="error")
    return (SystemMessage if isinstance(message, SystemMessage) else HumanMessage)(**common)


def replace_calls(message: AIMessage, calls: Mapping[str | None, ToolCall]) -> AIMessage:
    """The message with some of its calls replaced, wherever providers keep a copy of them.

    Args:
        message: The message.
        calls: The new calls by the id of the old ones.
    """
    if not calls:
        return message
    content = message.content
    if isinstance(content, list):
        content = [_replace_call(block, calls) for block in content]
    kwargs = {
        key: value for key, value in message.additional_kwargs.items() if key not in {"tool_calls", "function_call"}
    }
    tool_calls = [calls.get(call["id"], call) for call in message.tool_calls]
    return message.model_copy(update={"tool_calls": tool_calls, "content": content, "additional_kwargs": kwargs})


def _replace_call(block: Any, calls: Mapping[str | None, ToolCall]) -> Any:
    ids = [block.get(key) for key in ("id", "call_id")] if isinstance(block, dict) else []
    call = next((calls[found] for found in ids if isinstance(found, str) and found in calls), None)
    if call is None:
        return block
    new = {"name": call["name"], "input": call["args"], "args": call["args"], "arguments": json.dumps(call["args"])}
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
