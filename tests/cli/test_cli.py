"""The `pld` command, run as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_pld._version import __version__
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, DistilledPrompt, ModelFingerprint
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.task import Task
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaServer

TASK = Task(name="mood", instructions="Decide.", labels=[{"name": "glad"}, {"name": "sad"}])


def pld(*arguments: str, host: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from langchain_pld.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        env={"OLLAMA_HOST": host, "PATH": "", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    answer = AnswerFormat.words(TASK)
    return DistilledPrompt(
        task=TASK,
        system_prompt=compile_prompt(TASK, (), answer),
        answer=answer,
        calibration=Calibration.identity(TASK.label_names),
        student=ModelFingerprint(spec="ollama:fake"),
    ).save(tmp_path / "mood.pld.json")


def test_version() -> None:
    assert pld("--version").stdout == f"langchain-pld {__version__}\n"


def test_classify_prints_a_json_line_a_text_in_order(artifact: Path) -> None:
    with OllamaServer(FakeAnswer.picking({"glad": 0.8, "sad": 0.2})) as server:
        done = pld("classify", str(artifact), "one", "two", host=server.url)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [(line["id"], line["label"]) for line in lines] == [("1", "glad"), ("2", "glad")]
    assert lines[0]["probabilities"]["glad"] == pytest.approx(0.8, abs=1e-6)


def test_a_failed_verdict_is_a_line_and_exit_code_1(artifact: Path) -> None:
    with OllamaServer(FakeAnswer(status=404, error="model 'fake' not found")) as server:
        done = pld("classify", str(artifact), "one", "--json", host=server.url)
    assert done.returncode == 1
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["status"] == "failed"
    assert "ollama pull fake" in verdict["failure"]["message"]


def test_evaluate_exits_1_below_the_asked_score(artifact: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "a", "label": "glad"}\n{"text": "b", "label": "sad"}\n')
    with OllamaServer(FakeAnswer.picking({"glad": 0.8, "sad": 0.2})) as server:
        done = pld("evaluate", str(artifact), "--data", str(data), "--json", "--min-macro-f1", "0.9", host=server.url)
    assert done.returncode == 1
    assert json.loads(done.stdout)["score"]["accuracy"]["value"] == 0.5
    assert "below 0.9" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "missing.pld.json", "x"], "no artifact at missing.pld.json"),
        (["models", "path", "nothing"], "no embedded model is called 'nothing'"),
        (["distill", "no.yaml", "--train", "a", "--validation", "b", "--out", "c"], "no task file at no.yaml"),
        (["demo", "--teacher", "chess"], "'chess' names no model: write PROVIDER:NAME"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = pld(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_models_list_as_one_json_object() -> None:
    names = [model["name"] for model in json.loads(pld("models", "list", "--json").stdout)["models"]]
    assert "smollm2-135m" in names
