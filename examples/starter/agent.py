"""A support agent behind a guard: it reads a message only when the guard has cleared it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from langchain_pld import PLDClassifier
from langchain_pld.guardrail import Guard, GuardrailPolicy, PLDGuardrailMiddleware

HERE = Path(__file__).parent
POLICY = GuardrailPolicy.from_yaml(HERE / "policy.yaml")
DISTILL = (
    "pld distill task.yaml --train data/train.jsonl --validation data/validation.jsonl --test data/test.jsonl "
    "--out guard.pld.json"
)
SYSTEM_PROMPT = "You answer customers of a bicycle shop in two or three sentences. Use the tools; never guess."

# Two stand-ins for systems of your own.
_HOURS = "Tuesday to Friday 10 to 18, Saturday 10 to 14"
_ORDERS = {"FC-20418": "packed, leaves tomorrow", "FC-20533": "with the carrier since Monday"}


@tool
def opening_hours() -> str:
    """When the shop is open."""
    return _HOURS


@tool
def order_status(number: str) -> str:
    """Where an order is. Numbers look like FC-20418."""
    return _ORDERS.get(number.strip().upper(), f"There is no order {number}.")


def load_guard(artifact: Path = HERE / "guard.pld.json") -> Guard:
    """The distilled prompt with its student, under the policy."""
    if not artifact.exists():
        msg = f"there is no {artifact.name} yet; make it with:\n\n  {DISTILL}\n"
        raise FileNotFoundError(msg)
    return Guard(PLDClassifier.from_artifact(artifact), POLICY)


def build_agent(
    model: BaseChatModel, guard: Guard, *, checkpointer: BaseCheckpointSaver[Any] | None = None
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent. The guard asks people through interrupts, so it needs a checkpointer; a LangGraph server has one."""
    return create_agent(
        model,
        [opening_hours, order_status],
        system_prompt=SYSTEM_PROMPT,
        middleware=[PLDGuardrailMiddleware(guard)],
        checkpointer=checkpointer,
        name="support_desk",
    )
