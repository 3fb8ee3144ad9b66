"""A whole run on SQLite files, killed while it waits for its reviewer; another process answers.

Run as a module, it is the process that is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from langchain_ollama import ChatOllama

from langchain_pld import DistilledPrompt, adistill, build_distillation_graph
from langchain_pld.distillation.nodes.review import aresume_review
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run_directory import RunDirectory
from tests.servers.ollama import OllamaServer
from tests.teams import TASK, ollama_script, rows

PLAN = PLANS["light"].model_copy(
    update={"train_examples": 6, "rules_per_label": 1, "trials": 0, "require_review": True}
)


async def begin(folder: Path, url: str) -> None:
    model = ChatOllama(model="fake", base_url=url)
    async with RunDirectory(folder).open() as (store, checkpointer):
        waiting = await adistill(
            TASK,
            train=rows("train", 18),
            validation=rows("validation", 60),
            test=rows("test", 15),
            teacher=model,
            student=model,
            effort=PLAN,
            store=store,
            checkpointer=checkpointer,
            run_id="run",
        )
        assert waiting.review is None
        os.kill(os.getpid(), signal.SIGKILL)


async def answer(folder: Path, url: str, ask: Any) -> DistilledPrompt:
    model = ChatOllama(model="fake", base_url=url)
    async with RunDirectory(folder).open() as (store, checkpointer):
        graph = build_distillation_graph(teacher=model, student=model, store=store, checkpointer=checkpointer)
        return await aresume_review(graph, {"configurable": {"thread_id": "run"}}, ask)


async def test_a_run_killed_while_it_waits_is_answered_and_asks_for_nothing_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        kinds = {"amber": "approve", "violet": "reject", "green": "approve"}
        decisions = [{"type": kinds[action["args"]["label"]]} for action in request["action_requests"]]
        return {"reviewer": "Ilka Ferrand", "decisions": decisions}

    with OllamaServer(ollama_script) as server:
        command = [sys.executable, "-m", __name__, str(folder), server.url]
        killed = await asyncio.to_thread(subprocess.run, command, check=False, timeout=120)
        before = len(server.requests)
        signed = await answer(folder, server.url, ask)
        asked = [request.body for request in server.requests[before:] if request.path == "/api/chat" and request.body]
    assert killed.returncode == -signal.SIGKILL
    signed.require_usable()
    assert {rule.label for rule in signed.rules} == {"amber", "green"}
    assert signed.review is not None
    assert signed.review.reviewer == "Ilka Ferrand"
    # The student alone, under the prompt without the rejected rule, and at last on the test rows.
    assert not any(body.get("format") for body in asked)
    assert not any("parcel that somebody sent" in body["messages"][0]["content"] for body in asked)
    assert any("note test number" in body["messages"][1]["content"] for body in asked)


if __name__ == "__main__":
    asyncio.run(begin(Path(sys.argv[1]), sys.argv[2]))
