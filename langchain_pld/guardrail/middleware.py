"""The guard of an agent made by `create_agent`: on what users say, what the model answers and which tools it calls."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, Self
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langgraph.types import Command
from typing_extensions import override

from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.guardrail.agent_checks import check, check_calls, check_new, mark_own
from langchain_pld.guardrail.agent_review import hold, pending_questions, review, withdraw
from langchain_pld.guardrail.agent_tools import call_tool
from langchain_pld.guardrail.agent_update import (
    AgentGuard,
    StateUpdate,
    running_config,
)
from langchain_pld.guardrail.content import Content, Stage, read, read_message
from langchain_pld.guardrail.guard import Guard, at_stage
from langchain_pld.guardrail.message_edits import WAITING
from langchain_pld.guardrail.nostream import nostream_call
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.steps import Call, Steps, arun_steps, run_steps
from langchain_pld.student.classifier import PLDClassifier

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelResponse, hook_config
    from langchain.agents.middleware.types import ExtendedModelResponse, PrivateStateAttr, ToolCallRequest
except ImportError as error:
    raise MissingExtraError.of("langchain", "agents") from error

__all__ = ["GuardState", "PLDGuardrailMiddleware"]

_INCOMING: tuple[Stage, ...] = ("input", "tool_result")
"""What is checked before a model reads it."""


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
        return run_steps(self._ask_and_check(state, _INCOMING))

    @override
    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: GuardState, runtime: Any) -> Any:
        return await arun_steps(self._ask_and_check(state, _INCOMING))

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
        return run_steps(call_tool(self._guard, request, handler))

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        return await arun_steps(call_tool(self._guard, request, handler))

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
        for stage in _INCOMING:  # results too: a client may send one, and other middlewares' models may read it
            yield from check_new(self._guard, stage, messages, state, update)
        return update.as_dict()

    def _ask_and_check(self, state: GuardState, stages: Sequence[Stage]) -> Steps[Any]:
        """Ask about what waits, and check what another middleware or a person brought in since the last check."""
        update, messages = StateUpdate(self._guard), [*state["messages"]]
        questions = pending_questions(self._guard, state)
        pending = {key: item for key, item in questions.items() if item["stage"] in stages}
        if not pending:
            for stage in stages:
                if stage != "tool_call":
                    yield from check_new(self._guard, stage, messages, state, update)
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
        for stage in _INCOMING:
            yield from check_new(self._guard, stage, messages, request.state, update, can_ask=False)
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
            response = yield from check_calls(self._guard, response, update, _names(request.tools))
        response = replace(response, result=mark_own(self._guard, response.result, update))
        changes = update.as_dict()
        return ExtendedModelResponse(response, Command(update=changes)) if changes else response

    def _check_answer(self, response: Any, update: StateUpdate) -> Steps[Any]:
        last = next((message for message in reversed(response.result) if isinstance(message, AIMessage)), AIMessage(""))
        last.id = last.id or str(uuid4())
        answers = [read_message(m, calls=False) for m in response.result if isinstance(m, AIMessage)]
        if response.structured_response is not None:  # may come as a tool call, without any text
            answers.append(read(response.structured_response))
        [decision] = yield from check(self._guard, "output", [Content.concat(answers)])
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


def _names(tools: Sequence[Any]) -> set[str]:
    """The names of tools, as objects or as the mappings that providers take."""
    return {str(tool.get("name", "")) if isinstance(tool, dict) else tool.name for tool in tools}
