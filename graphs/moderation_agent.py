"""An agent under guard, for LangGraph Studio: what users say, which tools it calls and what it answers is checked.

The main model and its prompt are settings of the run. The guard is not: whoever talks to the agent must not choose who
checks it. It comes from the environment of the server:

- `PLD_ARTIFACT`: a `*.pld.json` file. Without it the student decides zero-shot about the small task below, with scores
  that nobody has measured or calibrated; good for a look, not for use.
- `PLD_STUDENT`: the model that decides, as `provider:name`; that of the artifact when absent.
- `PLD_POLICY`: a policy file in YAML; needed with an artifact whose labels are not those below.

Models are built at the first call, so that the graph loads without key, network and model file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, ConfigDict, Field

from langchain_pld import DistilledPrompt, PLDClassifier, Task, Verdict, resolve_chat_model
from langchain_pld.errors import PLDError
from langchain_pld.guardrail import Guard, GuardrailPolicy, PLDGuardrailMiddleware
from langchain_pld.student.failures import failure_of, passes_through

__all__ = ["AgentContext", "graph"]

DEFAULT_MODEL = "ollama:qwen3:4b"
DEFAULT_STUDENT = "embedded:qwen2.5-coder-1.5b"

TASK = Task(
    name="office_messages",
    instructions="You check messages of an office assistant. Decide of what kind a message is. Give exactly one label.",
    labels=[
        {"name": "ordinary", "description": "Everyday work or small talk."},
        {"name": "private", "description": "It tells or asks for somebody's health, pay or home address."},
        {"name": "hostile", "description": "It insults or threatens somebody."},
    ],
)
POLICY = GuardrailPolicy(block_labels={"private": 0.6, "hostile": 0.6}, on_uncertain="interrupt", deadline_s=60)
"""From a probability of 0.6 on a message is blocked; where a blocking label leads with less, a person is asked. The
deadline leaves room for loading an embedded model."""

SYSTEM_PROMPT = "You are the assistant of a small office. Answer in a few words. Use the tools where they help."
_COLLEAGUES = {"ana": "Ana Brok, design, desk 12", "imre": "Imre Stahl, workshop, desk 3"}


class AgentContext(BaseModel):
    """Settings of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        default=DEFAULT_MODEL,
        description="The agent's main model, as provider:name. It has to be one that calls tools.",
        json_schema_extra={"langgraph_nodes": ["model"]},
    )
    system_prompt: str = Field(
        default=SYSTEM_PROMPT,
        description="What the main model is told about its part.",
        min_length=1,
        json_schema_extra={"langgraph_nodes": ["model"], "langgraph_type": "prompt"},
    )


@tool
def find_colleague(name: str) -> str:
    """Look up where a colleague sits and what they do."""
    return _COLLEAGUES.get(name.strip().casefold(), f"There is no colleague called {name}.")


@tool
def post_message(channel: str, text: str) -> str:
    """Post a message to a channel of the office chat."""
    return f"Posted {len(text)} characters to {channel}."


class ChosenModel(AgentMiddleware[AgentState[Any], AgentContext, Any]):
    """Takes the main model and its prompt from the run's context."""

    def wrap_model_call(self, request: ModelRequest[AgentContext], handler: Callable[[Any], Any]) -> Any:
        """Ask the chosen model."""
        chosen = _chosen(request)
        try:
            return handler(request.override(model=_main_model(chosen.model), system_message=_prompt(chosen)))
        except Exception as error:
            return _no_answer(error, chosen.model)

    async def awrap_model_call(
        self, request: ModelRequest[AgentContext], handler: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """Ask the chosen model without blocking the event loop."""
        chosen = _chosen(request)
        try:
            model = await asyncio.to_thread(_main_model, chosen.model)  # importing a provider blocks
            return await handler(request.override(model=model, system_message=_prompt(chosen)))
        except Exception as error:
            return _no_answer(error, chosen.model)


def _chosen(request: ModelRequest[AgentContext]) -> AgentContext:
    # Outside of the server a run without a context has none at all.
    return request.runtime.context or AgentContext()


def _no_answer(error: Exception, model: str) -> AIMessage:
    """What the user reads when the main model fails: a server keeps an error's own words to its log."""
    if passes_through(error):
        raise error
    reason = str(error) if isinstance(error, PLDError) else failure_of(error, model).message
    return AIMessage(f"The main model gave no answer: {reason}.")


def _prompt(chosen: AgentContext) -> SystemMessage:
    return SystemMessage(chosen.system_prompt)


@cache
def _main_model(spec: str) -> BaseChatModel:
    return resolve_chat_model(spec)


@cache
def _artifact() -> DistilledPrompt | None:
    path = os.environ.get("PLD_ARTIFACT")
    return DistilledPrompt.load(path) if path else None


@cache
def _classifier() -> PLDClassifier:
    """The student behind its prompt. Blocks: an embedded model is fetched here if it is not there yet."""
    artifact = _artifact()
    spec = os.environ.get("PLD_STUDENT") or (artifact.student.spec if artifact else DEFAULT_STUDENT)
    student = resolve_chat_model(spec)
    if artifact is None:
        return PLDClassifier.zero_shot(TASK, student)
    return PLDClassifier(artifact=artifact, student=student)


def _ask(value: Any, config: RunnableConfig) -> Verdict:
    return _classifier().invoke(value, config)


async def _aask(value: Any, config: RunnableConfig) -> Verdict:
    classifier = await asyncio.to_thread(_classifier)
    return await classifier.ainvoke(value, config)


def _guard() -> Guard:
    artifact, policy_file = _artifact(), os.environ.get("PLD_POLICY")
    task = artifact.task if artifact else TASK
    policy = GuardrailPolicy.from_yaml(policy_file) if policy_file else POLICY
    # Behind a function, since building the classifier may fetch a model; its labels are known without it.
    return Guard(RunnableLambda(_ask, _aask, name="student"), policy, name=task.name, labels=task.label_names)


_watch = _guard()
_middleware: list[AgentMiddleware[Any, Any, Any]] = [
    PLDGuardrailMiddleware(_watch, apply_to_output=True, apply_to_tool_calls=True),
    ChosenModel(),  # last, hence nearest to the model
]

# Compiled without a checkpointer: the server brings its own.
graph = create_agent(
    resolve_chat_model(DEFAULT_MODEL),
    [find_colleague, post_message],
    middleware=_middleware,
    context_schema=AgentContext,
    name="moderation_agent",
)
