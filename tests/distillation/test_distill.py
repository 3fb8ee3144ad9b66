"""Distilling from Python: what is missing is said, notebooks work, several students share a run."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt, adistill, adistill_many, distill, distill_many
from langchain_pld.distillation.plan import Budget, Plan
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.templates import default_text
from langchain_pld.errors import InputError
from tests.distillation.scenarios import (
    PLAN,
    PLAN_WITH_CEILING,
    SETS,
    TASK,
    costly_teacher_script,
    distil,
    revising_teacher_script,
    stubborn_student_script,
    student,
    teacher,
    teacher_script,
    text_of_all,
)
from tests.fakes import FakeChatModel

ROLES: dict[str, Any] = {role: SETS[role] for role in ("train", "validation")}

MISSING: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (distill, {"teacher": None, "student": student()}, "the teacher is None"),
    (distill, {"teacher": teacher(), "student": None}, "the student is None"),
    (distill, {"teacher": "", "student": student()}, "the teacher is ''"),
    (distill_many, {"teacher": None, "students": [student()]}, "the teacher is None"),
    (distill_many, {"teacher": teacher(), "students": [student(), None]}, "the student 2 is None"),
]


@pytest.mark.parametrize(("call", "models", "message"), MISSING)
def test_an_unset_variable_is_no_model(call: Callable[..., Any], models: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(TASK, effort=PLAN, **ROLES, **models)


@pytest.mark.parametrize("call", [adistill, adistill_many])
async def test_an_unknown_effort_lists_the_presets(call: Callable[..., Any]) -> None:
    models: dict[str, Any] = {"student": student()} if call is adistill else {"students": [student()]}
    with pytest.raises(InputError, match="no effort 'lite'; choose 'light', 'medium', 'heavy'"):
        await call(TASK, teacher=teacher(), effort="lite", **ROLES, **models)


async def test_one_name_is_a_list_of_one_student() -> None:
    with pytest.raises(InputError, match="needs students"):
        await adistill_many(TASK, teacher=teacher(), students=[], effort=PLAN, **ROLES)
    with pytest.raises(RuntimeError, match="nowhere"):
        await adistill_many(TASK, teacher=teacher(), students="nowhere:model", effort=PLAN, **ROLES)


async def test_distill_works_inside_a_running_loop() -> None:
    caller = contextvars.ContextVar[str]("caller")
    caller.set("notebook")
    seen: set[str] = set()

    def watched(messages: list[BaseMessage]) -> AIMessage:
        seen.add(caller.get("nobody"))
        return teacher_script(messages)

    made = distill(TASK, teacher=FakeChatModel(script=watched), student=student(), effort=PLAN, **ROLES)
    assert made.rules
    assert seen == {"notebook"}
    many = distill_many(TASK, teacher=teacher(), students=[student()], effort=PLAN, **ROLES)
    assert many["fake-chat:fake"].system_prompt == made.system_prompt


async def test_ctrl_c_ends_a_run_inside_a_running_loop() -> None:
    ended: list[str] = []

    class Slow(FakeChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)  # a notebook's loop leaves Ctrl-C to Python
    try:
        with pytest.raises(KeyboardInterrupt):
            distill(TASK, teacher=Slow(script=teacher_script), student=student(), effort=PLAN, **ROLES)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended


async def test_evaluate_works_inside_a_running_loop() -> None:
    from langchain_pld import PLDClassifier
    from langchain_pld.evaluation import evaluate

    made = await adistill(TASK, teacher=teacher(), student=student(), effort=PLAN, **ROLES)
    guard = PLDClassifier(artifact=made, student=student())
    found = evaluate.evaluate(guard, ROLES["validation"], name="distilled", role="validation")
    assert found.card.rows == 60


async def test_limits_and_the_teachers_wording_are_keywords() -> None:
    writer = teacher()
    brief = default_text("explain") + "\nBe brief."
    artifact = await distil(teacher=writer, max_calls=30, explain_prompt=brief)
    assert artifact.finish_reason == "budget"
    assert "Be brief." in text_of_all(writer.asked)


async def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="no option 'max_dollars'; there are checkpointer, config, effort"):
        await distil(max_dollars=3)


# --- several students


def models() -> tuple[FakeChatModel, FakeChatModel]:
    """A student that follows rules, and one that does not."""
    return student(model="reader"), student(stubborn_student_script, model="stubborn")


async def distilled(
    writer: FakeChatModel, students: Any, plan: Plan = PLAN_WITH_CEILING, **options: Any
) -> dict[str, DistilledPrompt]:
    return await adistill_many(TASK, teacher=writer, students=students, effort=plan, **SETS, **options)


async def test_each_student_gets_its_own_artifact_and_the_teacher_is_asked_once() -> None:
    alone = teacher()
    await adistill(TASK, teacher=alone, student=models()[0], effort=PLAN_WITH_CEILING, **SETS)
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
    await distilled(writer, models(), PLAN_WITH_CEILING.model_copy(update={"rounds": 1, "ceiling": None}))
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
    plan = PLAN_WITH_CEILING.model_copy(update={"prices": prices})
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
    with pytest.raises(InputError, match=r"a run needs students with different names; got (none|fake-chat:reader)"):
        await distilled(teacher(), students)


def test_code_without_an_event_loop_gets_the_same_prompts() -> None:
    found = distill_many(TASK, teacher=teacher(), students=models(), effort=PLAN_WITH_CEILING, **SETS)
    awaited = asyncio.run(distilled(teacher(), models()))
    assert [one.system_prompt for one in found.values()] == [one.system_prompt for one in awaited.values()]


def test_a_run_in_a_notebook_shows_its_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(logging.getLogger("langchain_pld"), "propagate", False)
    distill(TASK, teacher=teacher(), student=student(), effort=PLAN, **SETS)
    assert "generate: " in capsys.readouterr().err


def test_a_script_logs_its_progress_or_prints_it(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("INFO", logger="langchain_pld"):
        distill(TASK, teacher=teacher(), student=student(), effort=PLAN, **SETS)
    assert any(record.message.startswith("generate: ") for record in caplog.records)
    assert capsys.readouterr().err == ""
    distill(TASK, teacher=teacher(), student=student(), effort=PLAN, on_progress=print, **SETS)
    assert "generate: teacher explains examples, 1/" in capsys.readouterr().out
