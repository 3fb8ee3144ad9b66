"""The way in from Python: what is missing is said, and a notebook is a good place to begin."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import adistill, adistill_many, distill, distill_many
from langchain_pld.distillation.config import DistillConfig, DistillSettings
from langchain_pld.distillation.templates import default_text
from langchain_pld.errors import InputError
from tests.distillation.scenarios import PLAN, TASK, distil, rows, student, teacher, teacher_script, text_of_all
from tests.fakes import FakeChatModel

SETS: dict[str, Any] = {"train": rows("train", 12), "validation": rows("validation", 60)}


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
        call(TASK, effort=PLAN, **SETS, **models)


@pytest.mark.parametrize("call", [adistill, adistill_many])
async def test_an_unknown_effort_lists_the_presets(call: Callable[..., Any]) -> None:
    models: dict[str, Any] = {"student": student()} if call is adistill else {"students": [student()]}
    with pytest.raises(InputError, match="no effort 'lite'; choose 'light', 'medium', 'heavy'"):
        await call(TASK, teacher=teacher(), effort="lite", **SETS, **models)


async def test_one_name_is_a_list_of_one_student() -> None:
    with pytest.raises(InputError, match="needs students"):
        await adistill_many(TASK, teacher=teacher(), students=[], effort=PLAN, **SETS)
    with pytest.raises(RuntimeError, match="nowhere"):
        await adistill_many(TASK, teacher=teacher(), students="nowhere:model", effort=PLAN, **SETS)


async def test_distill_works_inside_a_running_loop() -> None:
    caller = contextvars.ContextVar[str]("caller")
    caller.set("notebook")
    seen: set[str] = set()

    def watched(messages: list[BaseMessage]) -> AIMessage:
        seen.add(caller.get("nobody"))
        return teacher_script(messages)

    made = distill(TASK, teacher=FakeChatModel(script=watched), student=student(), effort=PLAN, **SETS)
    assert made.rules
    assert seen == {"notebook"}
    many = distill_many(TASK, teacher=teacher(), students=[student()], effort=PLAN, **SETS)
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
            distill(TASK, teacher=Slow(script=teacher_script), student=student(), effort=PLAN, **SETS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended


async def test_evaluate_works_inside_a_running_loop() -> None:
    from langchain_pld import PLDClassifier
    from langchain_pld.evaluation import evaluate

    made = await adistill(TASK, teacher=teacher(), student=student(), effort=PLAN, **SETS)
    guard = PLDClassifier(artifact=made, student=student())
    found = evaluate.evaluate(guard, SETS["validation"], name="distilled", role="validation")
    assert found.card.rows == 60


def test_every_setting_that_studio_shows_is_a_keyword_of_distill() -> None:
    assert set(DistillSettings.__annotations__) == set(DistillConfig.model_fields) - {
        "teacher",
        "student",
        "embeddings",
        "effort",
    }


async def test_limits_and_the_teachers_wording_are_keywords() -> None:
    writer = teacher()
    brief = default_text("explain") + "\nBe brief."
    artifact = await distil(teacher=writer, max_calls=30, explain_prompt=brief)
    assert artifact.finish_reason == "budget"
    assert "Be brief." in text_of_all(writer.asked)


async def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="no option 'max_dollars'; there are checkpointer, config, effort"):
        await distil(max_dollars=3)
