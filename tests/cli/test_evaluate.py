"""`pld evaluate`, with the real Ollama client as the student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_pld import DistilledPrompt
from langchain_pld.artifact import DataFingerprint
from langchain_pld.examples import read_examples
from tests.cli.conftest import Files, Run
from tests.servers.fake_answers import FakeAnswer, user_text
from tests.servers.ollama import OllamaServer
from tests.teams import TASK, ollama_script


def test_the_table_shows_the_prompt_beside_the_baselines(pld: Run, files: Files, artifact: Path) -> None:
    with OllamaServer(ollama_script) as server:
        done = pld("evaluate", artifact, "--data", files.test, "--train", files.train, host=server.url)
    assert done.exit_code == 0, done.stderr
    rows = [line.split("  ")[1].strip() for line in done.stdout.splitlines() if "[" in line]
    assert rows == ["majority", "n-gram (18 rows)", "distilled, calibrated"]
    assert "test.jsonl rows: 21, student ollama:fake, 95% intervals" in done.stdout
    assert "1.000 [1.000, 1.000]" in done.stdout
    assert "student reads the rows: 21/21" in done.stderr


def test_a_score_at_the_minimum_passes_and_one_below_does_not(pld: Run, files: Files, artifact: Path) -> None:
    with OllamaServer(ollama_script) as server:
        arguments = ("evaluate", artifact, "--data", files.test, "--json", "--min-macro-f1")
        good = pld(*arguments, "1", host=server.url)
    with OllamaServer(FakeAnswer.picking({"amber": 0.8, "green": 0.1})) as server:
        poor = pld(*arguments, "0.5", host=server.url)
    assert (good.exit_code, json.loads(good.stdout)["passed"]) == (0, True)
    assert (poor.exit_code, json.loads(poor.stdout)["passed"]) == (1, False)
    assert json.loads(poor.stdout)["score"]["macro_f1"]["value"] == pytest.approx(1 / 6)
    assert json.loads(poor.stdout)["majority"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert "macro-F1 0.167 is below 0.5" in poor.stderr


def test_rows_without_a_verdict_are_wrong_and_told(pld: Run, files: Files, artifact: Path) -> None:
    def mute_on_parcels(request: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer() if "parcel" in user_text(request) else ollama_script(request)

    with OllamaServer(mute_on_parcels) as server:
        done = pld("evaluate", artifact, "--data", files.test, "--json", host=server.url)
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["score"]["failed"] == 7
    assert report["score"]["accuracy"]["value"] == pytest.approx(14 / 21)
    assert report["failures"] == {"empty": 7}
    assert "7 of 21 rows have no verdict and count as wrong (empty 7)" in done.stderr


def test_a_student_that_is_not_there_gives_no_score_at_all(pld: Run, files: Files, artifact: Path) -> None:
    with OllamaServer(ollama_script, models=()) as server:
        done = pld("evaluate", artifact, "--data", files.test, "--json", host=server.url)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "model_missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_that_the_artifact_was_chosen_on_are_named(pld: Run, files: Files, artifact: Path) -> None:
    digest = read_examples(files.validation, TASK).sha256
    known = {"validation": DataFingerprint(sha256=digest, rows=30, source="validation.jsonl")}
    DistilledPrompt.load(artifact).model_copy(update={"data": known}).save(artifact)
    with OllamaServer(ollama_script) as server:
        done = pld("evaluate", artifact, "--data", files.validation, "--json", host=server.url)
    assert "these are the validation rows that teams@" in done.stderr
    assert json.loads(done.stdout)["score"]["role"] == "validation"


def test_an_unlabelled_row_is_bad_input(pld: Run, artifact: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"id": "x", "text": "a parcel", "label": null}\n', encoding="utf-8")
    with OllamaServer(ollama_script) as server:
        done = pld("evaluate", artifact, "--data", data, host=server.url)
        assert server.requests == []
    assert done.exit_code == 2
    assert "needs a label on each row: 1 have none, e.g. 'x'" in done.stderr
