"""`pld demo` on its real data and recorded answers, with a scripted student in place of the model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_pld import DistilledPrompt, Task, read_examples
from langchain_pld.cli import app
from tests.cli.conftest import Run
from tests.servers.ollama import OllamaServer
from tests.shop_inbox import GOLD, NEW_DECISIONS, ROLES, SHOP, TASK, shop_student


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DistilledPrompt]:
    out = tmp_path_factory.mktemp("demo") / "my.pld.json"
    with OllamaServer(shop_student) as server:
        options = ["demo", "--out", str(out), "--student", "ollama:fake"]
        done = CliRunner().invoke(app, options, env={"OLLAMA_HOST": server.url, "COLUMNS": "200"})
        assert not [request for request in server.requests if request.body and request.body.get("format")]
    assert done.exit_code == 0, done.stderr
    return done.stdout, DistilledPrompt.load(out)


def test_the_demo_shows_the_whole_job(demo: tuple[str, DistilledPrompt]) -> None:
    printed, made = demo
    beginning, _, rest = printed.partition("rows, read once")
    rows = {role: len(read_examples(SHOP / f"{role}.jsonl", TASK)) for role in ROLES}
    assert rows["validation"] >= 100
    assert rows["test"] >= 100
    assert f"Rows:    {rows['train']} train, {rows['validation']} validation, {rows['test']} test" in beginning
    assert "Student: ollama:fake\n" in beginning
    assert "Teacher: recorded, not live. A strong writer" in beginning
    assert "minutes" in beginning
    for name in ("majority", "n-gram", "zero-shot, raw", "distilled, raw", "distilled, calibrated"):
        assert name in rest
    assert made.teacher is not None
    assert made.teacher.spec == "recorded:shop_inbox"
    unwrapped = " ".join(rest.split())
    assert "the distilled prompt is better: against zero-shot" in unwrapped
    assert f"distilled against zero-shot, macro-F1 on {rows['test']} test rows" in unwrapped
    assert all(rule.id in rest for rule in made.rules)
    assert "All of it took " in rest
    assert f"The artifact {made.id} is in " in rest


def test_each_new_text_is_shown_with_the_rule_that_decides_it(demo: tuple[str, DistilledPrompt]) -> None:
    printed, made = demo
    unwrapped = " ".join(printed.split())
    rules = {rule.id: rule for rule in made.rules}
    for text, (label, words) in NEW_DECISIONS.items():
        assert text not in GOLD
        shown = re.search(rf"{re.escape(text)} -> (\w+) .*?\((r-\w+); without it -> (\w+)", unwrapped)
        assert shown is not None
        assert shown[1] == label == rules[shown[2]].label
        assert words in rules[shown[2]].condition
        assert shown[3] != label


def test_task_and_rows_can_be_copied_to_start_from(pld: Run, tmp_path: Path) -> None:
    mine = tmp_path / "my shop"
    done = pld("demo", "--copy", mine)
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in mine.iterdir()} == {"task.yaml", *(f"{role}.jsonl" for role in ROLES)}
    assert Task.from_yaml(mine / "task.yaml") == TASK
    command = shlex.split(done.stdout.partition("pld distill ")[2])
    assert [Path(word) for word in command if Path(word).is_file()] == [
        mine / name for name in ("task.yaml", "train.jsonl", "validation.jsonl", "test.jsonl")
    ]
    again = pld("demo", "--copy", mine)
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    (tmp_path / "file").write_text("")
    under_a_file = pld("demo", "--copy", tmp_path / "file" / "mine")
    assert under_a_file.exit_code == 2
    assert "cannot copy into" in under_a_file.stderr


def test_another_teacher_can_be_named(pld: Run, tmp_path: Path) -> None:
    with OllamaServer(shop_student) as server:
        given = ("demo", "--teacher", "ollama:nobody", "--student", "ollama:fake", "--out", tmp_path / "a.pld.json")
        done = pld(*given, host=server.url)
    assert "Teacher: ollama:nobody, live\n" in done.stdout
    assert done.exit_code == 1
    assert "the teacher ollama:nobody cannot be used" in done.stderr
    assert "run: ollama pull nobody" in done.stderr


def test_before_it_starts_it_says_what_it_downloads(pld: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    done = pld("demo", "--out", tmp_path / "a.pld.json")
    assert f"1.1 GB are downloaded once, into {tmp_path / 'cache'}" in " ".join(done.stdout.split())
    assert done.exit_code == 2
    assert "cannot get the model qwen2.5-coder-1.5b" in done.stderr


def test_the_package_alone_has_all_that_the_demo_reads(tmp_path: Path) -> None:
    # As an installed wheel has it, seen from a folder without examples.
    shutil.copytree(SHOP.parents[1], tmp_path / "langchain_pld", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", "from langchain_pld.cli import main; main()", "demo", "--student", "nobody:x"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Teacher: recorded, not live." in done.stdout
    assert done.returncode == 2
    assert "nobody" in done.stderr
