"""Runs that were killed, and runs that failed, go on where they were."""

from __future__ import annotations

import multiprocessing
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt, Example, adistill
from langchain_pld.distillation.budget import Budget
from langchain_pld.distillation.plan import PLANS
from langchain_pld.errors import DistillationError
from langchain_pld.examples import ExampleSet
from tests.distillation.resuming import Watcher, work
from tests.distillation.test_graph import TASK, rows, student_script, teacher_script
from tests.fakes import FakeChatModel, text_of
from tests.servers.ollama import OllamaServer

PLAN = PLANS["light"].model_copy(update={"train_examples": 8, "rules_per_label": 1, "trials": 1, "rounds": 0})
NOTES = (
    ("generate", 1),
    ("extract", 1),
    ("critique", 1),
    ("consolidate", 1),
    ("critique", 1),
    ("critique", 2),
    ("validate", 1),
)
"""Nodes and which of their notes in a process: the last ones of critique are those of the loop's two passes."""


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes whose imports are done; they deserialise strictly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.distillation.resuming", "langchain_pld.distillation.nodes.validate"])
        yield context


def run(forks: Any, folder: Path, url: str, *, note: tuple[str, int] | None = None) -> int | None:
    """One process at work on a run, until its end; returns its exit code."""
    process = forks.Process(target=work, args=(folder, url, note))
    process.start()
    process.join(120)
    return process.exitcode


def comparable(artifact: DistilledPrompt) -> dict[str, Any]:
    """All but what differs from run to run: times, and what the ledger says of calls and cache."""
    content = artifact.model_dump(exclude={"created", "ledger"})
    content["scores"] = [{**card, "ms_per_text": None} for card in content["scores"]]
    content["notes"] = [re.sub(r"\d+ ms", "some ms", note) for note in content["notes"]]
    return content


def places_to_die(whole: Watcher) -> list[tuple[str, int]]:
    """Kinds of requests, and at which one of a kind a run is to be killed; in the order in which a run comes to them.

    The first request of a kind comes when the node before is done, the middle one in the midst of a fan-out. Of the
    questions about mistakes these are the first and the second one of each pass of the loop.
    """
    kinds = whole.kinds()
    places = {kind: {1, (count + 1) // 2} if kind != "Revision" else {1, 2, 3, 4} for kind, count in kinds.items()}
    seen: dict[str, set[str]] = {kind: set() for kind in kinds}
    ordered: dict[tuple[str, int], None] = {}
    for kind, content in whole.asked:
        seen[kind].add(content)
        if len(seen[kind]) in places[kind]:
            ordered[kind, len(seen[kind])] = None
    return list(ordered)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_run_killed_at_every_node_and_inside_every_fan_out_ends_as_an_unbroken_one(
    forks: Any, tmp_path: Path
) -> None:
    whole = Watcher()
    with OllamaServer(whole) as server:
        assert run(forks, tmp_path / "unbroken" / "run", server.url) == 0
    expected = DistilledPrompt.load(tmp_path / "unbroken" / "run.pld.json")
    kinds = whole.kinds()
    assert {"Explanation", "Explanation again", "MergedRule"} <= set(kinds)
    assert kinds["Revision"] == 4, "two passes of the loop, two confusions in each"
    assert len(expected.rules) >= 4

    # Runs in one folder share the answers that were paid for: these have a folder each.
    broken, folder, kills = Watcher(), tmp_path / "broken" / "run", list[str]()
    with OllamaServer(broken) as server:
        for kind, place in places_to_die(whole):
            broken.kill_at = (kind, place)
            assert run(forks, folder, server.url) == -signal.SIGKILL, (kind, place)
            broken.killed()
            kills.append(kind)
        assert run(forks, folder, server.url) == 0
    resumed = DistilledPrompt.load(tmp_path / "broken" / "run.pld.json")
    assert comparable(resumed) == comparable(expected)
    assert broken.paid_twice() == []
    assert len(kills) >= 13
    assert kills.count("Revision") == 4

    noted, folder = Watcher(), tmp_path / "noted" / "run"
    with OllamaServer(noted) as server:
        # A node tells its note when its work is done and not yet in a checkpoint.
        for note in NOTES:
            assert run(forks, folder, server.url, note=note) == -signal.SIGKILL, note
        assert run(forks, folder, server.url) == 0
    assert comparable(DistilledPrompt.load(tmp_path / "noted" / "run.pld.json")) == comparable(expected)
    assert noted.paid_twice() == []
    # What killed processes paid stands in the ledger, too.
    paid = sum(line.calls for line in expected.ledger if line.node == "generate")
    assert sum(line.calls for line in resumed.ledger if line.node == "generate") >= paid


async def distil(teacher: FakeChatModel, **options: Any) -> DistilledPrompt:
    return await adistill(
        options.pop("task", TASK),
        train=options.pop("train", rows("train", 12)),
        validation=rows("validation", 60),
        teacher=teacher,
        student=FakeChatModel(script=student_script),
        effort=options.pop("effort", PLAN),
        **options,
    )


def reluctant(messages: list[Any]) -> Any:
    return RuntimeError("quota") if re.search(r"number [02468]\b", text_of(messages)) else teacher_script(messages)


async def test_after_too_many_failures_only_what_failed_is_paid_on_resume() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    with pytest.raises(DistillationError, match="4 of 8 calls to the teacher") as caught:
        await distil(FakeChatModel(script=reluctant), **kept)
    assert "What was paid for is kept" in str(caught.value)
    mended = FakeChatModel(script=teacher_script)
    artifact = await distil(mended, **kept)
    explained = [text_of(messages) for messages in mended.asked if "invoice note" in text_of(messages)[:20]]
    assert explained == []
    assert len([messages for messages in mended.asked if text_of(messages).startswith("parcel note")]) == 4
    assert artifact.rules


async def test_a_finished_run_gives_its_artifact_without_a_call() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    first = await distil(FakeChatModel(script=teacher_script), **kept)
    silent = FakeChatModel(script=lambda _: AssertionError("asked"))
    assert await distil(silent, **kept) == first
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
    await distil(FakeChatModel(script=teacher_script), **kept)
    with pytest.raises(DistillationError, match=f"'r' began with {named}"):
        await distil(FakeChatModel(script=teacher_script), **kept, **change)


async def test_many_rows_fit_into_the_files_of_a_run(tmp_path: Path) -> None:
    from langchain_pld.distillation.run.store import RunStore
    from langchain_pld.distillation.run_directory import RunDirectory

    (tmp_path / "run").mkdir()
    many = ExampleSet.of(
        [Example(id=str(n), input=f"text {n}", label="amber" if n % 2 else "violet") for n in range(35_000)], TASK
    )
    async with RunDirectory(tmp_path / "run").opened() as (store, _):
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
    teacher, again = FakeChatModel(script=teacher_script), FakeChatModel(script=teacher_script)
    ended = await distil(teacher, **kept, effort=small)
    assert ended.finish_reason == "budget"
    assert await distil(again, **kept, effort=small) == ended
    larger = await distil(again, **kept, effort=PLAN.model_copy(update={"budget": Budget(calls=10_000)}))
    whole_teacher = FakeChatModel(script=teacher_script)
    assert comparable(larger) == comparable(await distil(whole_teacher))
    assert len(teacher.asked) + len(again.asked) == len(whole_teacher.asked), "no answer of the teacher is paid twice"


async def test_a_run_that_came_to_its_end_is_not_begun_again_with_a_larger_budget() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": InMemorySaver(), "run_id": "r"}
    first = await distil(FakeChatModel(script=teacher_script), **kept)
    silent = FakeChatModel(script=lambda _: AssertionError("asked"))
    assert await distil(silent, **kept, effort=PLAN.model_copy(update={"budget": Budget(usd=5)})) == first
