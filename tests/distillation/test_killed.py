"""A run that is killed at any place goes on as if nothing had happened.

The run is a process of its own; a fake server watches what is asked and kills it. It goes twice through its loop: of
each of two teams the teacher learns one subject from the mistakes of the first pass, and the other one in the second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_ollama import ChatOllama

from langchain_pld import DistilledPrompt, Example, adistill
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run_directory import RunDirectory
from langchain_pld.examples import ExampleSet
from tests.distillation.scenarios import comparable
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaServer
from tests.teams import TASK

CONCURRENCY = 4
PLAN = PLANS["light"].model_copy(
    update={
        "train_examples": 18,
        "rules_per_label": 1,
        "concurrency": CONCURRENCY,
        "trials": 1,
        "rounds": 2,
        "ceiling": None,
    }
)
SUBJECTS = {"amber": ("invoice", "receipt", "refund"), "violet": ("parcel", "crate"), "green": ("password", "badge")}
DRAFTS = {
    "amber": "If the text is about the invoice that somebody wrote",
    "violet": "If whoever wrote it was in a hurry to get home",
    "green": "If the whole office is asked for help at once",
}


def rows(role: str, count: int) -> ExampleSet:
    """Notes of the three teams in turn, with the subjects of a team in turn."""
    made = []
    for n in range(count):
        label = TASK.label_names[n % 3]
        subject = SUBJECTS[label][n // 3 % len(SUBJECTS[label])]
        made.append(Example(id=f"{role}-{n}", input=f"{subject} note {role} number {n}", label=label))
    return ExampleSet.of(made, TASK, source=role)


def work(folder: Path, url: str, stop_at_note: tuple[str, int] | None) -> None:
    """Distil in the run directory `folder`; write the artifact beside it; or die at a node's n-th note."""
    notes: list[str] = []

    def die_at_note(progress: Progress) -> None:
        notes.extend([progress.node] * bool(progress.note))
        if stop_at_note and notes.count(stop_at_note[0]) == stop_at_note[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("langgraph").addHandler(_Refusing())
    artifact = asyncio.run(_run(folder, url, die_at_note))
    artifact.save(folder.with_suffix(".pld.json"))


async def _run(folder: Path, url: str, on_progress: Callable[[Progress], None]) -> Any:
    # An option that the watcher reads: who asks.
    model = ChatOllama(model="fake", base_url=url, keep_alive=str(os.getpid()))
    async with RunDirectory(folder).open() as (store, checkpointer):
        return await adistill(
            TASK,
            train=rows("train", 18),
            validation=rows("validation", 51),
            test=rows("test", 6),
            teacher=model,
            student=model,
            effort=PLAN,
            on_progress=on_progress,
            store=store,
            checkpointer=checkpointer,
            run_id="run",
        )


class _Refusing(logging.Handler):
    """Ends the process when LangGraph warns, for instance of a type that it revives or refuses to revive."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print(record.getMessage(), flush=True)
            os._exit(3)


class Watcher:
    """The backend of a fake server: answers as teacher and as student, and notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """Kind and content of each request."""
        self.kill_at: tuple[str, int] | None = None
        """Kill the process that asks at this many different requests of a kind."""
        self.dead: set[str] = set()
        """Processes that were killed so; what they had sent off before may arrive later, and counts for nothing."""
        self.in_flight: set[str] = set()
        """Requests that a killed process may not have kept the answer of."""

    def __call__(self, request: dict[str, Any]) -> FakeAnswer:
        schema = request.get("format")
        content = json.dumps([request["messages"], schema], sort_keys=True)
        kind = _kind(request["messages"], schema)
        if request["keep_alive"] in self.dead:
            return FakeAnswer(status=503)
        self.asked.append((kind, content))
        if self.kill_at and self.kill_at[0] == kind and len(self.different(kind)) >= self.kill_at[1]:
            self.kill_at = None
            self.dead.add(request["keep_alive"])
            os.kill(int(request["keep_alive"]), signal.SIGKILL)
        if schema:
            return FakeAnswer(content=json.dumps(_fitting(schema, request["messages"])))
        system, user = (request["messages"][place]["content"] for place in (0, -1))
        return FakeAnswer.picking(probabilities(system, user))

    def different(self, kind: str) -> set[str]:
        """The different requests of a kind."""
        return {content for found, content in self.asked if found == kind}

    def kinds(self) -> dict[str, int]:
        """How many different requests there were of each kind, in order of appearance."""
        counts: dict[str, set[str]] = defaultdict(set)
        for kind, content in self.asked:
            counts[kind].add(content)
        return {kind: len(found) for kind, found in counts.items()}

    def killed(self) -> None:
        """Note what was in flight: what was asked last, as far as calls go at one time."""
        teacher = [content for kind, content in self.asked if not kind.startswith("student")]
        self.in_flight |= set(teacher[-CONCURRENCY:])

    def paid_twice(self) -> list[str]:
        """Teacher's questions that were asked again although their answer had been kept."""
        teacher = [content for kind, content in self.asked if not kind.startswith("student")]
        return [content for content in set(teacher) - self.in_flight if teacher.count(content) > 1]


def _kind(messages: list[dict[str, Any]], schema: dict[str, Any] | None) -> str:
    told = "\n".join(message["content"] for message in messages)
    if schema is None:
        role = next((role for role in ("validation", "test", "train") if f"note {role} number" in told), "other")
        return f"student, {role} rows"
    return f"{schema['title']}{' again' if _asked_again(messages) else ''}"


def _asked_again(messages: list[dict[str, Any]]) -> bool:
    """Whether something stands behind the text: what was wrong with an earlier answer."""
    return messages[1]["content"].rpartition(">>>")[2].strip() != ""


def _fitting(schema: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer that fits whatever schema is asked for; a first draft about violet copies its example."""
    told = "\n".join(message["content"] for message in messages)
    label = next((name for name in DRAFTS if f'label is "{name}"' in told), "amber")
    known: dict[str, Any] = {"condition": DRAFTS[label]}
    if schema["title"] == "Revision":
        wrong = told.split("but correct is ")[1]
        label, subject = wrong.split('"')[1], wrong.split("<<<")[1].split()[0]
        condition = f"If the text is about the {subject} that somebody wrote of"
        known["edits"] = [{"action": "add", "rule": 0, "label": label, "conditions": [condition]}]
    if 'label is "violet"' in told and schema["title"] == "Explanation" and not _asked_again(messages):
        known["condition"] = "If " + messages[1]["content"].split("<<<")[1].split(">>>")[0].strip()
    empty: dict[str, Any] = {"array": [], "integer": 0, "boolean": True, "number": 0.0, "object": {}}
    return {
        name: known.get(name, empty.get(kind.get("type", "string"), "so it seems to be"))
        for name, kind in schema["properties"].items()
    }


def probabilities(system_prompt: str, text: str) -> dict[str, float]:
    """What the student answers: a subject that a rule tells of has its team, all else is probably amber."""
    for label, subjects in SUBJECTS.items():
        if any(subject in text and subject in system_prompt for subject in subjects):
            return {other: 0.9 if other == label else 0.04 for other in SUBJECTS}
    return {"amber": 0.5, "violet": 0.3, "green": 0.1}


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
        context.set_forkserver_preload(["tests.distillation.test_killed", "langchain_pld.distillation.nodes.validate"])
        yield context


def run(forks: Any, folder: Path, url: str, *, note: tuple[str, int] | None = None) -> int | None:
    """One process at work on a run, until its end; returns its exit code."""
    process = forks.Process(target=work, args=(folder, url, note))
    process.start()
    process.join(120)
    return process.exitcode


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
