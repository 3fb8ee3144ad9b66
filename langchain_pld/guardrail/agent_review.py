"""Human review in an agent: content waiting for a person, and what happens after the answer.

Check and question are in separate nodes, because a node runs again after the answer and a second check might decide
differently. The signed question is in the state; the content is kept outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage, message_to_dict, messages_from_dict

from langchain_pld.guardrail.agent_update import (
    AgentGuard,
    StateUpdate,
    has_new,
    questions_in,
    running_config,
)
from langchain_pld.guardrail.content import Content, Stage, call_text, is_from_user, read_message
from langchain_pld.guardrail.decision import Decision, Finding
from langchain_pld.guardrail.human_review import ReviewAnswer, ReviewRequest
from langchain_pld.guardrail.message_edits import WAITING, WITHHELD, placeholder, replace_calls
from langchain_pld.guardrail.stores import delete_pending, load_pending, save_pending
from langchain_pld.steps import Steps

__all__ = ["call_question", "hold", "pending_questions", "review", "withdraw"]


def hold(
    guard: AgentGuard, stage: Stage, decision: Decision, about: BaseMessage, messages: Sequence[BaseMessage]
) -> Steps[dict[str, Any]]:
    """Keep messages outside the state while a person is asked about one of them; returns the question."""
    content = {"messages": [message_to_dict(message) for message in messages]}
    key = guard.signature(content)
    yield from save_pending(key, content)
    return _question(guard, stage, decision, about.id, content=key)


def call_question(guard: AgentGuard, decision: Decision, call: ToolCall) -> dict[str, Any]:
    """The question about a tool call, which waits in the state: its arguments are in the history anyway."""
    return _question(guard, "tool_call", decision, call["id"], call=dict(call))


def pending_questions(guard: AgentGuard, state: Any) -> dict[str, Any]:
    """The open questions of a guard, without those that another guard has removed."""
    messages = state["messages"]
    open_calls = {call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    open_calls -= {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    return {
        key: item
        for key, item in questions_in(state).items()
        if item.get("guard") == guard.name
        and item.get("signature") == guard.signature({k: v for k, v in item.items() if k != "signature"})
        and (item["stage"] != "tool_call" or item["about"] in open_calls)
    }


def withdraw(guard: AgentGuard, state: Any, update: StateUpdate) -> Steps[None]:
    """Take back the questions of an earlier turn, which the new one left unanswered."""
    for key, item in questions_in(state).items():
        if item.get("guard") != guard.name:
            continue
        update.pending[key] = None
        if isinstance(item.get("content"), str):
            yield from delete_pending(item["content"])
        for message in state["messages"]:
            if message.id == item.get("about") and message.content == WAITING:
                update.messages.append(guard.placeholder(message, WITHHELD))
            elif _has_call(message, item.get("about")):
                words = str(message.text)
                update.messages.append(placeholder(message, words) if words else guard.placeholder(message, WITHHELD))


def review(guard: AgentGuard, pending: dict[str, Any], state: Any, update: StateUpdate) -> Steps[None]:
    """Ask a person about everything that waits in one request, and apply the answers."""
    update.pending |= dict.fromkeys(pending)
    contents: dict[str, list[BaseMessage]] = {}
    requests: dict[str, ReviewRequest] = {}
    for key, item in pending.items():
        if item["stage"] == "tool_call":
            text, arguments = call_text(item["call"]), item["call"]["args"]
        else:
            content = yield from load_pending(item["content"])
            if content is None or guard.signature(content) != item["content"]:  # lost, or another one
                lost = [message for message in state["messages"] if message.id == item["about"]]
                if lost:
                    update.withhold(item["stage"], lost[0], None)
                continue
            contents[key] = messages_from_dict(content["messages"])
            text, arguments = Content.concat([read_message(m) for m in contents[key]]).text, None
        findings = [Finding.model_validate(finding) for finding in item["findings"]]
        requests[key] = ReviewRequest(guard.guards[item["stage"]], findings, text, arguments=arguments)
    if not requests:
        return
    answers = dict(zip(requests, ReviewRequest.ask(list(requests.values())), strict=True))
    config = running_config()
    for key, request in requests.items():
        yield from request.record(answers[key], config)
    refused: list[tuple[BaseMessage, str | None]] = []
    for key in contents:
        yield from delete_pending(pending[key]["content"])
    for key in requests:
        stage, person = pending[key]["stage"], _Person.of(answers[key])
        if stage == "tool_call":
            _answer_call(guard, pending[key]["call"], person, state, update)
            continue
        messages = contents[key]
        message: BaseMessage = next((m for m in reversed(messages) if isinstance(m, AIMessage)), messages[-1])
        if person.allows:
            own = message.model_copy(update={"content": person.words}) if person.words else message
            passed = update.allow(stage, own)
            update.messages += [passed if found is message else found for found in messages]
        else:
            update.withhold(stage, message, None, person.words)
            refused.append((message, person.words))
    if has_new([message for message, _ in refused if is_from_user(message)], state["messages"]):
        words = next((said for _, said in refused if said), None)
        update.end(guard.answer(None, words))


class _Person(NamedTuple):
    """A person's decisions about one content."""

    allows: bool
    words: str | None
    """What stands in its place."""
    arguments: dict[str, Any] | None
    """Those that a tool is to be called with."""

    @classmethod
    def of(cls, answers: Sequence[ReviewAnswer]) -> _Person:
        """Several guards asked: all must let it pass, and the first one's words count."""
        return cls(
            all(answer.allowed for answer in answers),
            next((answer.text for answer in answers if answer.text), None),
            next((answer.arguments for answer in answers if answer.arguments is not None), None),
        )


def _answer_call(guard: AgentGuard, call: ToolCall, person: _Person, state: Any, update: StateUpdate) -> None:
    arguments = person.arguments if person.allows else {}
    if arguments is not None:
        author = next(m for m in reversed([*state["messages"], *update.messages]) if _has_call(m, call["id"]))
        changed = replace_calls(author, {call["id"]: ToolCall(**{**call, "args": arguments})})
        update.messages = [*(m for m in update.messages if m.id != changed.id), changed]
    if person.allows:
        update.checked.append(guard.signature_of_call({**call, "args": arguments} if arguments is not None else call))
    else:
        update.messages.append(guard.refusal_of_call(call, None, person.words))


def _question(guard: AgentGuard, stage: Stage, decision: Decision, about: str | None, **more: Any) -> dict[str, Any]:
    quotes: Any = {"verdicts": {"__all__": {"evidence": True}}}
    findings = [finding.model_dump(mode="json", exclude=quotes) for finding in decision.findings]
    item = {"guard": guard.name, "stage": stage, "about": about, "findings": findings, **more}
    return {f"{guard.name} {stage} {about}": {**item, "signature": guard.signature(item)}}


def _has_call(message: BaseMessage, call_id: str | None) -> bool:
    return isinstance(message, AIMessage) and any(call["id"] == call_id for call in message.tool_calls)
