"""Putting a classifier into production: policy, check, graph node, subgraph, middleware, streams, audit log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from langchain_pld.guardrail.audit import AuditTrail, AuditWriter
from langchain_pld.guardrail.chain import GuardedRunnable, guarded
from langchain_pld.guardrail.decision import Decision, Finding, GuardrailError
from langchain_pld.guardrail.guard import Guard, acheck_all, check_all
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.guardrail.stream import (
    StreamBuffer,
    aguard_agent_stream,
    aguard_event_stream,
    aguard_stream,
    guard_agent_stream,
    guard_stream,
)
from langchain_pld.guardrail.telemetry import GuardTelemetry

if TYPE_CHECKING:
    from langchain_pld.guardrail.graph import create_guardrail_graph
    from langchain_pld.guardrail.human_review import reviewed_examples
    from langchain_pld.guardrail.middleware import PLDGuardrailMiddleware
    from langchain_pld.guardrail.node import classifier_node, guardrail_node

__all__ = [
    "AuditTrail",
    "AuditWriter",
    "Decision",
    "Finding",
    "Guard",
    "GuardTelemetry",
    "GuardedRunnable",
    "GuardrailError",
    "GuardrailPolicy",
    "PLDGuardrailMiddleware",
    "StreamBuffer",
    "acheck_all",
    "aguard_agent_stream",
    "aguard_event_stream",
    "aguard_stream",
    "check_all",
    "classifier_node",
    "create_guardrail_graph",
    "guard_agent_stream",
    "guard_stream",
    "guarded",
    "guardrail_node",
    "reviewed_examples",
]

# Loaded on first use: langgraph alone takes a second.
_LAZY = {
    "PLDGuardrailMiddleware": "middleware",
    "classifier_node": "node",
    "create_guardrail_graph": "graph",
    "guardrail_node": "node",
    "reviewed_examples": "human_review",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
