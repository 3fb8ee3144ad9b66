"""Guards for `create_agent`: what users say, what the model answers, which tools it calls and what these return."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, NotRequired, Self, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config, get_store
from langgraph.store.base import BaseStore
from langgraph.types import interrupt

from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.guardrail.check import Decision, Finding, Guard, Stage, acheck_all, check_all, placed
from langchain_pld.guardrail.people import Answer, Inquiry, Kept
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.student.classifier import PLDClassifier

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState
    from langchain.agents.middleware.types import PrivateStateAttr
except ImportError as error:
    raise MissingExtraError.of("langchain", "agents") from error

__all__ = ["Answered", "GuardState", "PLDGuardrailMiddleware", "astored", "running_config", "stored"]


def _union(old: list[str], new: list[str]) -> list[str]:
    return list(dict.fromkeys([*old, *new]))


def _settled(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **new}.items() if value is not None}


Answered = tuple[dict[str, Any] | None, list[Kept]]
"""An update of the state, and what the Store is to keep."""


class GuardState(AgentState[Any]):
    """What guards keep in an agent's state."""

    pld_checked: NotRequired[Annotated[list[str], PrivateStateAttr, _union]]
    """Digests of what a guard let pass, so that nothing is checked twice and nothing changed passes unchecked."""
    pld_pending: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, _settled]]
    """What a person is still to decide, by guard and message or call. A check and its question lie in two nodes:
    a node runs again when the answer comes, and a second check might decide otherwise."""


class PLDGuardrailMiddleware(AgentMiddleware[GuardState, Any, Any]):
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

    state_schema = GuardState
    stage: ClassVar[Stage]

    # create_agent draws a node for each hook that a class overrides, so each stage is a class with its own hooks only.
    def __new__(cls, *args: Any, stage: str = "input", **options: Any) -> Self:  # noqa: ARG004
        """Pick the class of the stage."""
        if cls is not PLDGuardrailMiddleware:
            return super().__new__(cls)
        stages = _stages()
        if stage not in stages:
            msg = f"unknown stage {stage!r}; one of {', '.join(stages)}"
            raise InputError(msg)
        return cast("Self", super().__new__(stages[stage]))

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
        config = running_config()
        return [check_all(self.guards, value, config).enforce() for value in values]

    async def _adecide(self, values: Sequence[Any]) -> list[Decision]:
        config = running_config()
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
        config = running_config()
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


def _stages() -> dict[str, type[PLDGuardrailMiddleware]]:
    # Imported here, since each of them is such a middleware.
    from langchain_pld.guardrail.input_guard import InputGuard
    from langchain_pld.guardrail.output_guard import OutputGuard
    from langchain_pld.guardrail.tool_call_guard import ToolCallGuard
    from langchain_pld.guardrail.tool_result_guard import ToolResultGuard

    return {guard.stage: guard for guard in (InputGuard, OutputGuard, ToolCallGuard, ToolResultGuard)}


def stored(answered: Answered) -> dict[str, Any] | None:
    """Keep what people answered, where there is a Store; gives the update."""
    update, kept = answered
    if store := _store():
        for entry in kept:
            store.put(*entry)
    return update


async def astored(answered: Answered) -> dict[str, Any] | None:
    """As `stored`, without blocking the event loop."""
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


def running_config() -> RunnableConfig | None:
    """The config of the graph that runs; `None` outside of one."""
    try:
        return get_config()
    except RuntimeError:  # called outside a graph
        return None
