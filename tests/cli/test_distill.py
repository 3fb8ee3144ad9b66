"""`pld distill`, with the real Ollama client as teacher and student."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_pld import DistilledPrompt
from tests.cli.conftest import Files, Run
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaServer
from tests.teams import ollama_script, rule_for


def stubborn_script(request: dict[str, Any]) -> FakeAnswer:
    """A teacher as ever, and a student that no rule moves."""
    if request.get("format"):
        return FakeAnswer(content=rule_for("\n".join(message["content"] for message in request["messages"])))
    return FakeAnswer.picking({"amber": 0.5, "violet": 0.3, "green": 0.1})


def test_a_run_writes_the_artifact_and_shows_scores_reason_rules_and_the_next_step(pld: Run, files: Files) -> None:
    out = files.folder / "new" / "teams.pld.json"
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, "--out", out, host=server.url)
    assert done.exit_code == 0, done.stderr
    made = DistilledPrompt.load(out)
    assert len(made.rules) >= 3
    assert "validation rows: 30, student ollama:fake, 95% intervals" in done.stdout
    assert "test rows: 21" in done.stdout
    for name in ("zero-shot, raw", "distilled, raw", "majority", "n-gram"):
        assert name in done.stdout
    assert "Ended with: ceiling, nothing was left to gain" in done.stdout
    assert made.rules[0].condition in done.stdout
    assert done.stdout.splitlines()[-1] == f'Artifact {made.id} is in {out}. Next: pld classify {out} "a text"'
    assert "generate: teacher explains examples: 18/18 in 0:" in done.stderr
    assert "validate: the distilled prompt is better" in done.stderr


def test_a_missing_teacher_is_named_first_and_the_way_on_last(pld: Run, files: Files) -> None:
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, "--out", files.folder / "a.pld.json", "--teacher", "ollama:nobody", host=server.url)
    (run,) = (files.folder / ".pld" / "runs").glob("a-*")
    assert done.exit_code == 1
    reason, way_on = done.stderr.splitlines()[-2:]
    assert "nothing more was asked, since the teacher ollama:nobody cannot be used: the service has no model" in reason
    assert way_on == f"pld: what was done is kept, go on with: pld distill --resume {run}"


def test_rows_without_a_label_are_told(pld: Run, files: Files) -> None:
    files.train.write_text(files.train.read_text() + '{"text": "hello", "label": ""}\n', encoding="utf-8")
    done = pld(*files.distill, "--out", files.folder / "a.pld.json", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "pld: note: train.jsonl: 1 row without a label, e.g. 'row-19'" in done.stderr


def test_without_a_gain_the_run_says_that_the_old_prompt_stays(pld: Run, files: Files) -> None:
    with OllamaServer(stubborn_script) as server:
        done = pld(*files.distill, "--out", files.folder / "a.pld.json", host=server.url)
    assert done.exit_code == 0, done.stderr
    assert "Ended with: no_gain" in done.stdout
    assert "Note: no detectable gain, the zero-shot prompt stays" in done.stdout
    assert "No rules: the prompt is the zero-shot one." in done.stdout


def test_json_is_one_object_on_stdout_even_while_bars_are_drawn(
    pld: Run, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = files.folder / "a.pld.json"
    monkeypatch.setenv("FORCE_COLOR", "1")
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, "--out", out, "--json", "--seed", "7", host=server.url)
    report = json.loads(done.stdout)
    made = DistilledPrompt.load(out)
    assert (report["artifact"], report["id"], report["seed"]) == (str(out), made.id, 7)
    assert report["scores"] == made.model_dump(mode="json")["scores"]
    assert report["finish_reason"] == "ceiling"
    assert report["rules"][0]["condition"] == made.rules[0].condition
    assert {line["node"] for line in report["ledger"]} >= {"generate", "validate"}
    assert report["skipped"] == []
    assert "time left" in done.stderr


def test_bad_rows_stop_the_run_or_are_left_out_and_told(pld: Run, files: Files) -> None:
    files.train.write_text(files.train.read_text() + '{"text": "hello", "label": "pink"}\n', encoding="utf-8")
    out = files.folder / "a.pld.json"
    with OllamaServer(ollama_script) as server:
        stopped = pld(*files.distill, "--out", out, host=server.url)
        assert stopped.exit_code == 2
        assert "train.jsonl, line 19: unknown label 'pink'" in stopped.stderr
        assert server.requests == []
        done = pld(*files.distill, "--out", out, "--skip-bad-rows", "--json", host=server.url)
    assert done.exit_code == 0, done.stderr
    assert "skipped 1 bad row: train.jsonl, line 19" in done.stderr
    assert [row["line"] for row in json.loads(done.stdout)["skipped"]] == [19]


def test_what_can_be_checked_is_checked_before_a_model_is_asked(pld: Run, files: Files, tmp_path: Path) -> None:
    same = [*files.distill[:4], "--validation", str(files.train), *files.distill[6:]]
    (tmp_path / "file").write_text("")
    with OllamaServer(ollama_script) as server:
        overlap = pld(*same, "--out", tmp_path / "a.pld.json", host=server.url)
        folder = pld(*files.distill, "--out", tmp_path, host=server.url)
        below_a_file = pld(*files.distill, "--out", tmp_path / "file" / "a.pld.json", host=server.url)
        effort = pld(*files.distill, "--out", tmp_path / "a.pld.json", "--effort", "huge", host=server.url)
        no_model = pld(*files.distill[:-1], "embedded:none", "--out", tmp_path / "a.pld.json", host=server.url)
        assert server.requests == []
    assert [run.exit_code for run in (overlap, folder, below_a_file, effort, no_model)] == [2] * 5
    assert "18 rows have texts that are in two data roles" in overlap.stderr
    assert "is a folder; give a file name" in folder.stderr
    assert "cannot write into" in below_a_file.stderr
    assert "'huge' is not one of 'light', 'medium', 'heavy'" in effort.stderr
    assert "no embedded model is called 'none'" in no_model.stderr


def test_a_teacher_that_is_not_there_ends_the_run_with_one_line(pld: Run, files: Files) -> None:
    out = files.folder / "a.pld.json"
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill[:-3], "ollama:absent", *files.distill[-2:], "--out", out, host=server.url)
        asked = [request for request in server.requests if request.body and request.body.get("model") == "absent"]
    assert done.exit_code == 1
    assert len(asked) == 1
    assert "the teacher ollama:absent cannot be used: the service has no model ollama:absent" in done.stderr
    assert "ollama pull absent" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_student_that_is_not_there_costs_no_teacher(pld: Run, files: Files) -> None:
    out = files.folder / "a.pld.json"
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill[:-1], "ollama:fakes", "--out", out, host=server.url)
        assert not [request for request in server.requests if request.body and request.body.get("format")]
    assert done.exit_code == 1
    assert "the student ollama:fakes cannot be used: the service has no model ollama:fakes" in done.stderr
    assert "ollama pull fakes" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not out.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(files: Files) -> None:
    out = files.folder / "a.pld.json"
    with OllamaServer(FakeAnswer(content="late", delay_s=30)) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", "from langchain_pld.cli import main; main()", *files.distill, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"OLLAMA_HOST": server.url, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        wait_for_a_call(server)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=15)
    assert process.returncode == 130, stderr
    run = next((files.folder / ".pld" / "runs").glob("a-*"))
    said = f"pld: stopped; {out} is not written yet; what was done is kept, go on with: pld distill --resume {run}"
    assert stderr.splitlines()[-1] == said
    assert stdout == ""
    assert not out.exists()


def wait_for_a_call(server: OllamaServer) -> None:
    import time

    for _ in range(600):
        if server.count("/api/chat"):
            return
        time.sleep(0.05)
    pytest.fail("no model call within 30 seconds")
