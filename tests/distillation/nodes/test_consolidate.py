"""Merged rules: what the screen refuses is asked for once more; then the strongest micro-rule stands in for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld.distillation.nodes.consolidate import consolidate
from langchain_pld.distillation.nodes.critique import critique
from langchain_pld.distillation.nodes.extract import extract
from langchain_pld.distillation.nodes.generate import generate
from langchain_pld.distillation.rules.clustering import Clustering
from langchain_pld.rules import MicroRule
from tests.distillation.scenarios import TASK, rows, run_nodes, student_script, teacher_script
from tests.fakes import FakeChatModel

GOOD = "If the text is about an invoice that was sent"
WORTHLESS = "If the text meets the criteria for the 'amber' label"


def merging(answer: Callable[[bool], str]) -> tuple[FakeChatModel, list[str]]:
    """A teacher that merges amber conditions to what the answer says, told whether it is asked again."""
    questions: list[str] = []

    def script(messages: list[BaseMessage]) -> AIMessage:
        question = str(messages[1].text)
        if "Conditions:" not in question or 'label is "amber"' not in question:
            return teacher_script(messages)
        questions.append(question)
        return AIMessage(json.dumps({"shared": "s", "condition": answer(len(questions) > 1)}))

    return FakeChatModel(script=script), questions


async def merged(teacher: FakeChatModel) -> dict[str, Any]:
    sets: Any = {"train": rows("train", 12), "validation": rows("validation", 20)}
    nodes = (generate, extract, critique, consolidate)
    student = FakeChatModel(script=student_script)
    return await run_nodes(
        *nodes, task=TASK, sets=sets, teacher=teacher, student=student, rules_per_label=1, train_examples=8
    )


async def test_a_merged_rule_that_rests_on_its_label_is_asked_for_once_more_with_the_reason() -> None:
    teacher, questions = merging(lambda again: "If the text speaks of a bill to be paid" if again else WORTHLESS)
    state = await merged(teacher)
    assert [rule.condition for rule in state["rules"] if rule.label == "amber"] == [
        "If the text speaks of a bill to be paid"
    ]
    assert len(questions) == 2
    assert questions[1].startswith(questions[0])
    assert "Do not write a label" in questions[1]
    assert "became 2 rules, clusters of amber 4; violet 4" in state["log"]
    assert "amber: the rule of 4 micro-rules rests on a label instead of the text" in state["log"]


async def test_a_run_tells_how_many_micro_rules_of_a_label_are_in_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_last(micro_rules: Sequence[MicroRule], *_: Any, **__: Any) -> Clustering:
        return Clustering((tuple(micro_rules[:-1]),), tuple(micro_rules[-1:]), ())

    monkeypatch.setattr("langchain_pld.distillation.nodes.consolidate.cluster_label", without_the_last)
    state = await merged(FakeChatModel(script=teacher_script))
    assert "clusters of amber 3 (1 in no cluster); violet 3 (1 in no cluster)" in state["log"]


async def test_where_the_second_answer_is_no_better_the_strongest_micro_rule_stands_for_the_cluster() -> None:
    teacher, questions = merging(lambda _: WORTHLESS)
    state = await merged(teacher)
    (amber,) = [rule for rule in state["rules"] if rule.label == "amber"]
    assert len(questions) == 2
    assert amber.condition == GOOD
    assert amber.support == 4, "it stands for all of the cluster"
    assert "its strongest one stands for them" in state["log"]


async def test_a_merged_rule_that_copies_a_text_is_asked_for_once_more_as_well() -> None:
    copied = "If the text is an invoice note train number 3"
    teacher, questions = merging(lambda again: GOOD if again else copied)
    state = await merged(teacher)
    assert GOOD in {rule.condition for rule in state["rules"]}
    assert "Leave out the number" in questions[1] or "Do not use the words" in questions[1]
