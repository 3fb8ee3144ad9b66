"""The first pass of critique: what leaves, why, and what a bad judgement cannot do."""

from __future__ import annotations

import json

from langchain_core.messages import AIMessage

from langchain_pld import Example
from langchain_pld.distillation.nodes.critique import critique, screen_micro_rules
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import MicroRule
from tests.distillation.scenarios import TASK, run_nodes
from tests.fakes import FakeChatModel

SCREEN = Screen.of(TASK, [])


def micro(condition: str, label: str = "amber", source: str = "row") -> MicroRule:
    return MicroRule(label=label, condition=condition, source=source)


async def judged(answer: object, *drafts: MicroRule) -> tuple[list[str], str, FakeChatModel]:
    teacher = FakeChatModel(script=lambda _: AIMessage(answer if isinstance(answer, str) else json.dumps(answer)))

    train = ExampleSet.of([Example(id="row", input="a text", label="amber")], TASK)
    before = {"micro_rules": list(drafts)}
    state = await run_nodes(critique, task=TASK, sets={"train": train}, teacher=teacher, state=before, judge=True)
    return [one.condition for one in state["micro_rules"]], state["log"], teacher


def test_the_same_condition_for_two_labels_goes_out_on_both_sides() -> None:
    drafts = [
        micro("If the text is about money"),
        micro("if the text is about Money.", "violet", "b"),
        micro("If it is new"),
    ]
    kept, reasons = screen_micro_rules(drafts, SCREEN)
    assert kept == [drafts[2]]
    assert reasons == ["argue for several labels at once"] * 2


def test_a_wrong_label_against_many_right_ones_goes_out_alone() -> None:
    right = [micro("If the text is about an unpaid bill", source=str(n)) for n in range(4)]
    kept, reasons = screen_micro_rules(
        [micro("If the text is about an unpaid bill", "violet", "wrong"), *right], SCREEN
    )
    assert kept == right
    assert reasons == ["argue for several labels at once"]


def test_a_negation_makes_another_condition() -> None:
    drafts = [
        micro("If the text does mention an unpaid bill"),
        micro("If the text does not mention an unpaid bill", "violet"),
    ]
    assert screen_micro_rules(drafts, SCREEN) == (drafts, [])


def test_a_label_that_the_task_does_not_have_goes_out() -> None:
    kept, reasons = screen_micro_rules([micro("If the text is about money", "green")], SCREEN)
    assert (kept, reasons) == ([], ["argue for a label that the task does not have"])


async def test_the_teacher_drops_a_family_with_its_reason_and_judges_it_once() -> None:
    drafts = [
        micro("If the text is a text", source="a"),
        micro("If the text is a text.", source="b"),
        micro("If it speaks of an unpaid bill", source="c"),
        micro("If it speaks of a sum of money", source="d"),
    ]
    kept, said, teacher = await judged({"drop": [{"number": 1, "reason": "true of any text"}]}, *drafts)
    assert kept == [drafts[2].condition, drafts[3].condition]
    assert "out for amber: 'If the text is a text': true of any text" in said
    assert len(teacher.asked) == 1
    assert str(teacher.asked[0][1].text).count("is a text") == 1


async def test_a_judgement_that_cannot_be_read_keeps_the_rules_and_says_so() -> None:
    kept, said, _ = await judged("I would rather not.", micro("If it speaks of an unpaid bill"))
    assert kept == ["If it speaks of an unpaid bill"]
    assert "1 conditions of amber not judged and kept" in said


async def test_a_judgement_that_condemns_most_is_not_followed() -> None:
    drafts = [micro("If it speaks of an unpaid bill"), micro("If it speaks of a sum of money", source="b")]
    everything = {"drop": [{"number": n, "reason": "bad"} for n in (1, 2)]}
    kept, said, _ = await judged(everything, *drafts)
    assert len(kept) == 2
    assert "a judgement that would drop 2 of 2 conditions of amber is not followed" in said


async def test_a_dozen_conditions_of_one_label_are_one_call() -> None:
    words = [
        "bill",
        "money",
        "train",
        "river",
        "house",
        "garden",
        "doctor",
        "school",
        "dinner",
        "winter",
        "music",
        "paper",
        "horse",
    ]
    drafts = [micro(f"If it speaks of a {word}", source=word) for word in words]
    _, _, teacher = await judged({"drop": [{"number": 99, "reason": "no such condition"}]}, *drafts)
    assert len(teacher.asked) == 2
