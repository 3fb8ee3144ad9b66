"""`pld distill` and its run directory: resuming, budgets, prices, the estimate and the ledger."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from langchain_pld import DistilledPrompt
from tests.cli.conftest import Files, Run
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaServer
from tests.teams import ollama_script


def teacher_calls(server: OllamaServer) -> list[bytes]:
    return [request.raw for request in server.requests if request.body and request.body.get("format")]


def broken(request: dict[str, Any]) -> FakeAnswer:
    """A teacher that has nothing to say about parcels."""
    if request.get("format") and "parcel note" in request["messages"][1]["content"]:
        return FakeAnswer(content="I would rather not.")
    return ollama_script(request)


def the_run(files: Files) -> Path:
    (found,) = [path for path in (files.folder / ".pld" / "runs").iterdir() if path.is_dir()]
    return found


def test_a_run_that_failed_goes_on_with_resume_alone_and_pays_only_what_is_missing(
    pld: Run, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    out = files.folder / "a.pld.json"
    with OllamaServer(broken) as server:
        stopped = pld(*files.distill, "--out", out, host=server.url)
        answered = [raw for raw in teacher_calls(server) if b"parcel note" not in raw]
    assert stopped.exit_code == 1
    assert "6 of 18 calls to the teacher ollama:fake failed" in stopped.stderr
    assert f"go on with: pld distill --resume {the_run(files)}" in stopped.stderr
    with OllamaServer(ollama_script) as server, caplog.at_level(logging.WARNING):
        done = pld("distill", "--resume", the_run(files), host=server.url)
        again = teacher_calls(server)
    assert done.exit_code == 0, done.stderr
    assert "Plan:" in stopped.stderr
    assert "Plan:" not in done.stderr, "it was told when the run began"
    assert DistilledPrompt.load(out).rules
    assert not set(again) & set(answered)
    assert "unregistered type" not in caplog.text
    with OllamaServer(FakeAnswer(status=500)) as server:
        finished = pld("distill", "--resume", the_run(files), "--json", host=server.url)
        assert server.count("/api/chat") == 0
    assert json.loads(finished.stdout)["id"] == DistilledPrompt.load(out).id


def test_the_next_run_in_the_same_folder_pays_no_teacher_call_and_the_ledger_says_so(pld: Run, files: Files) -> None:
    command = [*files.distill, "--out", files.folder / "a.pld.json"]
    with OllamaServer(ollama_script) as server:
        assert pld(*command, host=server.url).exit_code == 0
        paid = len(teacher_calls(server))
        again = pld(*command, "--json", host=server.url)
        shown = pld(*command, host=server.url)
        assert len(teacher_calls(server)) == paid
    report = json.loads(again.stdout)
    lines = {(line["node"], line["model"]): line for line in report["ledger"]}
    assert (lines["generate", "ollama:fake"]["calls"], lines["generate", "ollama:fake"]["cache_hits"]) == (0, 18)
    assert report["cost_usd"] == 0.0
    assert {line["node"] for line in report["estimate"]} >= {"generate", "consolidate", "validate", "test"}
    assert Path(report["run"]).is_dir()
    assert "from cache" in shown.stdout
    assert "This run asks" in shown.stderr
    assert "Plan: the teacher explains up to 60 examples" in shown.stderr


def test_a_limit_ends_the_run_with_what_there_is(pld: Run, files: Files) -> None:
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, "--out", files.folder / "a.pld.json", "--max-calls", "5", "--json", host=server.url)
        assert len(teacher_calls(server)) == 4  # and one look at the student
    assert json.loads(done.stdout)["finish_reason"] == "budget"
    assert "budget: 5 calls" in done.stderr


def test_own_prices_are_the_cost_that_is_told(pld: Run, files: Files) -> None:
    prices = files.folder / "prices.yaml"
    prices.write_text('"ollama:fake": {input: 1000, output: 2000}\n', encoding="utf-8")
    out = files.folder / "a.pld.json"
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, "--out", out, "--prices", prices, "--yes", "--json", host=server.url)
    report = json.loads(done.stdout)
    tokens = [(line["input_tokens"], line["output_tokens"]) for line in report["ledger"]]
    assert report["cost_usd"] == pytest.approx(sum(0.001 * read + 0.002 * written for read, written in tokens))
    assert "USD so far" in done.stderr


def test_what_a_run_cannot_be_is_told_in_one_line(pld: Run, files: Files) -> None:
    out, run = files.folder / "a.pld.json", files.folder / "run"
    with OllamaServer(ollama_script) as server:
        assert pld(*files.distill, "--out", out, "--run", run, host=server.url).exit_code == 0
        asked = len(server.requests)
        twice = pld(*files.distill, "--out", out, "--run", run, host=server.url)
        more = pld("distill", "--resume", run, "--out", out, host=server.url)
        nowhere = pld("distill", "--resume", files.folder, host=server.url)
        incomplete = pld("distill", files.task, "--train", files.train, host=server.url)
        unpriced = pld(*files.distill, "--out", out, "--teacher", "google_genai:new", "--max-usd", "1", host=server.url)
        with FileLock(run / "lock"):
            busy = pld("distill", "--resume", run, host=server.url)
        files.train.write_text(files.train.read_text() + "\n", encoding="utf-8")
        files.test.unlink()
        changed = pld("distill", "--resume", run, host=server.url)
        assert len(server.requests) == asked
    messages = {
        "holds a run already; go on with: pld distill --resume": twice,
        "a resumed run has this from its start": more,
        "no run in": nowhere,
        "missing: --validation, --out. A new run needs TASK.yaml, --train and --validation (or --data)": incomplete,
        "the price of google_genai:new is not known; give it with --prices": unpriced,
        "another process is at work on the run": busy,
        "train.jsonl (changed); test": changed,
        "test.jsonl (missing)": changed,
    }
    for message, result in messages.items():
        assert result.exit_code == 2, message
        assert message in " ".join(result.stderr.split()), result.stderr
