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
from langchain_pld.distillation.plan import PLANS
from langchain_pld.errors import DistillationError
from langchain_pld.examples import ExampleSet
from tests.distillation.resuming import Watcher, work
from tests.distillation.test_graph import TASK, rows, student_script, teacher_script
from tests.fakes import FakeChatModel, text_of
from tests.servers.ollama import OllamaServer

PLAN = PLANS["light"].model_copy(update={"train_examples": 8, "rules_per_label": 1, "trials": 1, "rounds": 0})
NODES = ("generate", "extract", "critique", "consolidate", "validate")


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes whose imports are done; they deserialise strictly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.distillation.resuming", "langchain_pld.distillation.validate"])
        yield context


def run(forks: Any, watcher: Watcher, folder: Path, url: str, *, note: str | None = None) -> int | None:
    """One process at work on a run, until its end; returns its exit code."""
    watcher.victim = process = forks.Process(target=work, args=(folder, url, note))
    process.start()
    process.join(60)
    return process.exitcode


def comparable(artifact: DistilledPrompt) -> dict[str, Any]:
    """All but what differs from run to run: times, and what the ledger says of calls and cache."""
    content = artifact.model_dump(exclude={"created", "ledger"})
    content["scores"] = [{**card, "ms_per_text": None} for card in content["scores"]]
    content["notes"] = [re.sub(r"\d+ ms", "some ms", note) for note in content["notes"]]
    return content


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_run_killed_at_every_node_and_inside_every_fan_out_ends_as_an_unbroken_one(
    forks: Any, tmp_path: Path
) -> None:
    whole = Watcher()
    with OllamaServer(whole) as server:
        assert run(forks, whole, tmp_path / "unbroken" / "run", server.url) == 0
    expected = DistilledPrompt.load(tmp_path / "unbroken" / "run.pld.json")
    kinds = whole.kinds()
    assert {"Explanation", "Explanation again", "MergedRule"} <= set(kinds)
    assert expected.rules

    # Runs in one folder share the answers that were paid for: these have a folder each.
    broken, folder, kills = Watcher(), tmp_path / "broken" / "run", 0
    with OllamaServer(broken) as server:
        # The first request of a kind comes when the node before is done, the middle one in the midst of a fan-out.
        for kind, count in kinds.items():
            for place in sorted({1, (count + 1) // 2}):
                broken.kill_at = (kind, place)
                assert run(forks, broken, folder, server.url) == -signal.SIGKILL, (kind, place)
                broken.killed()
                kills += 1
        assert run(forks, broken, folder, server.url) == 0
    resumed = DistilledPrompt.load(tmp_path / "broken" / "run.pld.json")
    assert comparable(resumed) == comparable(expected)
    assert broken.paid_twice() == []
    assert kills >= 9

    noted, folder = Watcher(), tmp_path / "noted" / "run"
    with OllamaServer(noted) as server:
        # A node tells its note when its work is done and not yet in a checkpoint.
        for node in NODES:
            assert run(forks, noted, folder, server.url, note=node) == -signal.SIGKILL, node
        assert run(forks, noted, folder, server.url) == 0
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
    from langchain_pld.distillation.roles import RunStore
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
