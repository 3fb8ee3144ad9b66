"""The main path as a user walks it: the default models by their names, own files, one command after the other.

Behind the default name stands the file of the smallest model of the catalogue, so that this is a matter of seconds; all
else is real.
"""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from langchain_pld import DistilledPrompt, PLDClassifier
from langchain_pld.cli import app
from langchain_pld.guardrail import AuditWriter, Guard, GuardrailPolicy
from langchain_pld.models import catalogue, fetch
from langchain_pld.models.fetch import model_path
from tests.integration.small import artifact_of
from tests.models.conftest import SMALL_MODEL

TASK = """\
name: chat.v2
instructions: Decide whether the message is friendly.
labels:
  - {name: friendly, description: It thanks or praises somebody.}
  - {name: rude, description: It insults somebody.}
"""
STARTS = {
    "friendly": ["Thank you for", "What a lovely way to bring", "Great work on"],
    "rude": ["I hate", "Only an idiot asks for", "How dumb is"],
}
ENDS = ["the slides.", "this meeting!", "your help, Ana.", "the new office.", "that report."]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task and rows, the default model's name in front of the small model's file."""
    model_path(SMALL_MODEL)
    small = catalogue.catalogue_entry(SMALL_MODEL)
    entries = (replace(small, name=catalogue.DEFAULT_MODEL), small)
    for module in (catalogue, fetch):
        monkeypatch.setattr(module, "CATALOGUE", entries)
    texts = [(f"{start} {end}", label) for label, starts in STARTS.items() for end in ENDS for start in starts]
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
    for place, role, step in ((3, "train", 15), (1, "validation", 6), (2, "test", 6)):
        with (tmp_path / f"{role}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "text", "label"])
            rows.writerows([f"{role}-{n}", *row] for n, row in enumerate(texts[place::step]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pld(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})


@pytest.mark.model
def test_from_rows_to_a_reviewed_guard_with_the_default_models(home: Path) -> None:
    rows = ["--train", "train.csv", "--validation", "validation.csv", "--test", "test.csv"]
    done = pld("distill", "task.yaml", *rows, "--out", "chat.pld.json", "--max-calls", "40")
    assert done.exit_code == 0, done.stderr
    artifact = DistilledPrompt.load(home / "chat.pld.json")
    assert artifact.student.spec == f"embedded:{catalogue.DEFAULT_MODEL}"

    done = pld("classify", "chat.pld.json", "--input", "test.csv", "--output", "verdicts.jsonl")
    assert done.exit_code == 0, done.stderr
    verdicts = [json.loads(line) for line in (home / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [f"{start} {end}" for start, end in zip(STARTS["rude"], ENDS, strict=False)]
    assert {verdict["status"] for verdict in verdicts} == {"decided"}
    assert {verdict["label"] for verdict in verdicts} <= set(STARTS)

    done = pld("evaluate", "chat.pld.json", "--data", "test.csv", "--train", "train.csv", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)

    artifact_of(artifact.student).save("mood.pld.json")
    done = pld("review", "mood.pld.json", "--accept-all", "--reviewer", "Ilka Ferrand")
    assert done.exit_code == 0, done.stderr

    guard = Guard(PLDClassifier.from_artifact("mood.pld.json"), GuardrailPolicy(block_labels=["no"]))
    with AuditWriter(logging.FileHandler("audit.jsonl")):
        for text in texts:
            guard.check(text)
    (home / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    done = pld("replay", "audit.jsonl", "--artifact", "mood.pld.json", "--texts", "texts.txt", "--json")
    assert done.exit_code == 0, done.stdout + done.stderr
