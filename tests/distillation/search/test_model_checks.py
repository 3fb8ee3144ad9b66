"""Each model is checked before the first paid call: which one, what is missing, what to do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from langchain_pld import adistill_many
from langchain_pld.errors import DistillationError, ModelSetupError, StudentError
from tests.distillation.scenarios import PLAN, SETS, TASK, distil, student, teacher, teacher_script
from tests.fakes import FakeChatModel, FakeEmbeddings

DOWN = httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (DOWN, "the student fake-chat:fake cannot be used: no connection .* is its server running"),
        (AIMessage("I would rather not say."), "the student fake-chat:fake cannot be used: .*"),
    ],
    ids=["unreachable", "unreadable"],
)
async def test_a_student_that_cannot_be_used_costs_no_teacher(reply: Any, message: str) -> None:
    writer = teacher()
    with pytest.raises(StudentError, match=message):
        await distil(teacher=writer, student=student(lambda _: reply))
    assert writer.asked == []


async def test_all_students_are_checked_before_the_first_one_is_served() -> None:
    writer, first = teacher(), student(model="first")
    students = [first, student(lambda _: DOWN, model="second")]
    with pytest.raises(StudentError, match="the student fake-chat:second cannot be used"):
        await adistill_many(TASK, teacher=writer, students=students, effort=PLAN, **SETS)
    assert writer.asked == []
    assert len(first.asked) == 1


async def test_a_student_is_checked_once_and_that_is_in_the_ledger() -> None:
    reader = student(model="student")
    artifact = await distil(student=reader)
    assert sum(line.calls for line in artifact.ledger if line.model == "fake-chat:student") == len(reader.asked)
    questions = [tuple(str(one.text) for one in messages) for messages in reader.asked if len(messages) == 2]
    assert len(set(questions)) >= len(questions) - 1  # the check and the row itself


class PermissionDenied(Exception):  # noqa: N818  # as a client calls it
    status_code = 401


async def test_a_teacher_that_is_not_there_is_asked_one_question() -> None:
    absent = teacher(lambda _: PermissionDenied())
    with pytest.raises(DistillationError, match=r"the teacher fake-chat:fake cannot be used: .* refused the key"):
        await distil(teacher=absent)
    assert len(absent.asked) == 1


class PlainFakeChatModel(FakeChatModel):
    """A chat model whose class knows no structured output."""

    with_structured_output = BaseChatModel.with_structured_output


@pytest.mark.parametrize("many", [False, True])
async def test_a_teacher_that_cannot_answer_as_json_is_refused_before_anything_is_asked(many: bool) -> None:
    plain, reader = PlainFakeChatModel(script=teacher_script), student()
    with pytest.raises(ModelSetupError, match="cannot be the teacher: its class PlainFakeChatModel has no with_struct"):
        if many:
            await adistill_many(TASK, teacher=plain, students=[reader, student(model="b")], effort=PLAN, **SETS)
        else:
            await distil(teacher=plain, student=reader)
    assert (plain.asked, reader.asked) == ([], [])


async def test_embeddings_that_are_not_there_cost_no_teacher() -> None:
    writer = teacher()
    with pytest.raises(DistillationError, match="FakeEmbeddings returned no usable vectors"):
        await distil(teacher=writer, embeddings=FakeEmbeddings(size=4, failing=True))
    assert writer.asked == []
