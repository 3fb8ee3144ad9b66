"""The guard of an agent made by `create_agent`: on what users say, what the model answers and which tools it calls."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, Self
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command
from typing_extensions import override

from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.guardrail.agent_review import call_question, hold, pending_questions, review, withdraw
from langchain_pld.guardrail.agent_update import (
    UNKNOWN_TOOL,
    AgentGuard,
    StateUpdate,
    checked_in,
    has_new,
    running_config,
)
from langchain_pld.guardrail.content import Content, Stage, read, read_call, read_message, strip_invisible
from langchain_pld.guardrail.decision import Decision, GuardrailError
from langchain_pld.guardrail.guard import Guard, at_stage, check_steps, side_by_side
from langchain_pld.guardrail.guarded_tool import GuardedTool
from langchain_pld.guardrail.message_edits import WAITING, WITHHELD, replace_calls, replace_results
from langchain_pld.guardrail.nostream import nostream_call
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.steps import Call, Steps, arun_steps, run_steps
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.failures import passes_through

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelResponse, hook_config
    from langchain.agents.middleware.types import ExtendedModelResponse, PrivateStateAttr, ToolCallRequest
except ImportError as error:
    raise MissingExtraError.of("langchain", "agents") from error

__all__ = ["GuardState", "PLDGuardrailMiddleware"]


# A client may send anything here; what is no signature or question is dropped.
def _union(old: list[str], new: list[str]) -> list[str]:
    return list(dict.fromkeys(item for item in [*old, *new] if isinstance(item, str)))


def _without_none(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **new}.items() if isinstance(value, dict)}


class GuardState(AgentState[Any]):
    """What guards keep in an agent's state. A client cannot forge it: all of it is signed."""

    pld_checked: NotRequired[Annotated[list[str], PrivateStateAttr, _union]]
    """Signatures of what a guard let pass, so that nothing is checked twice and nothing changed passes unchecked."""
    pld_pending: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, _without_none]]
    """What a person is still to decide."""


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
        blocked_message: What the user reads when an input or an answer is blocked; the policy's sentence when absent.

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
        blocked_message: str | None = None,
    ) -> None:
        super().__init__()
        applied: dict[Stage, bool] = {
            "input": apply_to_input,
            "output": apply_to_output,
            "tool_call": apply_to_tool_calls,
            "tool_result": apply_to_tool_results,
        }
        self.guards = {stage: at_stage(guards, stage) for stage, applies in applied.items() if applies}
        """The guards by the stage at which they check."""
        if not self.guards:
            msg = "the guard applies to nothing; set apply_to_input, apply_to_output, apply_to_tool_calls or _results"
            raise InputError(msg)
        some = next(iter(self.guards.values()))
        label = name or "+".join(guard.name for guard in some)
        # LangGraph keeps the colon and the bar in node names for itself.
        name = re.sub(r"[|:]", "-", f"{PLDGuardrailMiddleware.__name__}[{','.join(self.guards)} {label}]")
        self._guard = AgentGuard(name, self.guards, blocked_message)

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
            **options: Those of the class: what it applies to, name and message.

        Raises:
            ArtifactError: The file cannot be used.
            InputError: The policy blocks a label that the task does not have.
            ModelSetupError: The student cannot be had.
        """
        return cls(Guard(PLDClassifier.from_artifact(path, student=student), policy), **options)

    @property
    def name(self) -> str:
        """What it checks, and the label; unique in an agent."""
        return self._guard.name

    @override
    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: GuardState, runtime: Any) -> Any:
        return run_steps(self._begin(state))

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: GuardState, runtime: Any) -> Any:
        return await arun_steps(self._begin(state))

    @override
    @hook_config(can_jump_to=["end"])
    def before_model(self, state: GuardState, runtime: Any) -> Any:
        return run_steps(self._ask_and_check(state, ("input", "tool_result")))

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: GuardState, runtime: Any) -> Any:
        return await arun_steps(self._ask_and_check(state, ("input", "tool_result")))

    @override
    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return run_steps(self._call_model(request, handler))

    @override
    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        return await arun_steps(self._call_model(request, handler))

    @override
    @hook_config(can_jump_to=["end"])
    def after_model(self, state: GuardState, runtime: Any) -> Any:
        return run_steps(self._ask_and_check(state, ("output", "tool_call")))

    @override
    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: GuardState, runtime: Any) -> Any:
        return await arun_steps(self._ask_and_check(state, ("output", "tool_call")))

    @override
    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        return run_steps(self._call_tool(request, handler))

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        return await arun_steps(self._call_tool(request, handler))

    # The result of a tool with `return_direct` ends the run without coming by the model.
    @override
    def after_agent(self, state: GuardState, runtime: Any) -> Any:
        return run_steps(self._ask_and_check(state, ("tool_result",)))

    @override
    async def aafter_agent(self, state: GuardState, runtime: Any) -> Any:
        return await arun_steps(self._ask_and_check(state, ("tool_result",)))

    # What the hooks do, written once for their sync and async forms.

    def _begin(self, state: GuardState) -> Steps[Any]:
        """Drop questions that a new turn made void, then check what is new."""
        update, messages = StateUpdate(self._guard), [*state["messages"]]
        yield from withdraw(self._guard, state, update)
        yield from self._check_new("input", messages, state, update)
        return update.as_dict()

    def _ask_and_check(self, state: GuardState, stages: Sequence[Stage]) -> Steps[Any]:
        """Ask about what waits, and check what another middleware or a person brought in since the last check."""
        update, messages = StateUpdate(self._guard), [*state["messages"]]
        questions = pending_questions(self._guard, state)
        pending = {key: item for key, item in questions.items() if item["stage"] in stages}
        if not pending:
            for stage in stages:
                if stage != "tool_call":
                    yield from self._check_new(stage, messages, state, update)
            # Asked in the node of the check, which checks again on the way back: the answer counts if it still asks.
            pending, update.pending = update.pending, {}
        if pending:
            yield from review(self._guard, pending, state, update)
        if "output" in stages and self._guard.has_blocked(messages[-1] if messages else None):
            update.ends = True  # without the jump an agent with a response format would ask the model again
        return update.as_dict()

    def _call_model(self, request: Any, handler: Callable[[Any], Any]) -> Steps[Any]:
        """The last gate before the model, then the first behind it."""
        update, messages = StateUpdate(self._guard), list(request.messages)
        for stage in ("input", "tool_result"):
            yield from self._check_new(stage, messages, request.state, update, can_ask=False)
        if update.ends:
            *update.messages, answer = update.messages
            return ExtendedModelResponse(ModelResponse(result=[answer]), Command(update=update.as_dict(jump=False)))
        request = request.override(messages=[update.replacements.get(id(m), m) for m in messages])
        if "output" in self.guards:
            response = yield nostream_call(handler, request, running_config())
            response = yield from self._check_answer(response, update)
        else:
            response = yield Call(lambda: handler(request), lambda: handler(request))
        if "tool_call" in self.guards:
            response = yield from self._check_calls(response, update, _names(request.tools))
        response = replace(response, result=self._own(response.result, update))
        changes = update.as_dict()
        return ExtendedModelResponse(response, Command(update=changes)) if changes else response

    def _own(self, messages: Sequence[BaseMessage], update: StateUpdate | None = None) -> list[Any]:
        """Mark what the model or a tool said, which is no input, whoever checks it."""
        if "input" not in self.guards:
            return list(messages)
        own = [self._guard.sign(message) if isinstance(message, ToolMessage) else message for message in messages]
        for message in own:
            if update is not None and not isinstance(message, ToolMessage):
                message.id = message.id or str(uuid4())
                update.checked.append(self._guard.signature_of("input", message))
        return own

    def _check_new(
        self,
        stage: Stage,
        messages: Sequence[BaseMessage],
        state: Any,
        update: StateUpdate,
        *,
        can_ask: bool = True,
    ) -> Steps[None]:
        """Check the messages of a stage that were not checked as they are."""
        if stage in self.guards:
            fresh = self._guard.unchecked(stage, messages, state)
            yield from self._sort(stage, fresh, messages, update, can_ask=can_ask)

    def _sort(
        self,
        stage: Stage,
        fresh: Sequence[BaseMessage],
        messages: Sequence[BaseMessage],
        update: StateUpdate,
        *,
        can_ask: bool = True,
    ) -> Steps[None]:
        """Check some of the messages; each passes, is held for a person, or withheld."""
        values = [read_message(message, calls=False) if stage == "output" else message for message in fresh]
        decisions = yield from self._check(stage, values)
        asked, refused = [], []
        for message, decision in zip(fresh, decisions, strict=True):
            if decision.action == "interrupt" and can_ask:
                asked.append((message, decision))
            elif not decision.allowed:
                refused.append((message, decision))
            else:
                update.replace(message, update.allow(stage, message, decision))
        ends = stage == "input" and has_new([message for message, _ in refused], messages)
        if ends:  # what a person would have been asked about goes with the turn
            refused, asked = refused + asked, []
        for message, decision in asked:
            update.pending |= yield from hold(self._guard, stage, decision, message, [message])
            update.replace(message, self._guard.placeholder(message, WAITING))
        for message, decision in refused:
            update.withhold(stage, message, decision)
        if ends:
            decision = refused[0][1]
            update.end(self._guard.answer(decision))

    def _check(self, stage: Stage, values: Sequence[Any]) -> Steps[list[Decision]]:
        config = running_config()
        decisions = yield from side_by_side([check_steps(self.guards[stage], value, config) for value in values])
        for decision in decisions:
            if decision.action == "raise":
                raise _AgentGuardrailError(decision)
        return decisions

    def _check_answer(self, response: Any, update: StateUpdate) -> Steps[Any]:
        last = next((message for message in reversed(response.result) if isinstance(message, AIMessage)), AIMessage(""))
        last.id = last.id or str(uuid4())
        answers = [read_message(m, calls=False) for m in response.result if isinstance(m, AIMessage)]
        if response.structured_response is not None:  # may come as a tool call, without any text
            answers.append(read(response.structured_response))
        [decision] = yield from self._check("output", [Content.concat(answers)])
        # A structured answer is an object of the caller's, which a checkpoint may not keep while a person is asked.
        if decision.action == "interrupt" and response.structured_response is None:
            update.pending |= yield from hold(self._guard, "output", decision, last, response.result)
            return ModelResponse(result=[self._guard.placeholder(last, WAITING)])
        if not decision.allowed:
            answer = self._guard.refusal(last, decision)
            update.checked.append(self._guard.signature_of("output", answer))
            return ModelResponse(result=[answer])
        passed = update.allow("output", last, decision)
        return replace(response, result=[passed if m is last else m for m in response.result])

    def _check_calls(self, response: Any, update: StateUpdate, tools: Collection[str]) -> Steps[Any]:
        """Check the calls that will be run: those of a structured answer already have their result."""
        done = {message.tool_call_id for message in response.result if isinstance(message, ToolMessage)}
        authors = [message for message in response.result if isinstance(message, AIMessage)]
        calls = [call for author in authors for call in author.tool_calls if call["id"] not in done]
        decisions = yield from self._check("tool_call", [read_call(call) for call in calls])
        refusals: list[ToolMessage] = []
        changed: dict[str | None, ToolCall] = {}
        for call, decision in zip(calls, decisions, strict=True):
            if decision.action == "interrupt" and call["id"]:
                update.pending |= call_question(self._guard, decision, call)
            elif not decision.allowed:
                known = call["name"] if call["name"] in tools else UNKNOWN_TOOL
                changed[call["id"]] = ToolCall(name=known, args={}, id=call["id"])
                refusals.append(self._guard.refusal_of_call(changed[call["id"]], decision))
            else:
                if decision.strips_invisible:
                    call = changed[call["id"]] = strip_invisible(call)
                update.checked.append(self._guard.signature_of_call(call))
        result = [replace_calls(m, changed) if isinstance(m, AIMessage) else m for m in response.result]
        if flags := [decision for decision in decisions if decision.action == "flag"]:
            result = [self._guard.annotate(m, flags[-1]) if isinstance(m, AIMessage) else m for m in result]
        return replace(response, result=[*result, *refusals])

    # Also the last gate: what was changed after the check, by a person or another middleware, does not run unchecked.
    def _call_tool(self, request: ToolCallRequest, handler: Callable[[Any], Any]) -> Steps[Any]:
        checks_results = "tool_result" in self.guards
        checked = checked_in(request.state)
        if "tool_call" in self.guards:
            refusal = yield from self._check_call(request.tool_call, checked, known=request.tool is not None)
            if refusal is not None:
                return refusal
            checked.add(self._guard.signature_of_call(request.tool_call))
        if checks_results or "tool_call" in self.guards:
            request = self._with_guarded_tools(request, checked, nostream=checks_results)
        try:
            result = yield Call(lambda: handler(request), lambda: handler(request))
        except Exception as error:
            if not checks_results or passes_through(error):
                raise
            # Others may make a message of it.
            [decision] = yield from self._check("tool_result", [str(error)])
            if decision.allowed:
                raise
            call = request.tool_call
            failure = ToolMessage("", name=call["name"], tool_call_id=call["id"] or "", status="error")
            return self._guard.placeholder(failure, WITHHELD, decision)
        messages = self._result_messages(result)
        update = StateUpdate(self._guard)
        if checks_results:
            for message in messages:
                message.id = message.id or str(uuid4())
            with_words = [message for message in messages if read_message(message) != Content("")]
            yield from self._sort("tool_result", with_words, messages, update)
        else:
            update.replacements = {id(m): own for m, own in zip(messages, self._own(messages), strict=True)}
        return replace_results(result, update.replacements, update.pending)

    def _check_call(self, call: ToolCall, checked: Collection[str], *, known: bool) -> Steps[ToolMessage | None]:
        """What takes the place of a call's result where it must not run."""
        if "tool_call" not in self.guards or self._guard.signature_of_call(call) in checked:
            return None
        [decision] = yield from self._check("tool_call", [read_call(call)])
        if decision.allowed and not decision.strips_invisible:
            return None
        shown = call if known else ToolCall(name=UNKNOWN_TOOL, args={}, id=call["id"])
        return self._guard.refusal_of_call(shown, decision)

    def _with_guarded_tools(
        self, request: ToolCallRequest, checked: Collection[str], *, nostream: bool
    ) -> ToolCallRequest:
        """The request with tools that check their arguments: a middleware behind this one may change them."""

        def behind_guard(tool: Any) -> Any:
            if not isinstance(tool, BaseTool):
                return tool
            return GuardedTool.of(tool, lambda call: self._check_call(call, checked, known=True), nostream=nostream)

        request = request.override(tool=behind_guard(request.tool))
        if tools := getattr(request.runtime, "tools", None):
            runtime = replace(request.runtime, tools=[behind_guard(tool) for tool in tools])
            request = replace(request, runtime=runtime)
        return request

    def _result_messages(self, result: Any) -> list[BaseMessage]:
        """The messages that a tool's result brings."""
        if isinstance(result, list):
            return [message for part in result for message in self._result_messages(part)]
        found: Any = [result]
        if isinstance(result, Command):
            update = result.update or {}
            found = update.get("messages", []) if isinstance(update, dict) else update
        found = found if isinstance(found, list) else [found]
        if "tool_result" in self.guards and not all(isinstance(message, BaseMessage) for message in found):
            msg = f"{self.name} cannot read what a tool returned; return a ToolMessage, or a Command with messages"
            raise InputError(msg)
        return [message for message in found if isinstance(message, BaseMessage)]


class _AgentGuardrailError(GuardrailError, GraphBubbleUp):
    """Passes through middlewares that try again or fall back after an error: a refusal is no error of theirs."""


def _names(tools: Sequence[Any]) -> set[str]:
    """The names of tools, as objects or as the mappings that providers take."""
    return {str(tool.get("name", "")) if isinstance(tool, dict) else tool.name for tool in tools}
