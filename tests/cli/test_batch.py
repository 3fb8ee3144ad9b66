"""`pld distill --teacher batch:DIR` and `pld batch`, from the first question to the artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_pld import DistilledPrompt
from langchain_pld.cli.errors import WAITS
from langchain_pld.models.batch import BatchFolder
from tests.cli.conftest import Files, Run
from tests.servers.ollama import OllamaServer
from tests.teams import ollama_script, rule_for


def answered(folder: Path, file: Path, *, most: int | None = None) -> Path:
    """A response file with answers to the newest questions."""
    questions = list(BatchFolder(folder).request_files().values())[-1][:most]
    told = {one.id: "\n".join(str(message["content"]) for message in one.messages) for one in questions}
    rows = [{"custom_id": key, "answer": json.loads(rule_for(text))} for key, text in told.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_run_stops_with_what_to_do_and_goes_on_to_its_artifact(
    pld: Run, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, out, folder = tmp_path / "run", tmp_path / "teams.pld.json", tmp_path / "answers"
    given = [*files.distill, "--teacher", "batch:answers", "--run", run, "--out", out]
    with OllamaServer(ollama_script) as server:
        done = pld(*given, host=server.url)
        assert done.exit_code == WAITS == 3
        assert f"go on with: pld distill --resume {run}" in done.stderr
        request = folder / "requests" / "0001-generate.jsonl"
        assert f"pld: the run waits for answers to the questions of generate, 18 of them, in {request}" in done.stderr
        assert f"pld batch import {folder} FILE" in done.stderr

        file = answered(folder, tmp_path / "some.jsonl", most=10)
        file.write_text(file.read_text(encoding="utf-8") + "rubbish\n", encoding="utf-8")
        checked = pld("batch", "validate", folder, file)
        assert (checked.exit_code, checked.stdout) == (1, "10 usable answers; 1 rows cannot be used\n")
        assert checked.stderr == f"pld: {file}:11: row without a known id is no JSON object\n"
        assert pld("batch", "status", folder).stdout.startswith(f"{request}: 18 questions, 0 answered, 0 failed, 18 op")

        taken = pld("batch", "import", folder, file)
        assert taken.exit_code == 1
        assert "8 questions still wait for an answer" in taken.stdout
        assert f"{file}:11" in taken.stderr
        # Elsewhere too: the folder is known by its absolute path.
        monkeypatch.chdir("/")
        for _ in range(4):
            done = pld("distill", "--resume", run, host=server.url)
            if done.exit_code != WAITS:
                break
            assert pld("batch", "import", folder, answered(folder, tmp_path / "more.jsonl")).exit_code == 0
    assert done.exit_code == 0, done.stderr
    assert len(DistilledPrompt.load(out).rules) >= 3
    assert pld("batch", "status", folder).stdout.endswith("Next: pld distill --resume RUN\n")

    recording = tmp_path / "mine.jsonl"
    made = pld("batch", "record", folder, recording, "--about", "answers of a test")
    assert made.stdout.endswith(f" answers in {recording}\n")
    with OllamaServer(ollama_script) as server:
        given = [*files.distill, "--teacher", f"recorded:{recording}", "--out", tmp_path / "again.pld.json"]
        done = pld(*given, host=server.url)
    assert done.exit_code == 0, done.stderr
    assert DistilledPrompt.load(tmp_path / "again.pld.json").rules == DistilledPrompt.load(out).rules


def test_status_and_checks_as_json(pld: Run, files: Files, tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    given = [*files.distill, "--teacher", f"batch:{folder}", "--out", tmp_path / "a.pld.json"]
    with OllamaServer(ollama_script) as server:
        assert pld(*given, host=server.url).exit_code == WAITS
    file = answered(folder, tmp_path / "some.jsonl", most=2)
    file.write_text(file.read_text(encoding="utf-8").replace("If the text", "If", 1) + '{"custom_id": "x"}\n')

    def told(*arguments: Any) -> Any:
        return json.loads(pld("batch", *arguments, "--json").stdout)

    imported = told("import", folder, file)
    assert (len(imported["usable"]), imported["open"]) == (2, 16)
    assert imported["written"] == str(folder / "responses" / "0001-some.jsonl")
    assert imported["bad_rows"] == [
        {"file": str(file), "line": 3, "id": None, "reason": imported["bad_rows"][0]["reason"]}
    ]
    assert told("validate", folder)["bad_rows"] == []
    status = told("status", folder)
    assert status["files"][0] | {"request_file": ""} == {
        "request_file": "",
        "questions": 18,
        "answered": 2,
        "failed": 0,
        "open": 16,
    }
    assert len(status["open"]) == 16


def test_a_file_cannot_be_taken_where_nothing_was_asked(pld: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    done = pld("batch", "import", tmp_path / "empty", tmp_path / "in.jsonl")
    assert done.exit_code == 2
    assert "nothing was asked in" in done.stderr
    assert pld("batch", "status", tmp_path / "empty").stdout.startswith("Nothing was asked in")


def test_a_recorded_teacher_that_does_not_know_the_data_says_what_differs(
    pld: Run, files: Files, tmp_path: Path
) -> None:
    with OllamaServer(ollama_script) as server:
        given = [*files.distill, "--teacher", "recorded:shop_inbox", "--out", tmp_path / "a.pld.json"]
        done = pld(*given, host=server.url)
    assert done.exit_code == 2
    assert "this question was not recorded" in done.stderr
    assert "+[Explanation] amber\n+invoice note train number" in done.stderr
