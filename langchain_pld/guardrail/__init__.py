"""What puts a classifier into production: policy, check, graph node, subgraph, middleware, streams, audit log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_pld.guardrail.audit import AuditTrail, AuditWriter
    from langchain_pld.guardrail.chain import GuardedRunnable, guarded
    from langchain_pld.guardrail.check import Decision, Finding, Guard, GuardrailError, acheck_all, check_all
    from langchain_pld.guardrail.graph import create_guardrail_graph
    from langchain_pld.guardrail.human_review import reviewed_examples
    from langchain_pld.guardrail.middleware import PLDGuardrailMiddleware
    from langchain_pld.guardrail.node import classifier_node, guardrail_node
    from langchain_pld.guardrail.policy import GuardrailPolicy
    from langchain_pld.guardrail.stream import (
        StreamHold,
        aguard_agent_stream,
        aguard_event_stream,
        aguard_stream,
        guard_agent_stream,
        guard_stream,
    )
    from langchain_pld.guardrail.telemetry import GuardTelemetry

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
    "StreamHold",
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

_HOMES = {
    "AuditTrail": "audit",
    "AuditWriter": "audit",
    "Decision": "check",
    "Finding": "check",
    "Guard": "check",
    "GuardTelemetry": "telemetry",
    "GuardedRunnable": "chain",
    "GuardrailError": "check",
    "GuardrailPolicy": "policy",
    "PLDGuardrailMiddleware": "middleware",
    "StreamHold": "stream",
    "acheck_all": "check",
    "aguard_stream": "stream",
    "check_all": "check",
    "classifier_node": "node",
    "create_guardrail_graph": "graph",
    "guard_stream": "stream",
    "guarded": "chain",
    "aguard_agent_stream": "stream",
    "aguard_event_stream": "stream",
    "guard_agent_stream": "stream",
    "guardrail_node": "node",
    "reviewed_examples": "human_review",
}


# Loaded on first use: the node and the graph need langgraph, which takes a second.
def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
