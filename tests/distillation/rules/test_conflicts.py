"""Rules of different labels that say nearly the same are found and told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from langchain_core.messages import AIMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld.distillation.rules.conflicts import find_conflicts, resolve_conflicts
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.teacher import Teacher
from langchain_pld.rules import Rule
from tests.fakes import FakeChatModel
from tests.teams import TASK

SUBJECTS = {"amber": "late invoices", "violet": "late bills", "green": "garden tools"}
RULES = tuple(Rule.added(label, f"If the text speaks of {subject}", ()) for label, subject in SUBJECTS.items())
VECTORS = np.array([[1.0, 0.0], [0.96, 0.28], [0.6, 0.8]])


def test_conflicts_are_similar_rules_of_different_labels_the_most_similar_first() -> None:
    conflicts = find_conflicts(RULES, VECTORS, similarity=0.79)
    assert [(one.first.label, one.second.label) for one in conflicts] == [("amber", "violet"), ("violet", "green")]
    assert conflicts[0].similarity == pytest.approx(0.96)
    same_label = [rule.model_copy(update={"label": "amber"}) for rule in RULES]
    assert find_conflicts(same_label, VECTORS, similarity=0.5) == []


async def resolved(answer: str) -> tuple[tuple[Rule, ...], list[str]]:
    teacher = Teacher(
        FakeChatModel(script=lambda _: AIMessage(answer)), node="consolidate", store=InMemoryStore(), concurrency=1
    )
    conflicts = find_conflicts(RULES, VECTORS, similarity=0.9)
    return await resolve_conflicts(RULES, conflicts, teacher, Screen(task=TASK))


async def test_only_conflicting_rules_are_rewritten() -> None:
    settlement = {"difference": "who pays", "first": RULES[0].condition, "second": "If the text speaks of unpaid bills"}
    settlements = [{"conflict": 1, **settlement}, {"conflict": 2, **settlement}]
    rules, log = await resolved(json.dumps({"settlements": settlements}))
    assert [rule.condition for rule in rules] == [
        RULES[0].condition,
        "If the text speaks of unpaid bills",
        RULES[2].condition,
    ]
    assert len(log) == 1


async def test_without_a_usable_answer_the_rules_stay() -> None:
    rules, log = await resolved("I would rather not.")
    assert rules == RULES
    assert log[0].startswith("1 conflicts stay: ")
