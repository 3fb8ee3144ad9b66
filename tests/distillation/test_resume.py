"""Runs that ended early or were ended go on where they were."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from langchain_pld import Example
from langchain_pld.distillation.plan import Budget
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run_directory import RunDirectory
from langchain_pld.errors import DistillationError
from langchain_pld.examples import ExampleSet
from tests.distillation.scenarios import (
    PLAN_WITH_CEILING as PLAN,
)
from tests.distillation.scenarios import (
    TASK,
    comparable,
    distil,
    rows,
    teacher,
    teacher_script,
)
from tests.fakes import text_of

RUN: dict[str, Any] = {"effort": PLAN, "test": None}


def reluctant(messages: list[Any]) -> Any:
    return RuntimeError("quota") if re.search(r"number [02468]\b", text_of(messages)) else teacher_script(messages)


async def test_after_too_many_failures_only_what_failed_is_paid_on_resume() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    with pytest.raises(DistillationError, match="4 of 8 calls to the teacher") as caught:
        await distil(**RUN, teacher=teacher(reluctant), **kept)
    assert "The answers that came are kept" in str(caught.value)
    mended = teacher()
    artifact = await distil(**RUN, teacher=mended, **kept)
    explained = [text_of(messages) for messages in mended.asked if "invoice note" in text_of(messages)[:20]]
    assert explained == []
    assert len([messages for messages in mended.asked if text_of(messages).startswith("parcel note")]) == 4
    assert artifact.rules


async def test_a_finished_run_gives_its_artifact_without_a_call() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    first = await distil(**RUN, **kept)
    silent = teacher(lambda _: AssertionError("asked"))
    assert await distil(**RUN, teacher=silent, **kept) == first
    assert silent.asked == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"effort": PLAN.model_copy(update={"train_examples": 4})}, "another plan"),
        ({"task": TASK.model_copy(update={"instructions": "Decide at once."})}, "another task"),
        ({"train": rows("train", 14)}, "another rows"),
    ],
)
async def test_a_known_run_with_other_inputs_is_refused(change: dict[str, Any], named: str) -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    await distil(**RUN, **kept)
    with pytest.raises(DistillationError, match=f"'r' began with {named}"):
        await distil(**{**RUN, **kept, **change})


async def test_many_rows_fit_into_the_files_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    many = ExampleSet.of(
        [Example(id=str(n), input=f"text {n}", label="amber" if n % 2 else "violet") for n in range(35_000)], TASK
    )
    async with RunDirectory(tmp_path / "run").open() as (store, _):
        kept = RunStore(store, "r")
        await kept.put_examples("train", many)
        found = await kept.examples("train")
    assert found is not None
    assert found.sha256 == many.sha256


@pytest.mark.parametrize("calls", [5, 30, 110])
async def test_a_run_that_its_budget_ended_goes_on_with_a_larger_one_as_if_it_had_had_that_from_the_start(
    calls: int,
) -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    small = PLAN.model_copy(update={"budget": Budget(calls=calls)})
    first, again = teacher(), teacher()
    ended = await distil(test=None, teacher=first, **kept, effort=small)
    assert ended.finish_reason == "budget"
    assert await distil(test=None, teacher=again, **kept, effort=small) == ended
    larger = await distil(
        test=None, teacher=again, **kept, effort=PLAN.model_copy(update={"budget": Budget(calls=10_000)})
    )
    whole_teacher = teacher()
    assert comparable(larger) == comparable(await distil(**RUN, teacher=whole_teacher))
    assert len(first.asked) + len(again.asked) == len(whole_teacher.asked), "no answer of the teacher is paid twice"


async def test_a_run_that_came_to_its_end_is_not_begun_again_with_a_larger_budget() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    first = await distil(**RUN, **kept)
    silent = teacher(lambda _: AssertionError("asked"))
    assert (
        await distil(test=None, teacher=silent, **kept, effort=PLAN.model_copy(update={"budget": Budget(usd=5)}))
        == first
    )
