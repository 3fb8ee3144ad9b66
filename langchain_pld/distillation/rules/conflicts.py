"""Conflicts: rules with nearly the same condition but different labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.distillation.rules.edits import RuleEdit, apply_edits
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.teacher import Teacher
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.rules import Rule
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Conflict", "find_conflicts", "resolve_conflicts"]

_MAX_SHOWN = 6


@dataclass(frozen=True)
class Conflict:
    """Two rules with nearly the same condition but different labels."""

    first: Rule
    second: Rule
    similarity: float
    """Cosine of their vectors."""


class Settlement(BaseModel):
    """How one conflict is settled."""

    conflict: int = Field(ge=1, description="number of the conflict")
    difference: str = Field(max_length=300, description="what tells the two labels apart here")
    first: str = Field(max_length=300, description="the new condition of the first rule")
    second: str = Field(max_length=300, description="the new condition of the second rule")


class Settlements(BaseModel):
    """How the conflicts are settled."""

    settlements: list[Settlement] = Field(max_length=_MAX_SHOWN)


def find_conflicts(rules: Sequence[Rule], vectors: np.ndarray, *, similarity: float) -> list[Conflict]:
    """Find the conflicts among rules, most similar first.

    Args:
        rules: The rules, n.
        vectors: Unit vectors of their conditions, n by d.
        similarity: Lowest cosine at which two conditions count as nearly the same.
    """
    cosines = vectors @ vectors.T
    conflicts = [
        Conflict(rules[a], rules[b], float(cosines[a, b]))
        for a, b in combinations(range(len(rules)), 2)
        if rules[a].label != rules[b].label and cosines[a, b] >= similarity
    ]
    return sorted(conflicts, key=lambda conflict: -conflict.similarity)


async def resolve_conflicts(
    rules: Sequence[Rule], conflicts: Sequence[Conflict], teacher: Teacher, screen: Screen
) -> tuple[tuple[Rule, ...], list[str]]:
    """Have the teacher rewrite conflicting rules, the first six conflicts in one call.

    Returns:
        The rules, and a log line per edit. Without a usable answer the rules stay as they are, and the validation rows
        decide.
    """
    shown = conflicts[:_MAX_SHOWN]
    answer = await teacher.ask(_messages(screen.task, shown), Settlements)
    if isinstance(answer, Failure):
        return tuple(rules), [f"{len(conflicts)} conflicts stay: {answer.message}"]
    edits = [
        RuleEdit(action="modify", rule=rule.id, conditions=(condition,))
        for settlement in answer.settlements
        if settlement.conflict <= len(shown)
        for conflict in [shown[settlement.conflict - 1]]
        for rule, condition in ((conflict.first, settlement.first), (conflict.second, settlement.second))
        if " ".join(condition.split()) != rule.condition
    ]
    editable = {rule.id for conflict in shown for rule in (conflict.first, conflict.second)}
    return apply_edits(rules, edits, editable=editable, labels=(), screen=screen)


def _messages(task: Task, conflicts: Sequence[Conflict]) -> list[BaseMessage]:
    lines = [
        f"Conflict {number}:\n"
        f"first ({conflict.first.label}): {conflict.first.condition}\n"
        f"second ({conflict.second.label}): {conflict.second.condition}"
        for number, conflict in enumerate(conflicts, 1)
    ]
    system = fill("settle", instructions=task.instructions, labels=label_lines(task))
    return [SystemMessage(system), HumanMessage("\n\n".join(lines))]
