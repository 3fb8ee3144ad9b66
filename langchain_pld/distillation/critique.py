"""critique: screens the micro-rules before they are merged.

In: micro-rules. Out: those that no screen objects to. A condition that argues for two labels decides nothing and goes
out on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from langgraph.runtime import Runtime

from langchain_pld.distillation.context import DistillationContext
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.screening import planted
from langchain_pld.distillation.state import DistillationState
from langchain_pld.rules import MicroRule

__all__ = ["critique_node", "screened"]


async def critique_node(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
    """The node."""
    labels = state["task"].label_names
    kept, reasons = screened(state["micro_rules"], labels)
    note = f"critique: {len(kept)} of {len(state['micro_rules'])} micro-rules kept"
    if reasons:
        counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
        note += "; out: " + ", ".join(f"{count} that {reason}" for reason, count in counts.items())
    total = len(state["micro_rules"])
    runtime.stream_writer(Progress(node="critique", step="screening", done=total, total=total, note=note).model_dump())
    return {"micro_rules": kept, "log": [note]}


def screened(micro_rules: list[MicroRule], labels: tuple[str, ...]) -> tuple[list[MicroRule], list[str]]:
    """The micro-rules that pass, and the reason of each that does not."""
    labels_of: dict[str, set[str]] = defaultdict(set)
    for micro in micro_rules:
        labels_of[_folded(micro.condition)].add(micro.label)
    kept: list[MicroRule] = []
    reasons: list[str] = []
    for micro in micro_rules:
        reason = planted(micro.condition)
        if micro.label not in labels:
            reason = "argue for a label that the task does not have"
        elif len(labels_of[_folded(micro.condition)]) > 1:
            reason = "argue for several labels at once"
        if reason:
            reasons.append(reason)
        else:
            kept.append(micro)
    return kept, reasons


def _folded(condition: str) -> str:
    return " ".join(condition.casefold().strip(" .").split())
