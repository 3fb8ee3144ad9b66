"""A run in a process of its own, and a fake server that watches what is asked and kills the process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from langchain_ollama import ChatOllama

from langchain_pld import adistill
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.run_directory import RunDirectory
from tests.servers.fake_answers import FakeAnswer
from tests.teams import SUBJECTS, TASK, probabilities, rows, rule_for

CONCURRENCY = 4
PLAN = PLANS["light"].model_copy(update={"train_examples": 12, "rules_per_label": 1, "concurrency": CONCURRENCY})


def work(folder: Path, url: str, stop_at_note_of: str | None) -> None:
    """Distil in the run directory `folder`; write the artifact beside it; or die at the note of a node."""

    def watch(progress: Progress) -> None:
        if progress.note and progress.node == stop_at_note_of:
            os.kill(os.getpid(), signal.SIGKILL)

    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("langgraph").addHandler(_Refusing())
    artifact = asyncio.run(_distil(folder, url, watch))
    artifact.save(folder.with_suffix(".pld.json"))


async def _distil(folder: Path, url: str, watch: Callable[[Progress], None]) -> Any:
    model = ChatOllama(model="fake", base_url=url)
    async with RunDirectory(folder).opened() as (store, checkpointer):
        return await adistill(
            TASK,
            train=rows("train", 15),
            validation=rows("validation", 54),
            test=rows("test", 9),
            teacher=model,
            student=model,
            effort=PLAN,
            on_progress=watch,
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
        self.victim: BaseProcess | None = None
        self.kill_at: tuple[str, int] | None = None
        """Kill the victim at this many different requests of a kind."""
        self.in_flight: set[str] = set()
        """Requests that a killed process may not have kept the answer of."""

    def __call__(self, request: dict[str, Any]) -> FakeAnswer:
        schema = request.get("format")
        content = json.dumps([request["messages"], schema], sort_keys=True)
        kind = _kind(request["messages"], schema)
        self.asked.append((kind, content))
        if self.kill_at and self.kill_at[0] == kind and len(self.different(kind)) >= self.kill_at[1]:
            # The process asks sooner than its parent knows its number.
            while self.victim is None or self.victim.pid is None:
                time.sleep(0.01)
            self.kill_at = None
            os.kill(self.victim.pid, signal.SIGKILL)
        if schema:
            return FakeAnswer(content=json.dumps(_fitting(schema, request["messages"])))
        system, user = (message["content"] for message in request["messages"][:2])
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
    known = json.loads(rule_for(told)) if 'label is "' in told else {"condition": f"If it is about {SUBJECTS}"}
    if 'label is "violet"' in told and schema["title"] == "Explanation" and not _asked_again(messages):
        known["condition"] = "If " + messages[1]["content"].split("<<<")[1].split(">>>")[0].strip()
    empty = {"array": [], "integer": 0, "boolean": True, "number": 0.0, "object": {}}
    return {
        name: known.get(name, empty.get(kind.get("type", "string"), "so it seems to be"))
        for name, kind in schema["properties"].items()
    }
