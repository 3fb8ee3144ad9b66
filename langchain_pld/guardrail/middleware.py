"""Guards for `create_agent`: what users say, what the model answers, which tools it calls and what these return."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, NotRequired, Self, cast
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context, var_child_runnable_config
from langgraph.config import get_config, get_store
from langgraph.store.base import BaseStore
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.guardrail.check import Decision, Finding, Guard, Stage, acheck_all, check_all, quiet_config
from langchain_pld.guardrail.people import Answer, Inquiry, Kept
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.guardrail.stream import MARK, call_text, checkable, marked, placed, visible_text
from langchain_pld.student.classifier import PLDClassifier

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelResponse, hook_config
    from langchain.agents.middleware.types import ExtendedModelResponse, PrivateStateAttr, ToolCallRequest
except ImportError as error:
    raise MissingExtraError.of("langchain", "agents") from error

__all__ = ["PLDGuardrailMiddleware"]

WITHHELD = "[withheld by a guardrail]"
"""What stands in the history in place of a blocked message."""
WAITING = "[waiting for a person's decision]"
"""What stands in the history while a person is asked."""


def _union(old: list[str], new: list[str]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))


def _settled(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **new}.items() if value is not None}


_Answered = tuple[dict[str, Any] | None, list[Kept]]
"""An update of the state, and what the Store is to keep."""


class _GuardState(AgentState[Any]):
    pld_checked: NotRequired[Annotated[list[str], PrivateStateAttr, _union]]
    """Digests of what a guard let pass, so that nothing is checked twice and nothing changed passes unchecked."""
    pld_pending: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, _settled]]
    """What a person is still to decide, by guard and message or call. A check and its question lie in two nodes:
    a node runs again when the answer comes, and a second check might decide otherwise."""


class PLDGuardrailMiddleware(AgentMiddleware[_GuardState, Any, Any]):
    """A guard in an agent made by LangChain's `create_agent`.

    Several fit in one agent, each with its own name. By stage:

    - `input`: each user message is checked once, before the model sees it. When a new one is blocked the run ends with
      a neutral answer; a placeholder stands in the history.
    - `output`: the model's answer is checked before anything else sees it, hence also before any stream shows it; it
      then arrives whole. A blocked answer is replaced, its tool calls with it. An answer without text is no violation.
    - `tool_call`: name and arguments are checked. A blocked tool is not run, the model is told so, and the arguments do
      not stay in the history.
    - `tool_result`: what a tool returned is checked before the model sees it.

    Where the policy asks a person, the run is interrupted with the same request as that of `create_guardrail_graph`, in
    the shape of LangChain's `HumanInTheLoopMiddleware` (it needs a checkpointer): `approve`, `edit`, `reject` and
    `respond`, with a label's name or with words to say instead. The answer is kept as a labelled example when the agent
    runs with a Store (see `kept_examples`). A check that fails decides as the policy's `on_error` says, and blocks by
    default.

    Args:
        guards: One guard or several, of which the strictest wins.
        stage: What is checked.
        name: A label to tell guards of one stage apart; the names of the tasks when absent.
        reply: What the user reads when an input or an answer is blocked; the policy's sentence when absent.

    Raises:
        InputError: The stage is unknown, or no guard was given.
    """

    state_schema = _GuardState
    stage: ClassVar[Stage]

    # create_agent draws a node for each hook that a class overrides, so each stage is a class with its own hooks only.
    def __new__(cls, *args: Any, stage: str = "input", **options: Any) -> Self:  # noqa: ARG004
        """Pick the class of the stage."""
        if cls is not PLDGuardrailMiddleware:
            return super().__new__(cls)
        if stage not in _STAGES:
            msg = f"unknown stage {stage!r}; one of {', '.join(_STAGES)}"
            raise InputError(msg)
        return cast("Self", super().__new__(_STAGES[stage]))

    def __init__(
        self,
        guards: Guard | Sequence[Guard],
        *,
        stage: Stage = "input",  # noqa: ARG002 - chosen in __new__
        name: str | None = None,
        reply: str | None = None,
    ) -> None:
        super().__init__()
        self.guards = placed(guards, self.stage)
        self.reply = reply
        label = name or "+".join(guard.name for guard in self.guards)
        # LangGraph keeps the colon and the bar in node names for itself.
        self._name = re.sub(r"[|:]", "-", f"{PLDGuardrailMiddleware.__name__}[{self.stage} {label}]")

    @classmethod
    def from_artifact(
        cls,
        path: str | Path,
        policy: GuardrailPolicy,
        *,
        student: BaseChatModel | str | None = None,
        stage: Stage = "input",
        name: str | None = None,
        reply: str | None = None,
    ) -> Self:
        """A guard from an artifact and a policy.

        Args:
            path: The `*.pld.json` file.
            policy: What follows from a verdict.
            student: A chat model, or `provider:name`; the one of the artifact when absent.
            stage: What is checked.
            name: A label to tell guards of one stage apart.
            reply: What the user reads when an input or an answer is blocked.

        Raises:
            ArtifactError: The file cannot be used.
            InputError: The policy blocks a label that the task does not have.
            ModelSetupError: The student cannot be had.
        """
        guard = Guard(PLDClassifier.from_artifact(path, student=student), policy)
        return cls(guard, stage=stage, name=name, reply=reply)

    @property
    def name(self) -> str:
        """Stage and label; unique in an agent."""
        return self._name

    def _decide(self, values: Sequence[Any]) -> list[Decision]:
        config = _config()
        return [check_all(self.guards, value, config).enforce() for value in values]

    async def _adecide(self, values: Sequence[Any]) -> list[Decision]:
        config = _config()
        decisions = await asyncio.gather(*(acheck_all(self.guards, value, config) for value in values))
        return [decision.enforce() for decision in decisions]

    def _digest(self, *parts: object) -> str:
        return hashlib.sha256(json.dumps([self.name, *parts], default=str).encode()).hexdigest()[:32]

    def _pending(self, state: Any) -> dict[str, Any]:
        """What this guard waits for a person to decide, by key; without what another guard has taken away since."""
        there = {message.id for message in state["messages"]}
        there |= {
            call["id"] for message in state["messages"] if isinstance(message, AIMessage) for call in message.tool_calls
        }
        return {
            key: item
            for key, item in (state.get("pld_pending") or {}).items()
            if item["guard"] == self.name and item["about"] in there
        }

    def _question(self, decision: Decision, about: str | None, text: str, **more: Any) -> dict[str, Any]:
        quoting = {"verdicts": {"__all__": {"evidence": True}}}
        findings = [finding.model_dump(mode="json", exclude=quoting) for finding in decision.findings]
        return {
            f"{self.name} {about}": {"guard": self.name, "about": about, "text": text, "findings": findings, **more}
        }

    def _words(self, decision: Decision | None) -> str:
        """What the user reads in place of what was blocked."""
        return self.reply or (decision.message if decision is not None else self.guards[0].policy.violation_message)

    def _ask(self, pending: dict[str, Any]) -> tuple[list[_Settled], list[Kept]]:
        """Interrupt with one request for all that waits; gives what becomes of each, and what the Store is to keep.

        Raises:
            InputError: The answer does not fit; the run can be resumed again with one that does.
        """
        inquiries = [
            Inquiry(
                self.guards,
                [Finding.model_validate(finding) for finding in item["findings"]],
                item["text"],
                arguments=item["call"]["args"] if "call" in item else None,
            )
            for item in pending.values()
        ]
        asked = [inquiry.question() for inquiry in inquiries]
        keys = ("action_requests", "review_configs")
        response = interrupt({key: [entry for question in asked for entry in question[key]] for key in keys})
        decisions = response.get("decisions") if isinstance(response, dict) else None
        count = sum(len(inquiry.findings) for inquiry in inquiries)
        if not isinstance(decisions, list) or len(decisions) != count:
            msg = f'{self.name} asked about {count} action(s); resume with {{"decisions": [...]}}, one for each'
            raise InputError(msg)
        rest = iter(decisions)
        answers = [inquiry.read({"decisions": list(islice(rest, len(inquiry.findings)))}) for inquiry in inquiries]
        if not all(answer.readable for found in answers for answer in found):
            msg = (
                f"{self.name} cannot use these decisions: approve, reject, respond with a message, or edit with a "
                f"changed text, label or arguments under edited_action.args; got {[_type_of(d) for d in decisions]}"
            )
            raise InputError(msg)
        config = _config()
        kept = [
            entry for inquiry, found in zip(inquiries, answers, strict=True) for entry in inquiry.kept(found, config)
        ]
        return [_Settled.of(found) for found in answers], kept


class _Settled(NamedTuple):
    """What people decided about one content."""

    allowed: bool
    words: str | None
    """What stands in its place."""
    arguments: dict[str, Any] | None
    """Those that a tool is to be called with."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> _Settled:
        """Several guards asked: all must let it pass, and the first one's words count."""
        return cls(
            all(answer.allowed for answer in answers),
            next((answer.text for answer in answers if answer.text), None),
            next((answer.arguments for answer in answers if answer.arguments is not None), None),
        )


class _InputGuard(PLDGuardrailMiddleware):
    stage = "input"

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        fresh = self._fresh(state)
        return self._outcome(state, fresh, self._decide(fresh))

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        fresh = self._fresh(state)
        return self._outcome(state, fresh, await self._adecide(fresh))

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        if pending := self._pending(state):
            return _stored(self._answered(state, pending))
        fresh = self._fresh(state)
        return self._outcome(state, fresh, self._decide(fresh), ask=False)

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        if pending := self._pending(state):
            return await _astored(self._answered(state, pending))
        fresh = self._fresh(state)
        decisions = await self._adecide(fresh)
        return self._outcome(state, fresh, decisions, ask=False)

    def _fresh(self, state: _GuardState) -> list[AnyMessage]:
        checked = set(state.get("pld_checked") or ())
        return [
            message
            for message in state["messages"]
            if _from_user(message) and message.content and self._mark_of(message) not in checked
        ]

    def _mark_of(self, message: BaseMessage) -> str:
        return self._digest(message.id, message.content)

    def _outcome(
        self, state: _GuardState, fresh: Sequence[AnyMessage], decisions: Sequence[Decision], *, ask: bool = True
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

    def _answered(self, state: _GuardState, pending: dict[str, Any]) -> _Answered:
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
        state: _GuardState,
        passed: Sequence[BaseMessage],
        refused: Sequence[tuple[AnyMessage, Decision | None]],
        pending: dict[str, Any],
        *,
        words: str | None = None,
    ) -> dict[str, Any] | None:
        held = [marked(_emptied(message, WITHHELD), decision, self.name) for message, decision in refused]
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

    def _ends(self, state: _GuardState, refused: Sequence[tuple[AnyMessage, Decision | None]]) -> bool:
        """Whether a refused message is of this turn. An older one, sent again as history, only gives way."""
        messages = state["messages"]
        last = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)
        new = {message.id for message in messages[last + 1 :]}
        return any(message.id in new for message, _ in refused)


class _OutputGuard(PLDGuardrailMiddleware):
    stage = "output"

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        # The model's tokens are kept out of every stream: what is shown is what the node returns, after the check.
        with set_config_context(quiet_config(_config())) as context:
            response = context.run(handler, request)
        return self._outcome(response, self._decide([_answer(response)])[0])

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        token = var_child_runnable_config.set(quiet_config(_config()))
        try:
            response = await handler(request)
        finally:
            var_child_runnable_config.reset(token)
        return self._outcome(response, (await self._adecide([_answer(response)]))[0])

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        if pending := self._pending(state):
            return _stored(self._answered(pending))
        return self._ended(state)

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        if pending := self._pending(state):
            return await _astored(self._answered(pending))
        return self._ended(state)

    def _ended(self, state: _GuardState) -> dict[str, Any] | None:
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
                model_response=ModelResponse(result=[_emptied(last, WAITING)]),
                command=Command(update={"pld_pending": question}),
            )
        return ModelResponse(result=[self._refusal(last, decision)])

    def _refusal(self, message: AIMessage, decision: Decision | None, words: str | None = None) -> Any:
        return marked(_emptied(message, words or self._words(decision)), decision, self.name)

    def _answered(self, pending: dict[str, Any]) -> _Answered:
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


class _ToolCallGuard(PLDGuardrailMiddleware):
    stage = "tool_call"

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        response = handler(request)
        calls = _open_calls(response)
        return self._outcome(response, calls, self._decide([call_text(call) for call in calls]))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        response = await handler(request)
        calls = _open_calls(response)
        return self._outcome(response, calls, await self._adecide([call_text(call) for call in calls]))

    def after_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        pending = self._pending(state)
        return _stored(self._answered(state, pending)) if pending else None

    async def aafter_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        pending = self._pending(state)
        return await _astored(self._answered(state, pending)) if pending else None

    # The last gate: what was changed after the check, by a person or another middleware, does not run unchecked.
    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        if self._passed(request):
            return handler(request)
        decision = self._decide([call_text(request.tool_call)])[0]
        return handler(request) if decision.allowed else self._refusal(request.tool_call, decision)

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
            _with_arguments(m, {call_id: {} for call_id in refused}) if isinstance(m, AIMessage) else m
            for m in response.result
        ]
        if flag is not None:
            result = [marked(m, flag, self.name) if isinstance(m, AIMessage) else m for m in result]
        return ExtendedModelResponse(
            model_response=replace(response, result=[*result, *refused.values()]),
            command=Command(update={"pld_checked": checked, "pld_pending": pending}),
        )

    def _answered(self, state: _GuardState, pending: dict[str, Any]) -> _Answered:
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
            _with_arguments(message, changed)
            for message in state["messages"]
            if isinstance(message, AIMessage) and any(call["id"] in changed for call in message.tool_calls)
        ]
        update = {
            "messages": [*authors, *refused.values()],
            "pld_checked": checked,
            "pld_pending": dict.fromkeys(pending),
        }
        return update, kept


class _ToolResultGuard(PLDGuardrailMiddleware):
    stage = "tool_result"

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        result = handler(request)
        messages = self._messages(result)
        return self._outcome(result, messages, self._decide(messages))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        result = await handler(request)
        messages = self._messages(result)
        return self._outcome(result, messages, await self._adecide(messages))

    def before_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        pending = self._pending(state)
        return _stored(self._answered(pending)) if pending else None

    async def abefore_model(self, state: _GuardState, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002
        pending = self._pending(state)
        return await _astored(self._answered(pending)) if pending else None

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
                instead[id(message)] = _emptied(message, WAITING)
            elif not decision.allowed:
                instead[id(message)] = marked(_emptied(message, WITHHELD), decision, self.name)
            elif decision.action == "flag":
                instead[id(message)] = marked(message, decision, self.name)
        return _exchanged(result, instead, pending)

    def _answered(self, pending: dict[str, Any]) -> _Answered:
        settled, kept = self._ask(pending)
        messages: list[BaseMessage] = []
        for item, found in zip(pending.values(), settled, strict=True):
            message = messages_from_dict([item["kept"]])[0]
            if not found.allowed:
                message = marked(_emptied(message, found.words or WITHHELD), None, self.name)
            elif found.words:
                message = message.model_copy(update={"content": found.words})
            messages.append(message)
        return {"messages": messages, "pld_pending": dict.fromkeys(pending)}, kept


_STAGES: dict[str, type[PLDGuardrailMiddleware]] = {
    guard.stage: guard for guard in (_InputGuard, _OutputGuard, _ToolCallGuard, _ToolResultGuard)
}


def _stored(answered: _Answered) -> dict[str, Any] | None:
    """Keep what people answered, where there is a Store; gives the update."""
    update, kept = answered
    if store := _store():
        for entry in kept:
            store.put(*entry)
    return update


async def _astored(answered: _Answered) -> dict[str, Any] | None:
    update, kept = answered
    if store := _store():
        for entry in kept:
            await store.aput(*entry)
    return update


def _store() -> BaseStore | None:
    try:
        return cast("BaseStore | None", get_store())
    except RuntimeError:  # called outside a graph
        return None


def _type_of(decision: Any) -> Any:
    return decision.get("type") if isinstance(decision, dict) else type(decision).__name__


def _config() -> RunnableConfig | None:
    try:
        return get_config()
    except RuntimeError:  # called outside a graph
        return None


def _from_user(message: BaseMessage) -> bool:
    role = message.role if isinstance(message, ChatMessage) else message.type
    return role in {"human", "user"}


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


def _emptied(message: BaseMessage, words: str) -> Any:
    """A message in the place of another: nothing of what that one said or wanted to do is kept."""
    common: dict[str, Any] = {"content": words, "id": message.id, "name": message.name}
    if isinstance(message, AIMessage):
        return AIMessage(**common, usage_metadata=message.usage_metadata)
    if isinstance(message, ToolMessage):
        return ToolMessage(**common, tool_call_id=message.tool_call_id, status="error")
    if isinstance(message, ChatMessage):
        return ChatMessage(**common, role=message.role)
    return HumanMessage(**common)


def _with_arguments(message: AIMessage, arguments: dict[str | None, dict[str, Any]]) -> AIMessage:
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


def _exchanged(result: Any, instead: dict[int, BaseMessage], pending: dict[str, Any]) -> Any:
    """A tool's result with some messages exchanged, and with the questions to a person in the state."""
    if isinstance(result, list):
        return [_exchanged(part, instead, pending) for part in result]
    if isinstance(result, Command):
        update = result.update or {}
        update = dict(update) if isinstance(update, dict) else {"messages": update}
        found = update.get("messages", [])
        found = found if isinstance(found, list) else [found]
        changed = {**update, "messages": [instead.get(id(message), message) for message in found]}
        return replace(result, update={**changed, **({"pld_pending": pending} if pending else {})})
    message = instead.get(id(result), result)
    return Command(update={"messages": [message], "pld_pending": pending}) if pending else message
