"""Each model is looked at before the first paid call: which one, what is missing, what to do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld import adistill, adistill_many
from langchain_pld.errors import DistillationError, ModelSetupError, StudentError
from tests.distillation.scenarios import PLAN, TASK, rows, student_script, teacher_script
from tests.fakes import FakeChatModel

SETS: dict[str, Any] = {"train": rows("train", 12), "validation": rows("validation", 60)}
DOWN = httpx.ConnectError("refused")


def teacher() -> FakeChatModel:
    return FakeChatModel(script=teacher_script)


def student(script: Any = student_script, name: str = "student") -> FakeChatModel:
    return FakeChatModel(script=script, model=name)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (DOWN, "the student fake-chat:student cannot be used: no connection .* is its server running"),
        (AIMessage("I would rather not say."), "the student fake-chat:student cannot be used: .*"),
    ],
    ids=["unreachable", "unreadable"],
)
async def test_a_student_that_cannot_be_used_costs_no_teacher(reply: Any, message: str) -> None:
    asked = teacher()
    with pytest.raises(StudentError, match=message):
        await adistill(TASK, teacher=asked, student=student(lambda _: reply), effort=PLAN, **SETS)
    assert asked.asked == []


async def test_all_students_are_looked_at_before_the_first_one_is_served() -> None:
    asked, first = teacher(), student(name="first")
    with pytest.raises(StudentError, match="the student fake-chat:second cannot be used"):
        await adistill_many(
            TASK, teacher=asked, students=[first, student(lambda _: DOWN, "second")], effort=PLAN, **SETS
        )
    assert asked.asked == []
    assert len(first.asked) == 1


async def test_a_look_is_taken_once_and_is_in_the_ledger() -> None:
    store = InMemoryStore()
    decider = student()
    made = await adistill(TASK, teacher=teacher(), student=decider, effort=PLAN, store=store, **SETS)
    calls = sum(line.calls for line in made.ledger if line.model == "fake-chat:student")
    assert calls == len(decider.asked)
    systems = [str(messages[0].text) for messages in decider.asked if len(messages) == 2]
    texts = [str(messages[-1].text) for messages in decider.asked if len(messages) == 2]
    assert len({*zip(systems, texts, strict=True)}) >= len(systems) - 1  # the first look and the row itself


async def test_a_teacher_that_is_not_there_is_asked_one_question() -> None:
    absent = FakeChatModel(script=lambda _: PermissionDenied())
    with pytest.raises(DistillationError, match=r"the teacher fake-chat:fake cannot be used: .* refused the key"):
        await adistill(TASK, teacher=absent, student=student(), effort=PLAN, **SETS)
    assert len(absent.asked) == 1


class PermissionDenied(Exception):  # noqa: N818  # as a client calls it
    status_code = 401


class Plain(FakeChatModel):
    """A chat model whose class knows no structured output."""

    with_structured_output = BaseChatModel.with_structured_output


@pytest.mark.parametrize("many", [False, True])
async def test_a_teacher_that_cannot_answer_as_json_is_refused_before_anything_is_asked(many: bool) -> None:
    plain, decider = Plain(script=teacher_script), student()
    call: Any = adistill_many if many else adistill
    models: dict[str, Any] = {"students": [decider, student(name="b")]} if many else {"student": decider}
    with pytest.raises(ModelSetupError, match="cannot be the teacher: its class Plain has no with_structured_output"):
        await call(TASK, teacher=plain, effort=PLAN, **SETS, **models)
    assert (plain.asked, decider.asked) == ([], [])


async def test_embeddings_that_are_not_there_cost_no_teacher() -> None:
    class Absent(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError

    asked = teacher()
    with pytest.raises(DistillationError, match="Absent gave no usable vectors"):
        await adistill(TASK, teacher=asked, student=student(), embeddings=Absent(size=4), effort=PLAN, **SETS)
    assert asked.asked == []
