"""`pld demo` on the real example data, with scripted answers in place of the model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import langchain_pld
from langchain_pld import DistilledPrompt, Task, read_examples
from langchain_pld.cli.demo import NEW_TEXTS
from tests.cli.conftest import Run
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaServer

SUBJECTS = ("harvests", "wet roofs", "old songs", "slow trains", "lost keys", "tall ships", "warm bread")
EXAMPLES = Path(__file__).parents[2] / "examples"


def script(request: dict[str, Any]) -> FakeAnswer:
    """A teacher with one rule a label, and a student that takes the first label."""
    if request.get("format"):
        told = " ".join(message["content"] for message in request["messages"])
        label = re.search(r'label is "(\w+)"', told)
        subject = SUBJECTS[ord(label[1][0]) % len(SUBJECTS)] if label else "what is to come"
        return FakeAnswer(
            content=json.dumps({"reason": "so", "shared": "so", "condition": f"If it is about {subject}"})
        )
    first = request["messages"][0]["content"].rpartition("one word: ")[2].partition(",")[0]
    return FakeAnswer.picking({first: 0.6})


@pytest.mark.parametrize("task", NEW_TEXTS)
def test_the_demo_shows_the_whole_job(pld: Run, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with OllamaServer(script) as server:
        done = pld("demo", "--task", task, "--out", "my.pld.json", "--model", "ollama:fake", host=server.url)
    assert done.exit_code == 0, done.stderr
    made = DistilledPrompt.load(tmp_path / "my.pld.json")
    beginning, _, rest = done.stdout.partition("Distilled in ")
    assert f"Task:  {task}, " in beginning
    assert "minutes" in beginning
    for name in ("majority", "n-gram", "zero-shot, raw", "rules, not shipped, raw"):
        assert name in rest
    assert f"Ended with: {made.finish_reason}" in rest
    assert made.notes[0] in rest
    for value in NEW_TEXTS[task]:
        assert made.task.render(value).splitlines()[0] in rest
    verdicts = re.findall(r"^  -> (\w+)   \((\w+) [01]\.\d\d, ", rest, re.MULTILINE)
    assert len(verdicts) == len(NEW_TEXTS[task])
    assert all(decided == likeliest in made.task.label_names for decided, likeliest in verdicts)
    assert rest.splitlines()[-1].startswith(f"Artifact {made.id} is in my.pld.json. Next: pld classify my.pld.json ")


@pytest.mark.parametrize("name", NEW_TEXTS)
def test_the_new_texts_are_new(name: str) -> None:
    task = Task.from_yaml(EXAMPLES / f"{name}.yaml")
    known = {
        task.render(row.input)
        for role in ("train", "validation", "test")
        for row in read_examples(EXAMPLES / "data" / name / f"{role}.jsonl", task)
    }
    assert known.isdisjoint(map(task.render, NEW_TEXTS[name]))


def test_before_it_starts_it_says_what_it_downloads(pld: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    done = pld("demo", "--out", tmp_path / "a.pld.json")
    assert f"1.1 GB are downloaded once, into {tmp_path / 'cache'}" in done.stdout
    assert done.exit_code == 2
    assert "cannot get the model qwen2.5-coder-1.5b" in done.stderr


def test_without_the_example_data_it_says_where_it_looked(tmp_path: Path) -> None:
    # The package alone, as an installed wheel has it, seen from a folder without examples.
    (tmp_path / "langchain_pld").symlink_to(Path(langchain_pld.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", "from langchain_pld.cli import main; main()", "demo"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"no folder examples/data/workplace_chat under {tmp_path}" in done.stderr
    assert "clone of the repository" in done.stderr
