"""Several students in one run: the teacher is paid once, each student gets its own prompt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt, adistill, adistill_many, distill_many
from langchain_pld.distillation.budget import Budget
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.errors import InputError
from tests.distillation.scenarios import (
    PLAN_WITH_CEILING as PLAN,
)
from tests.distillation.scenarios import (
    SETS,
    TASK,
    costly_teacher_script,
    revising_teacher_script,
    stubborn_student_script,
    student,
    teacher,
)
from tests.fakes import FakeChatModel


def models() -> tuple[FakeChatModel, FakeChatModel]:
    """A student that follows rules, and one that does not."""
    return student(model="reader"), student(stubborn_student_script, model="stubborn")


async def distilled(
    writer: FakeChatModel, students: Any, plan: Plan = PLAN, **options: Any
) -> dict[str, DistilledPrompt]:
    return await adistill_many(TASK, teacher=writer, students=students, effort=plan, **SETS, **options)


async def test_each_student_gets_its_own_artifact_and_the_teacher_is_asked_once() -> None:
    alone = teacher()
    await adistill(TASK, teacher=alone, student=models()[0], effort=PLAN, **SETS)
    writer = teacher()
    found = await distilled(writer, models())
    assert list(found) == ["fake-chat:reader", "fake-chat:stubborn"]
    assert len(writer.asked) == len(alone.asked)
    reader, other = found.values()
    assert reader.rules
    assert reader.student.spec == "fake-chat:reader"
    assert (other.rules, other.finish_reason) == ((), "no_gain")
    assert sum(line.calls for line in other.ledger if line.model == "fake-chat:fake") == 0
    assert sum(line.cache_hits for line in other.ledger if line.node == "generate") == 8


async def test_the_teacher_is_asked_about_each_students_own_mistakes() -> None:
    writer = teacher(revising_teacher_script)
    await distilled(writer, models(), PLAN.model_copy(update={"rounds": 1, "ceiling": None}))
    asked = ["\n".join(str(message.text) for message in messages) for messages in writer.asked]
    assert len(set(asked)) == len(asked)
    assert any("You correct the rules" in question for question in asked)


async def test_a_run_goes_on_with_the_student_that_was_not_finished() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    reader, other = models()

    def power_cut(progress: Progress) -> None:
        if progress.node == "student" and progress.step == "fake-chat:stubborn":
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        await distilled(teacher(), (reader, other), on_progress=power_cut, **kept)
    assert reader.asked
    reader, other = models()
    silent = teacher(lambda _: AssertionError("asked"))
    found = await distilled(silent, (reader, other), **kept)
    assert reader.asked == []
    assert silent.asked == []
    assert found["fake-chat:reader"].rules
    whole = await distilled(teacher(), models())
    assert [one.system_prompt for one in found.values()] == [one.system_prompt for one in whole.values()]


async def test_the_students_share_one_budget_and_costs_are_told_of_all() -> None:
    prices = {
        "fake": Price(input=1.0, output=1.0),
        "reader": Price(input=1.0, output=1.0),
        "stubborn": Price(input=1, output=1),
    }
    plan = PLAN.model_copy(update={"prices": prices})
    seen: list[Progress] = []
    whole = await distilled(teacher(costly_teacher_script), models(), plan, on_progress=seen.append)
    calls = {spec: sum(line.calls for line in one.ledger) for spec, one in whole.items()}
    costs = [line.cost or 0.0 for one in whole.values() for line in one.ledger]
    assert [progress.cost for progress in seen if progress.cost][-1] == pytest.approx(sum(costs))
    budget = Budget(calls=calls["fake-chat:reader"] + 30)
    found = await distilled(teacher(costly_teacher_script), models(), plan.model_copy(update={"budget": budget}))
    assert found["fake-chat:reader"].system_prompt == whole["fake-chat:reader"].system_prompt
    assert found["fake-chat:stubborn"].finish_reason == "budget"
    assert sum(line.calls for line in found["fake-chat:stubborn"].ledger) <= 30 + 25


@pytest.mark.parametrize("students", [[], [models()[0], models()[0]]])
async def test_no_student_and_two_of_one_name_are_refused(students: list[FakeChatModel]) -> None:
    with pytest.raises(InputError, match=r"a run needs students, each of another name; got (none|fake-chat:reader)"):
        await distilled(teacher(), students)


def test_code_without_an_event_loop_gets_the_same_prompts() -> None:
    found = distill_many(TASK, teacher=teacher(), students=models(), effort=PLAN, **SETS)
    awaited = asyncio.run(distilled(teacher(), models()))
    assert [one.system_prompt for one in found.values()] == [one.system_prompt for one in awaited.values()]
