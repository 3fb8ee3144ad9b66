"""Every call of a whole run is watched: who sees rows of which role, and when."""

from __future__ import annotations

import json

from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import Example, adistill
from langchain_pld.distillation.plan import PLANS
from langchain_pld.examples import ExampleSet
from tests.distillation.poisoned import TASK, subject
from tests.fakes import FakeChatModel, scored, text_of


def rows(role: str, count: int, *, unlabelled: int = 0, violet: int | None = None) -> ExampleSet:
    """Half parcels, or that many; each text names its role."""
    made = []
    for n in range(count + unlabelled):
        parcel = n < violet if violet is not None and n < count else n % 2 == 0
        label = ("violet" if parcel else "amber") if n < count else None
        made.append(
            Example(id=f"{role}-{n}", input=f"{'parcel' if parcel else 'invoice'} of {role}row, {n}", label=label)
        )
    return ExampleSet.of(made, TASK, source=role)


def teacher(messages: list[BaseMessage]) -> AIMessage:
    text = text_of(messages)
    answer = {
        "reason": "r",
        "label": "violet" if "parcel" in text else "amber",
        "texts": ["a parcel that looks like a bill"],
        "shared": "s",
        "condition": f"If the text is about {subject(text)} that came",
        "cues": ["subject"],
        "drop": [],
        "cause": "c",
        "edits": [],
        "settlements": [],
    }
    return AIMessage(json.dumps(answer))


def student(messages: list[BaseMessage]) -> AIMessage:
    """Wrong about every fifth row, so that there are mistakes to learn from."""
    violet = ("parcel" in text_of(messages)) != (text_of(messages)[-1] in "05")
    return scored({"amber": 0.2, "violet": 0.8} if violet else {"amber": 0.9, "violet": 0.1})


async def test_a_test_row_reaches_the_student_alone_and_only_after_the_last_other_call() -> None:
    calls: list[tuple[str, str]] = []

    def watched(who: str, script: object) -> FakeChatModel:
        def write_down(messages: list[BaseMessage]) -> AIMessage:
            calls.append((who, "\n".join(str(message.text) for message in messages)))
            return script(messages)  # type: ignore[operator, no-any-return]

        return FakeChatModel(script=write_down)

    plan = PLANS["heavy"].model_copy(
        update={
            "train_examples": 24,
            "synthetic_per_small_label": 2,
            "answer_forms": ("names",),
            "rounds": 2,
            "trials": 4,
        }
    )
    artifact = await adistill(
        TASK,
        train=rows("train", 60, violet=5),
        validation=rows("validation", 50),
        test=rows("test", 20),
        teacher=watched("teacher", teacher),
        student=watched("student", student),
        effort=plan,
    )
    told = [text for who, text in calls if who == "teacher"]
    assert any("trainrow" in text for text in told)
    assert not [text for text in told if "validationrow" in text or "testrow" in text]
    assert "trainrow" not in artifact.system_prompt
    reads_test = ["testrow" in text for _, text in calls]
    assert any(reads_test)
    assert reads_test == sorted(reads_test), "a call that reads no test row came after one that does"
    assert {card.role for card in artifact.scores} == {"validation", "test"}


async def test_unlabelled_train_rows_are_voted_on_and_no_other_role_is() -> None:
    asked: list[str] = []

    def voting(messages: list[BaseMessage]) -> AIMessage:
        if "You label texts" in str(messages[0].text):
            asked.append(text_of(messages))
        return teacher(messages)

    artifact = await adistill(
        TASK,
        train=rows("train", 10, unlabelled=8),
        validation=rows("validation", 50),
        test=rows("test", 20),
        teacher=FakeChatModel(script=voting),
        student=FakeChatModel(script=student),
        effort=PLANS["light"],
    )
    assert len(asked) == 24
    assert all("trainrow" in text for text in asked)
    assert artifact.data["train"].rows == 18
