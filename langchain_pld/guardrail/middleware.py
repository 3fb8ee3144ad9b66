"""The guard of an agent made by `create_agent`: on what users say, what the model answers and which tools it calls."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, Self
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    ToolCall,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.tools import BaseTool
from langgraph.types import Command
from typing_extensions import override

from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.guardrail.agent_steps import (
    Changes,
    Check,
    Fetch,
    Handle,
    Hold,
    Keep,
    Steps,
    arun_steps,
    run_steps,
    running_config,
)
from langchain_pld.guardrail.check import Decision, Finding, Guard, placed
from langchain_pld.guardrail.checked_tool import CheckedTool
from langchain_pld.guardrail.content import Content, Stage, call_text, read, read_message, visible_only
from langchain_pld.guardrail.human_review import Answer, Inquiry, ask, decisions_of
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.guardrail.replacement import MARK, WAITING, WITHHELD, emptied, exchanged, marked, with_arguments
from langchain_pld.guardrail.seals import seal, seal_of, sealed
from langchain_pld.student.classifier import PLDClassifier

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelResponse, hook_config
    from langchain.agents.middleware.types import ExtendedModelResponse, PrivateStateAttr, ToolCallRequest
except ImportError as error:
    raise MissingExtraError.of("langchain", "agents") from error

__all__ = ["GuardState", "PLDGuardrailMiddleware"]


def _union(old: list[str], new: list[str]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))


def _without_none(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **new}.items() if value is not None}


class GuardState(AgentState[Any]):
    """What guards keep in an agent's state. A client cannot forge it: all of it is sealed."""

    pld_checked: NotRequired[Annotated[list[str], PrivateStateAttr, _union]]
    """Seals of what a guard let pass, so that nothing is checked twice and nothing changed passes unchecked."""
    pld_pending: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, _without_none]]
    """What a person is still to decide. A check and its question lie in two nodes: a node runs again when the answer
    comes, and a second check might decide otherwise."""


class PLDGuardrailMiddleware(AgentMiddleware[GuardState, Any, Any]):
    """A guard in an agent made by LangChain's `create_agent`.

    Several fit in one agent, each with its own name. What it checks:

    - Input: each user message, once, before the model sees it. When a new one is blocked the run ends with a neutral
      answer; a placeholder stands in the history.
    - Output: the model's answer, before anything else sees it, hence also before any stream shows it; it then arrives
      whole. A blocked answer is replaced, its tool calls with it. An answer without text is no violation.
    - Tool calls: name and arguments. A blocked tool is not run, the model is told so, and the arguments do not stay in
      the history.
    - Tool results: what a tool returned, before the model sees it.

    Where the policy says `interrupt`, a person is asked, in the shape of LangChain's `HumanInTheLoopMiddleware` (it
    needs a checkpointer): `approve`, `edit`, `reject` and `respond`, with a label's name or with words to say instead.
    What they approve is still checked by the other guards. The answer is kept as a labelled example when the agent runs
    with a Store (see `reviewed_examples`). A check that fails decides as `on_error` says, and blocks by default.

    Args:
        guards: One guard or several, of which the strictest wins.
        apply_to_input: Check what users say.
        apply_to_output: Check what the model answers.
        apply_to_tool_calls: Check which tools are called, and with what.
        apply_to_tool_results: Check what tools return.
        name: A label to tell guards apart; the names of the tasks when absent.
        reply: What the user reads when an input or an answer is blocked; the policy's sentence when absent.

    Raises:
        InputError: It applies to nothing, or no guard was given.
    """

    state_schema = GuardState

    def __init__(
        self,
        guards: Guard | Sequence[Guard],
        *,
        apply_to_input: bool = True,
        apply_to_output: bool = False,
        apply_to_tool_calls: bool = False,
        apply_to_tool_results: bool = False,
        name: str | None = None,
        reply: str | None = None,
    ) -> None:
        super().__init__()
        applied: dict[Stage, bool] = {
            "input": apply_to_input,
            "output": apply_to_output,
            "tool_call": apply_to_tool_calls,
            "tool_result": apply_to_tool_results,
        }
        self.guards = {stage: placed(guards, stage) for stage, applies in applied.items() if applies}
        """The guards by the stage at which they check."""
        if not self.guards:
            msg = "the guard applies to nothing; set apply_to_input, apply_to_output, apply_to_tool_calls or _results"
            raise InputError(msg)
        self.reply = reply
        some = next(iter(self.guards.values()))
        label = name or "+".join(guard.name for guard in some)
        # LangGraph keeps the colon and the bar in node names for itself.
        self._name = re.sub(r"[|:]", "-", f"{PLDGuardrailMiddleware.__name__}[{','.join(self.guards)} {label}]")

    @classmethod
    def from_artifact(
        cls,
        path: str | Path,
        policy: GuardrailPolicy,
        *,
        student: BaseChatModel | str | None = None,
        **options: Any,
    ) -> Self:
        """A guard from an artifact and a policy.

        Args:
            path: The `*.pld.json` file.
            policy: What follows from a verdict.
            student: A chat model, or `provider:name`; the one of the artifact when absent.
            **options: Those of the class: what it applies to, name and reply.

        Raises:
            ArtifactError: The file cannot be used.
            InputError: The policy blocks a label that the task does not have.
            ModelSetupError: The student cannot be had.
        """
        return cls(Guard(PLDClassifier.from_artifact(path, student=student), policy), **options)

    @property
    def name(self) -> str:
        """What it checks, and the label; unique in an agent."""
        return self._name

    @override
    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: GuardState, runtime: Any) -> Any:
        return self._run(self._begin(state))

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: GuardState, runtime: Any) -> Any:
        return await self._arun(self._begin(state))

    @override
    @hook_config(can_jump_to=["end"])
    def before_model(self, state: GuardState, runtime: Any) -> Any:
        return self._run(self._ask_and_check(state, ("input", "tool_result")))

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: GuardState, runtime: Any) -> Any:
        return await self._arun(self._ask_and_check(state, ("input", "tool_result")))

    @override
    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return self._run(self._call_model(request), handler)

    @override
    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        return await self._arun(self._call_model(request), handler)

    @override
    @hook_config(can_jump_to=["end"])
    def after_model(self, state: GuardState, runtime: Any) -> Any:
        return self._run(self._ask_and_check(state, ("output", "tool_call")))

    @override
    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: GuardState, runtime: Any) -> Any:
        return await self._arun(self._ask_and_check(state, ("output", "tool_call")))

    @override
    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        return self._run(self._call_tool(request), handler)

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        return await self._arun(self._call_tool(request), handler)

    # The result of a tool with `return_direct` ends the run without coming by the model.
    @override
    def after_agent(self, state: GuardState, runtime: Any) -> Any:
        return self._run(self._ask_and_check(state, ("tool_result",)))

    @override
    async def aafter_agent(self, state: GuardState, runtime: Any) -> Any:
        return await self._arun(self._ask_and_check(state, ("tool_result",)))

    # What the hooks do, free of I/O: they yield what is to be done and are sent what came of it. Sync and async differ
    # only in how that is done.

    def _run(self, steps: Steps, handler: Callable[[Any], Any] | None = None) -> Any:
        return run_steps(steps, self.guards, handler)

    async def _arun(self, steps: Steps, handler: Callable[[Any], Awaitable[Any]] | None = None) -> Any:
        return await arun_steps(steps, self.guards, handler)

    def _begin(self, state: GuardState) -> Steps:
        """Drop questions that a new turn made void, then check what is new."""
        changes = self._withdrawn(state)
        messages = [*state["messages"]]
        if "input" in self.guards:
            fresh = self._unchecked("input", messages, state)
            decisions = yield Check("input", fresh)
            yield from self._sort("input", fresh, decisions, changes, messages=messages)
        return changes.update()

    def _ask_and_check(self, state: GuardState, stages: Sequence[Stage]) -> Steps:
        """Ask about what waits, and check what another middleware or a person brought in since the last check."""
        changes = Changes()
        pending = {key: item for key, item in self._pending(state).items() if item["stage"] in stages}
        messages = [*state["messages"]]
        if not pending:
            for stage in stages:
                if stage in self.guards and stage != "tool_call":
                    fresh = self._unchecked(stage, messages, state)
                    decisions = yield Check(stage, [self._value(stage, message) for message in fresh])
                    yield from self._sort(stage, fresh, decisions, changes, messages=messages)
            # Asked in the node of the check, which checks again on the way back: the answer counts if it still asks.
            pending, changes.pending = changes.pending, {}
        if pending:
            yield from self._review(pending, state, changes)
        last = state["messages"][-1] if state["messages"] else None
        if "output" in stages and self._blocked(last):
            changes.ends = True  # without the jump an agent with a response format would ask the model again
        return changes.update()

    def _call_model(self, request: Any) -> Steps:
        """The last gate before the model, then the first behind it."""
        changes, messages = Changes(), list(request.messages)
        for stage in ("input", "tool_result"):
            if stage in self.guards:
                fresh = self._unchecked(stage, messages, request.state)
                decisions = yield Check(stage, fresh)
                yield from self._sort(stage, fresh, decisions, changes, messages=messages, can_ask=False)
        if changes.ends:
            *changes.messages, answer = changes.messages
            return ExtendedModelResponse(ModelResponse(result=[answer]), Command(update=changes.update(jump=False)))
        request = request.override(messages=[changes.instead.get(id(message), message) for message in messages])
        response = yield Handle(request, silent="output" in self.guards)
        if "output" in self.guards:
            response = yield from self._check_answer(response, changes)
        if "tool_call" in self.guards:
            response = yield from self._check_calls(response, changes)
        if update := changes.update():
            return ExtendedModelResponse(response, Command(update=update))
        return response

    def _check_answer(self, response: Any, changes: Changes) -> Steps:
        last = next((message for message in reversed(response.result) if isinstance(message, AIMessage)), AIMessage(""))
        last.id = last.id or str(uuid4())
        answers = [read_message(m, calls=False) for m in response.result if isinstance(m, AIMessage)]
        if response.structured_response is not None:  # may come as a tool call, without any text
            answers.append(read(response.structured_response))
        decision = (yield Check("output", [Content.joined(answers)]))[0]
        # A structured answer is an object of the caller's, which a checkpoint may not keep while a person is asked.
        if decision.action == "interrupt" and response.structured_response is None:
            yield from self._hold("output", decision, last, changes, response.result)
            return ModelResponse(result=[emptied(last, WAITING)])
        if not decision.allowed:
            answer = self._refusal(last, decision)
            changes.checked.append(self._seal("output", answer))
            return ModelResponse(result=[answer])
        changes.checked.append(self._seal("output", last))
        if decision.action != "flag":
            return response
        return replace(response, result=[self._mark(m, decision) if m is last else m for m in response.result])

    def _check_calls(self, response: Any, changes: Changes) -> Steps:
        """Check the calls that will be run: those of a structured answer already have their result."""
        answered = {message.tool_call_id for message in response.result if isinstance(message, ToolMessage)}
        authors = [message for message in response.result if isinstance(message, AIMessage)]
        calls = [call for author in authors for call in author.tool_calls if call["id"] not in answered]
        decisions = yield Check("tool_call", [call_text(call) for call in calls])
        refused: dict[str | None, ToolMessage] = {}
        flags = [decision for decision in decisions if decision.action == "flag"]
        for call, decision in zip(calls, decisions, strict=True):
            if decision.action == "interrupt" and call["id"]:
                changes.pending |= self._question("tool_call", decision, call["id"], call=dict(call))
            elif not decision.allowed:
                refused[call["id"]] = self._call_refusal(call, decision)
            else:
                changes.checked.append(self._call_seal(call))
        if not refused and not flags:
            return response
        emptied_calls: dict[str | None, dict[str, Any]] = {call_id: {} for call_id in refused}
        result = [with_arguments(m, emptied_calls) if isinstance(m, AIMessage) else m for m in response.result]
        if flags:
            result = [self._mark(m, flags[-1]) if isinstance(m, AIMessage) else m for m in result]
        return replace(response, result=[*result, *refused.values()])

    # Also the last gate: what was changed after the check, by a person or another middleware, does not run unchecked.
    def _call_tool(self, request: ToolCallRequest) -> Steps:
        if "tool_call" in self.guards:
            checked = set(_value_of(request.state, "pld_checked") or ())
            refusal = yield from self._check_call(request.tool_call, checked)
            if refusal is not None:
                return refusal
            request = self._with_checked_tools(request, checked | {self._call_seal(request.tool_call)})
        result = yield Handle(request)
        if "tool_result" not in self.guards:
            return result
        messages = self._result_messages(result)
        decisions = yield Check("tool_result", messages)
        changes = Changes()
        for message in messages:
            message.id = message.id or str(uuid4())
        yield from self._sort("tool_result", messages, decisions, changes, messages=messages)
        return exchanged(result, changes.instead, changes.pending)

    def _check_call(self, call: ToolCall, checked: set[str]) -> Steps:
        """What takes the place of a call's result where it must not run."""
        if self._call_seal(call) in checked:
            return None
        decision = (yield Check("tool_call", [call_text(call)]))[0]
        return None if decision.allowed else self._call_refusal(call, decision)

    def _with_checked_tools(self, request: ToolCallRequest, checked: set[str]) -> ToolCallRequest:
        """The request with tools that check their arguments: a middleware behind this one may change them."""

        def check(call: ToolCall) -> Any:
            return self._run(self._check_call(call, checked))

        async def acheck(call: ToolCall) -> Any:
            return await self._arun(self._check_call(call, checked))

        def behind_guard(tool: Any) -> Any:
            return CheckedTool.of(tool, check, acheck) if isinstance(tool, BaseTool) else tool

        request = request.override(tool=behind_guard(request.tool))
        if tools := getattr(request.runtime, "tools", None):
            runtime = replace(request.runtime, tools=[behind_guard(tool) for tool in tools])
            request = replace(request, runtime=runtime)
        return request

    def _result_messages(self, result: Any) -> list[BaseMessage]:
        """The messages that a tool's result brings, each with something in it to check."""
        if isinstance(result, list):
            return [message for part in result for message in self._result_messages(part)]
        found: Any = [result]
        if isinstance(result, Command):
            update = result.update or {}
            found = update.get("messages", []) if isinstance(update, dict) else update
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(message, BaseMessage) for message in found):
            msg = f"{self.name} cannot read what a tool returned; return a ToolMessage, or a Command with messages"
            raise InputError(msg)
        return [message for message in found if message.content]

    def _unchecked(self, stage: Stage, messages: Sequence[BaseMessage], state: Any) -> list[BaseMessage]:
        """The messages of a stage that this guard has not let pass as they are."""
        checked = set(_value_of(state, "pld_checked") or ())
        found: Sequence[BaseMessage]
        if stage == "output":  # the last answer alone: those before it were there when the turn began
            found = [message for message in messages if isinstance(message, AIMessage)][-1:]
        else:
            found = [message for message in messages if _stands_at(message, stage)]
        return [
            message
            for message in found
            if read_message(message, calls=False) != Content("")
            and message.content not in (WITHHELD, WAITING)
            and self._seal(stage, message) not in checked
            and not sealed(message, self.name)
        ]

    def _value(self, stage: Stage, message: BaseMessage) -> Any:
        return read_message(message, calls=False) if stage == "output" else message

    def _sort(
        self,
        stage: Stage,
        fresh: Sequence[BaseMessage],
        decisions: Sequence[Decision],
        changes: Changes,
        *,
        messages: Sequence[BaseMessage],
        can_ask: bool = True,
    ) -> Steps:
        """What becomes of checked messages: passed, held for a person, or withheld."""
        asked, refused = [], []
        for message, decision in zip(fresh, decisions, strict=True):
            if decision.action == "interrupt" and can_ask:
                asked.append((message, decision))
            elif not decision.allowed:
                refused.append((message, decision))
            else:
                changes.exchange(message, self._pass(stage, message, changes, decision))
        ends = stage == "input" and _are_new([message for message, _ in refused], messages)
        if ends:  # what a person would have been asked about goes with the turn
            refused, asked = refused + asked, []
        for message, decision in asked:
            yield from self._hold(stage, decision, message, changes, [message])
            changes.exchange(message, emptied(message, WAITING))
        for message, decision in refused:
            self._withhold(stage, message, changes, decision)
        if ends:
            self._end(changes, self._mark(AIMessage(self._words(refused[0][1])), refused[0][1]))

    def _pass(
        self, stage: Stage, message: BaseMessage, changes: Changes, decision: Decision | None = None
    ) -> BaseMessage:
        passed = message
        if decision is not None and decision.removes_invisible and stage != "output":
            passed = visible_only(passed)
        if decision is not None and decision.action == "flag":
            passed = self._mark(passed, decision)
        if stage == "tool_result":  # sealed itself: returning a tool's result must not take an update of the state
            sealed_result: BaseMessage = seal(passed, self.name)
            return sealed_result
        changes.checked.append(self._seal(stage, passed))
        return passed

    def _withhold(
        self, stage: Stage, message: BaseMessage, changes: Changes, decision: Decision | None, words: str | None = None
    ) -> None:
        if stage == "output":
            answer = self._refusal(message, decision, words)
            changes.checked.append(self._seal("output", answer))
            self._end(changes, answer)
            return
        held = self._mark(emptied(message, (stage == "tool_result" and words) or WITHHELD), decision)
        changes.exchange(message, seal(held, self.name) if stage == "tool_result" else held)

    def _end(self, changes: Changes, answer: AIMessage) -> None:
        changes.messages.append(answer)
        changes.ends = True

    def _hold(
        self, stage: Stage, decision: Decision, about: BaseMessage, changes: Changes, kept: Sequence[BaseMessage]
    ) -> Steps:
        """Keep content outside of the state while a person is asked about it."""
        key, content = str(uuid4()), {"kept": [message_to_dict(message) for message in kept]}
        yield Hold(key, content)
        changes.pending |= self._question(stage, decision, about.id, held=key)

    def _question(self, stage: Stage, decision: Decision, about: str | None, **more: Any) -> dict[str, Any]:
        quoting = {"verdicts": {"__all__": {"evidence": True}}}
        findings = [finding.model_dump(mode="json", exclude=quoting) for finding in decision.findings]
        item = {"guard": self.name, "stage": stage, "about": about, "findings": findings, **more}
        return {f"{self.name} {stage} {about}": {**item, "seal": seal_of(self.name, _sorted(item))}}

    def _pending(self, state: Any) -> dict[str, Any]:
        """What this guard waits for a person to decide, without what another guard has taken away since."""
        messages = state["messages"]
        open_calls = {call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
        open_calls -= {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
        return {
            key: item
            for key, item in (_value_of(state, "pld_pending") or {}).items()
            if item.get("guard") == self.name
            and item.get("seal") == seal_of(self.name, _sorted({k: v for k, v in item.items() if k != "seal"}))
            and (item["stage"] != "tool_call" or item["about"] in open_calls)
        }

    def _withdrawn(self, state: Any) -> Changes:
        """What takes back the questions of an earlier turn, which the new one left unanswered."""
        changes = Changes()
        for key, item in (_value_of(state, "pld_pending") or {}).items():
            if item.get("guard") != self.name:
                continue
            changes.pending[key] = None
            for message in state["messages"]:
                if message.id == item["about"] and message.content == WAITING:
                    changes.messages.append(emptied(message, WITHHELD))
                elif isinstance(message, AIMessage) and item["about"] in {call["id"] for call in message.tool_calls}:
                    changes.messages.append(emptied(message, str(message.text) or WITHHELD))
        return changes

    def _review(self, pending: dict[str, Any], state: Any, changes: Changes) -> Steps:
        """Ask a person about all that waits in one request, and do as they say."""
        changes.pending |= dict.fromkeys(pending)
        kept: dict[str, list[BaseMessage]] = {}
        inquiries: dict[str, Inquiry] = {}
        for key, item in pending.items():
            stage: Stage = item["stage"]
            findings = [Finding.model_validate(finding) for finding in item["findings"]]
            if stage == "tool_call":
                text, arguments = call_text(item["call"]), item["call"]["args"]
            else:
                content = yield Fetch(item["held"])
                if content is None:  # lost with the process: nobody can approve what is not there
                    self._lose(item, state, changes)
                    continue
                kept[key] = messages_from_dict(content["kept"])
                text, arguments = Content.joined([read_message(m) for m in kept[key]]).text, None
            inquiries[key] = Inquiry(self.guards[stage], findings, text, arguments=arguments)
        if not inquiries:
            return
        answers = ask(_request(inquiries.values()), lambda response: _read_decisions(inquiries.values(), response))
        config = running_config()
        records = zip(inquiries.values(), answers, strict=True)
        yield Keep([entry for inquiry, given in records for entry in inquiry.records(given, config)])
        refused: list[tuple[BaseMessage, str | None]] = []
        for key, given in zip(inquiries, answers, strict=True):
            decided, item = _HumanDecision.of(given), pending[key]
            if item["stage"] == "tool_call":
                self._settle_call(item["call"], decided, state, changes)
                continue
            messages = kept[key]
            message: BaseMessage = next((m for m in reversed(messages) if isinstance(m, AIMessage)), messages[-1])
            if decided.allowed:
                passed = message.model_copy(update={"content": decided.words}) if decided.words else message
                passed = self._pass(item["stage"], passed, changes)
                changes.messages += [passed if found is message else found for found in messages]
            else:
                self._withhold(item["stage"], message, changes, None, decided.words)
                refused.append((message, decided.words))
        if _are_new([m for m, _ in refused if _stands_at(m, "input")], state["messages"]):
            words = next((said for _, said in refused if said), None)
            self._end(changes, self._mark(AIMessage(words or self._words(None)), None))

    def _lose(self, item: dict[str, Any], state: Any, changes: Changes) -> None:
        message = next((found for found in state["messages"] if found.id == item["about"]), None)
        if message is not None:
            self._withhold(item["stage"], message, changes, None)

    def _settle_call(self, call: ToolCall, decided: _HumanDecision, state: Any, changes: Changes) -> None:
        arguments = {} if not decided.allowed else decided.arguments
        if arguments is not None:
            author = next(m for m in reversed([*state["messages"], *changes.messages]) if _calls(m, call["id"]))
            changed = with_arguments(author, {call["id"]: arguments})
            changes.messages = [*(m for m in changes.messages if m.id != changed.id), changed]
        if decided.allowed:
            changes.checked.append(self._call_seal({**call, "args": arguments} if arguments is not None else call))
        else:
            changes.messages.append(self._call_refusal(call, None, decided.words))

    def _refusal(self, message: BaseMessage, decision: Decision | None, words: str | None = None) -> AIMessage:
        answer: AIMessage = self._mark(emptied(message, words or self._words(decision)), decision)
        return answer

    def _call_refusal(self, call: ToolCall, decision: Decision | None, words: str | None = None) -> ToolMessage:
        reason = decision.reason if decision is not None else "a person refused it"
        words = words or (
            f"The tool {call['name']} was not run: a guardrail does not allow this call ({reason}). Do not repeat it."
        )
        message = ToolMessage(words, name=call["name"], tool_call_id=call["id"] or "", status="error")
        sealed_message: ToolMessage = seal(self._mark(message, decision), self.name)
        return sealed_message

    def _words(self, decision: Decision | None) -> str:
        """What the user reads in place of what was blocked."""
        guards = next(iter(self.guards.values()))
        return self.reply or (decision.message if decision is not None else guards[0].policy.violation_message)

    def _mark(self, message: BaseMessage, decision: Decision | None) -> Any:
        return marked(message, decision, self.name)

    def _blocked(self, message: BaseMessage | None) -> bool:
        note = message.response_metadata.get(MARK) if isinstance(message, AIMessage) else None
        return isinstance(note, dict) and note.get(self.name, {}).get("action") == "block"

    def _seal(self, stage: Stage, message: BaseMessage) -> str:
        return seal_of(self.name, [stage, message.id, message.content, message.additional_kwargs])

    def _call_seal(self, call: ToolCall) -> str:
        return seal_of(self.name, ["tool_call", call["id"], call_text(call)])


class _HumanDecision(NamedTuple):
    """What people decided about one content."""

    allowed: bool
    words: str | None
    """What stands in its place."""
    arguments: dict[str, Any] | None
    """Those that a tool is to be called with."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> _HumanDecision:
        """Several guards asked: all must let it pass, and the first one's words count."""
        return cls(
            all(answer.allowed for answer in answers),
            next((answer.text for answer in answers if answer.text), None),
            next((answer.arguments for answer in answers if answer.arguments is not None), None),
        )


def _request(inquiries: Iterable[Inquiry]) -> dict[str, Any]:
    questions = [inquiry.question() for inquiry in inquiries]
    keys = ("action_requests", "review_configs")
    return {key: [entry for question in questions for entry in question[key]] for key in keys}


def _read_decisions(inquiries: Iterable[Inquiry], response: Any) -> list[list[Answer]]:
    asked = list(inquiries)
    rest = iter(decisions_of(response, sum(len(inquiry.findings) for inquiry in asked)))
    return [inquiry.read(list(islice(rest, len(inquiry.findings)))) for inquiry in asked]


def _are_new(found: Sequence[BaseMessage], messages: Sequence[BaseMessage]) -> bool:
    """Whether one of them is of this turn. An older one, sent again as history, only gives way."""
    last = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)
    new = {message.id for message in messages[last + 1 :]}
    return any(message.id in new for message in found)


def _stands_at(message: BaseMessage, stage: Stage) -> bool:
    if stage == "tool_result":
        return isinstance(message, ToolMessage)
    role = message.role if isinstance(message, ChatMessage) else message.type
    return role in {"human", "user"}


def _calls(message: BaseMessage, call_id: str | None) -> bool:
    return isinstance(message, AIMessage) and any(call["id"] == call_id for call in message.tool_calls)


def _sorted(item: dict[str, Any]) -> str:
    return json.dumps(item, sort_keys=True, default=str)


def _value_of(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, dict) else getattr(state, key, None)
