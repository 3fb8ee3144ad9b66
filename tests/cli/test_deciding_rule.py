"""The rule behind a verdict, found by taking rules out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import DistilledPrompt, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration
from langchain_pld.cli.deciding_rule import DecidingRule, deciding_rule
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import fingerprint_of
from tests.fakes import FakeChatModel, scored

TASK = Task(name="mail", instructions="Sort the mail.", labels=[{"name": "post"}, {"name": "bills"}])
RULES = tuple(
    Rule.merged(label, f"If the text is about {subject}.", ())
    for label, subject in (("post", "parcels"), ("post", "stamps"), ("post", "letters"), ("bills", "money"))
)


def behind(chances: Mapping[str | None, float]) -> tuple[DecidingRule | None, FakeChatModel]:
    """What is found where the student's chance for `post` without a rule is that of the rule's subject."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        missing = next(
            (s for s in ("parcels", "stamps", "letters", "money") if s not in str(messages[0].content)), None
        )
        post = chances.get(missing, 0.9)
        return scored({"post": post, "bills": 1 - post})

    student = FakeChatModel(script=script)
    answer = AnswerFormat.words(TASK)
    artifact = DistilledPrompt(
        task=TASK,
        rules=RULES,
        system_prompt=compile_prompt(TASK, RULES, answer),
        answer=answer,
        scorer="logprobs",
        calibration=Calibration.identity(answer.labels),
        student=fingerprint_of(student),
    )
    verdict = PLDClassifier(artifact=artifact, student=student).invoke("hello")
    student.asked.clear()
    return deciding_rule(artifact, student, "hello", verdict), student


def test_a_rule_without_which_the_decision_changes_ends_the_search() -> None:
    found, student = behind({"parcels": 0.7, "stamps": 0.3, "letters": 0.1})
    assert found is not None
    assert found.rule == RULES[1]
    assert found.without.label == "bills"
    assert len(student.asked) == 2


def test_else_it_is_the_rule_that_costs_the_label_most() -> None:
    found, student = behind({"parcels": 0.85, "stamps": 0.6, "letters": 0.8, "money": 0.1})
    assert found is not None
    assert found.rule == RULES[1]
    assert found.without.probabilities == pytest.approx({"post": 0.6, "bills": 0.4})
    assert len(student.asked) == 3


def test_where_no_rule_matters_none_is_named() -> None:
    found, _ = behind({"parcels": 0.95})
    assert found is None
