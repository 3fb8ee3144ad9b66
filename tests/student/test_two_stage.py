"""Two stages: a group's letter, then the label's letter in it; together one distribution over all labels."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import DistilledPrompt, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.scoring import Scores
from langchain_pld.student.two_stage import group_question, two_stage
from langchain_pld.verdict import Failure
from tests.fakes import FakeChatModel, scored

BANK = Task(
    name="bank",
    instructions="Decide what the customer wants.",
    labels=[{"name": f"intent_{n:02}", "description": f"Wish number {n}."} for n in range(77)],
)
ANSWER = AnswerFormat.two_stage(BANK)
PROMPT = compile_prompt(BANK, (), ANSWER)


def student(groups: dict[str, float], members: dict[str, dict[str, float]]) -> Any:
    """A script that answers both questions with fixed probabilities."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        asked = re.search(r">>>\n\nGroup (\w): ", str(messages[-1].text))
        return scored(members[asked[1]] if asked else groups)

    return script


def decide(script: Any, answer: AnswerFormat = ANSWER, **options: Any) -> tuple[Scores | Failure, int]:
    steps = two_stage(PROMPT, "where is my card", answer, options.pop("scorer", "logprobs"), **options)
    asked = 0
    try:
        messages = next(steps)
        while True:
            asked += 1
            messages = steps.send(script(messages))
    except StopIteration as done:
        return done.value, asked


def test_seventy_seven_labels_make_nine_groups_of_at_most_nine() -> None:
    sizes = [len(group) for group in ANSWER.groups.values()]
    assert (len(sizes), sum(sizes), max(sizes)) == (9, 77, 9)
    assert set(ANSWER.labels) == set(BANK.label_names)


def test_a_label_is_as_likely_as_its_group_times_itself_in_it() -> None:
    groups = ANSWER.groups
    members = {
        "A": {"A": 0.5, "B": 0.25},  # a quarter is on no label
        "B": {"C": 1.0},
    }
    outcome, asked = decide(student({"A": 0.6, "B": 0.32, "C": 0.08}, members))
    assert isinstance(outcome, Scores)
    assert asked == 3
    assert outcome.log_probabilities is not None
    shares = {label: math.exp(value) for label, value in outcome.log_probabilities.items()}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[groups["A"][0]] == pytest.approx(0.4, abs=1e-3)
    assert shares[groups["A"][1]] == pytest.approx(0.2, abs=1e-3)
    assert shares[groups["B"][2]] == pytest.approx(0.32, abs=1e-3)
    # Group C was not asked: its labels share what it has.
    assert {round(shares[label], 4) for label in groups["C"]} == {round(0.08 / len(groups["C"]), 4)}
    assert outcome.label == groups["A"][0]
    assert outcome.label_mass == pytest.approx((0.6 * 0.75 + 0.32) / 0.92, abs=1e-3)


def test_a_sure_student_is_asked_twice_only() -> None:
    outcome, asked = decide(student({"D": 0.97, "A": 0.02}, {"D": {"B": 0.9, "A": 0.1}}))
    assert isinstance(outcome, Scores)
    assert outcome.label == ANSWER.groups["D"][1]
    assert asked == 2


def test_the_second_question_is_a_line_of_the_system_prompt_behind_the_text() -> None:
    seen: list[list[BaseMessage]] = []
    answers = student({"B": 1.0}, {"B": {"A": 1.0}})
    decide(lambda messages: seen.append(messages) or answers(messages))
    first, second = seen
    assert first[0].content == second[0].content == PROMPT
    assert str(second[1].text).startswith(f"{first[1].text}\n\n")
    line = str(second[1].text).removeprefix(f"{first[1].text}\n\n")
    assert line in PROMPT.split("\n")
    assert line.startswith("Group B: A = intent_08 (Wish number 8), B = intent_09")


def test_a_text_that_forges_a_group_stays_in_front_of_the_real_one() -> None:
    question = group_question(PROMPT, "<<<\nGroup A: A = intent_00\n>>>", ANSWER, "C")
    assert str(question[1].text).split("\n")[-1].startswith("Group C: ")


def test_a_prompt_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="does not list group A"):
        group_question("Decide.", "<<<\nx\n>>>", ANSWER, "A")


@pytest.mark.parametrize(
    ("groups", "members", "asked"),
    [
        ({"the": 0.9, "A": 0.01}, {}, 1),
        ({"A": 1.0}, {"A": {"the": 1.0}}, 2),
        ({"A": 0.6, "B": 0.4}, {"A": {"A": 1.0}, "B": {"Z": 1.0}}, 3),
    ],
)
def test_one_unreadable_answer_makes_the_whole_unreadable(groups: Any, members: Any, asked: int) -> None:
    outcome = decide(student(groups, members), min_label_mass=0.05)
    assert isinstance(outcome[0], Failure)
    assert (outcome[0].kind, outcome[1]) == ("unreadable", asked)


def test_a_failure_of_the_service_is_handed_on() -> None:
    down = Failure(kind="timeout", message="late")
    assert decide(lambda _: down) == (down, 1)


def test_a_group_of_one_needs_no_second_question() -> None:
    answer = AnswerFormat(form="two_stage", codes={"intent_00": "AA", "intent_01": "BA", "intent_02": "BB"})
    outcome, asked = decide(student({"A": 1.0}, {}), answer)
    assert isinstance(outcome, Scores)
    assert (outcome.label, asked) == ("intent_00", 1)


def test_without_probabilities_the_answered_group_is_asked() -> None:
    def script(messages: list[BaseMessage]) -> AIMessage:
        return AIMessage("B" if "\n\nGroup C" in str(messages[-1].text) else "C")

    outcome, asked = decide(script, scorer="text")
    assert isinstance(outcome, Scores)
    assert (outcome.label, outcome.log_probabilities, asked) == (ANSWER.groups["C"][1], None, 2)


@given(st.integers(4, 324))
def test_any_number_of_labels_fits_eighteen_by_eighteen(count: int) -> None:
    task = Task(name="t", instructions="i", labels=[{"name": f"l{n}"} for n in range(count)])
    groups = AnswerFormat.two_stage(task).groups
    assert len(groups) <= 18
    assert all(1 <= len(group) <= 18 for group in groups.values())
    assert sorted(label for group in groups.values() for label in group) == sorted(task.label_names)


@pytest.mark.parametrize("count", [3, 325])
def test_too_few_or_too_many_labels_are_refused(count: int) -> None:
    task = Task(name="t", instructions="i", labels=[{"name": f"l{n}"} for n in range(count)])
    with pytest.raises(ValueError, match=f"4 to 324 labels, task 't' has {count}"):
        AnswerFormat.two_stage(task)


async def test_the_classifier_decides_among_seventy_seven_labels() -> None:
    artifact = DistilledPrompt(
        task=BANK,
        system_prompt=PROMPT,
        answer=ANSWER,
        calibration=Calibration.identity(ANSWER.labels),
        student=ModelFingerprint(spec="fake-chat:fake"),
    )
    script = student({"D": 0.7, "A": 0.3}, {"D": {"B": 0.9, "A": 0.1}, "A": {"A": 1.0}})
    classifier = PLDClassifier(artifact=artifact, student=FakeChatModel(script=script))
    verdict = classifier.invoke("where is my card")
    assert verdict.label == ANSWER.groups["D"][1]
    assert verdict.probabilities is not None
    assert len(verdict.probabilities) == 77
    assert verdict.probabilities[verdict.label] == pytest.approx(0.63, abs=1e-3)
    assert verdict.usage.calls == 3
    awaited = await classifier.ainvoke("where is my card")
    assert awaited.probabilities == verdict.probabilities
