"""Files of the three-team task and runs of the real command against a loopback Ollama server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from langchain_pld import DistilledPrompt
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.cli import app
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import compile_prompt
from tests.teams import SUBJECTS, TASK, jsonl, rows

Run = Callable[..., Result]

TASK_YAML = """\
name: teams
instructions: Decide which team gets the note.
labels:
  - name: amber
  - name: violet
  - name: green
"""


@dataclass(frozen=True)
class Files:
    """Where the task's files lie."""

    folder: Path
    task: Path
    train: Path
    validation: Path
    test: Path

    @property
    def distill(self) -> list[str]:
        """The arguments of `pld distill`, the output aside."""
        sets = {"--train": self.train, "--validation": self.validation, "--test": self.test}
        data = [part for name, path in sets.items() for part in (name, str(path))]
        return ["distill", str(self.task), *data, "--teacher", "ollama:fake", "--student", "ollama:fake"]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(
        tmp_path, *(tmp_path / name for name in ("task.yaml", "train.jsonl", "validation.jsonl", "test.jsonl"))
    )
    made.task.write_text(TASK_YAML, encoding="utf-8")
    for path, count in {made.train: 18, made.validation: 30, made.test: 21}.items():
        path.write_text(jsonl(rows(path.stem, count)), encoding="utf-8")
    return made


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A prompt with a rule for each team, calibrated on paper, made for the student `ollama:fake`."""
    rules = tuple(Rule.merged(label, f"If the text is about the {noun}", ()) for label, noun in SUBJECTS.items())
    answer = AnswerFormat.words(TASK)
    made = DistilledPrompt(
        task=TASK,
        rules=rules,
        system_prompt=compile_prompt(TASK, rules, answer),
        answer=answer,
        calibration=Calibration(method="batch", labels=TASK.label_names, bias=(0.0, 0.0, 0.0), rows=30),
        student=ModelFingerprint(spec="ollama:fake"),
    )
    return made.save(tmp_path / "teams.pld.json")


@pytest.fixture
def pld(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process; `host` is the Ollama server."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, host: str = "http://127.0.0.1:9", stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)), input=stdin, env={"OLLAMA_HOST": host})

    return run
