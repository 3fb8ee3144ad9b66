"""`pld distill` with several students, one file of rows, an incumbent, a review, a gate, and a larger budget."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_pld import DistilledPrompt
from tests.cli.conftest import Files, Run
from tests.cli.test_distill import stubborn_script
from tests.cli.test_resume import teacher_calls, the_run
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaModel, OllamaServer
from tests.teams import jsonl, ollama_script, rows

BOTH = (OllamaModel(), OllamaModel(name="stubborn:latest", digest="1" * 64))


def two_students(request: dict[str, Any]) -> FakeAnswer:
    """A teacher, a student that follows rules, and one that does not."""
    return (stubborn_script if request["model"] == "stubborn" else ollama_script)(request)


@pytest.fixture
def both(files: Files) -> list[str]:
    """The command with two students, whose artifacts go into a folder."""
    return [*files.distill, "--student", "ollama:stubborn", "--out", str(files.folder / "prompts")]


def test_several_students_get_an_artifact_each_and_stand_in_one_table(pld: Run, files: Files, both: list[str]) -> None:
    with OllamaServer(two_students, models=BOTH) as server:
        done = pld(*both, host=server.url)
        asked = teacher_calls(server)
    assert done.exit_code == 0, done.stderr
    assert len(set(asked)) == len(asked), "a question to the teacher was paid twice"
    fake, stubborn = (files.folder / "prompts" / f"ollama-{name}.pld.json" for name in ("fake", "stubborn"))
    assert DistilledPrompt.load(fake).rules
    assert DistilledPrompt.load(stubborn).rules == ()
    (table,) = [part for part in done.stdout.split("\n\n") if "test rows: 21" in part]
    found = [tuple(line.split()[:2]) for line in table.splitlines()]
    for row in [("ollama:fake", "zero-shot,"), ("ollama:fake", "distilled,"), ("ollama:stubborn", "zero-shot,")]:
        assert row in found
    for baseline in ("majority", "n-gram"):
        assert sum(baseline in row for row in found) == 1
    assert "Student ollama:stubborn\nEnded with: no_gain" in done.stdout
    assert done.stdout.splitlines()[-2].endswith(f'is in {fake}. Next: pld classify {fake} "a text"')
    assert "student: ollama:stubborn, 2 of 2" in done.stderr


def test_a_run_whose_second_student_is_missing_pays_nothing_and_goes_on_once_it_is_there(
    pld: Run, files: Files, both: list[str]
) -> None:
    with OllamaServer(two_students) as server:
        stopped = pld(*both, host=server.url)
        assert not teacher_calls(server)
    assert stopped.exit_code == 1
    assert "the student ollama:stubborn cannot be used" in stopped.stderr
    with OllamaServer(two_students, models=BOTH) as server:
        done = pld("distill", "--resume", the_run(files), "--json", host=server.url)
    report = json.loads(done.stdout)
    assert [one["student"] for one in report["students"]] == ["ollama:fake", "ollama:stubborn"]
    for one in report["students"]:
        assert DistilledPrompt.load(Path(one["artifact"])).id == one["id"]


def test_one_file_is_split_into_the_three_roles(pld: Run, files: Files) -> None:
    data, out = files.folder / "rows.jsonl", files.folder / "a.pld.json"
    data.write_text(jsonl(rows("all", 90)), encoding="utf-8")
    command = ["distill", files.task, "--data", data, *files.distill[-4:], "--out", out, "--json"]
    with OllamaServer(ollama_script) as server:
        done = pld(*command, "--seed", "3", host=server.url)
        again = pld("distill", "--resume", the_run(files), "--json", host=server.url)
    assert done.exit_code == 0, done.stderr
    assert {role: found.rows for role, found in DistilledPrompt.load(out).data.items()} == {
        "train": 45,
        "validation": 27,
        "test": 18,
    }
    assert "Rows: 45 train, 27 validation, 18 test" in done.stderr
    assert json.loads(again.stdout)["id"] == json.loads(done.stdout)["id"]


def test_an_incumbent_has_to_be_beaten(pld: Run, files: Files) -> None:
    first, second = files.folder / "first.pld.json", files.folder / "second.pld.json"
    other = files.folder / "other.yaml"
    other.write_text(files.task.read_text().replace("gets the note", "takes the note"), encoding="utf-8")
    with OllamaServer(ollama_script) as server:
        assert pld(*files.distill, "--out", first, host=server.url).exit_code == 0
        done = pld(*files.distill, "--out", second, "--incumbent", first, "--json", host=server.url)
        foreign = pld("distill", other, *files.distill[2:], "--out", second, "--incumbent", first, host=server.url)
    old, new = DistilledPrompt.load(first), DistilledPrompt.load(second)
    assert new.parent == old.id
    assert new.system_prompt == old.system_prompt
    assert "the incumbent prompt stays" in json.loads(done.stdout)["notes"][0]
    assert foreign.exit_code == 2
    assert "was made from another wording of the task 'teams'" in foreign.stderr


def test_a_run_that_requires_a_review_ends_with_the_command_for_it(pld: Run, files: Files, both: list[str]) -> None:
    with OllamaServer(two_students, models=BOTH) as server:
        done = pld(*both, "--require-review", "--max-risk", "0.2", host=server.url)
        run = the_run(files)
        line = next(line for line in done.stdout.splitlines() if "wait for a person" in line)
        assert line.endswith(f"Next: pld review {run} --student ollama:fake")
        assert "stubborn" not in line, "a prompt without rules needs nobody"
        again = pld("distill", "--resume", run, host=server.url)
        whose = pld("review", run, "--accept-all", "--reviewer", "Ilka", host=server.url)
        signed = pld("review", run, "--student", "ollama:fake", "--accept-all", "--reviewer", "Ilka", host=server.url)
    assert again.stdout.splitlines()[-2] == done.stdout.splitlines()[-2]
    assert whose.exit_code == 2
    assert "the students of this run are ollama:fake, ollama:stubborn" in whose.stderr
    assert signed.exit_code == 0, signed.stderr
    made = DistilledPrompt.load(files.folder / "prompts" / "ollama-fake.pld.json")
    assert made.signature_problem is None
    assert made.gate is not None
    assert made.gate.alpha == 0.2


def test_conditions_are_grouped_as_asked_by_vectors_of_the_embeddings_named(pld: Run, files: Files) -> None:
    options = ["--embeddings", "ollama:fake", "--clustering", "kmeans", "--out", files.folder / "a.pld.json"]
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, *options, "--json", host=server.url)
        embedded = [request.body["input"] for request in server.requests if request.path == "/api/embed"]
    assert done.exit_code == 0, done.stderr
    assert "clusters by kmeans" in done.stderr
    assert any("invoice" in text for text in embedded[1])
    told = json.loads(done.stdout)["estimate"]
    assert any(
        line["how"] == "a first look, 18 drafts in one call, 6 rules in another" and line["calls"] == 3 for line in told
    )


def test_embeddings_that_are_not_there_end_the_run_with_one_line_and_all_is_kept(pld: Run, files: Files) -> None:
    options = ["--embeddings", "ollama:none", "--out", files.folder / "a.pld.json"]
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, *options, host=server.url)
    assert done.exit_code == 1
    assert re.search(r"OllamaEmbeddings returned no usable vectors for \d+ micro-rules", done.stderr)
    assert f"go on with: pld distill --resume {the_run(files)}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_reached_its_limit_goes_on_with_a_larger_one(pld: Run, files: Files) -> None:
    out = files.folder / "a.pld.json"
    with OllamaServer(ollama_script) as server:
        stopped = pld(*files.distill, "--out", out, "--max-calls", "30", "--json", host=server.url)
        paid = set(teacher_calls(server))
    assert json.loads(stopped.stdout)["finish_reason"] == "budget"
    with OllamaServer(ollama_script) as server:
        done = pld("distill", "--resume", the_run(files), "--max-calls", "5000", "--json", host=server.url)
        assert not paid & set(teacher_calls(server))
        again = pld("distill", "--resume", the_run(files), "--json", host=server.url)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["finish_reason"] == "ceiling"
    assert DistilledPrompt.load(out).rules
    assert "budget: 5000 calls" in again.stderr
    assert json.loads(again.stdout)["id"] == json.loads(done.stdout)["id"]


def test_options_that_do_not_fit_together_are_refused_before_anything_is_asked(
    pld: Run, files: Files, both: list[str]
) -> None:
    out = ["--out", files.folder / "a.pld.json"]
    with OllamaServer(two_students, models=BOTH) as server:
        runs = {
            "--data is split into train, validation and test rows": pld(*files.distill, "--data", files.train, *out),
            "2 students write a file each; give a folder": pld(*both, *out),
            "are the same, or would write the same file": pld(*both, "--student", "ollama:fake"),
            "a risk is between 0 and 1": pld(*files.distill, *out, "--max-risk", "1"),
            "is not one of 'auto', 'paper', 'kmeans'": pld(*files.distill, *out, "--clustering", "best"),
            "names no embeddings": pld(*files.distill, *out, "--embeddings", "nomic"),
            "no file at": pld(*files.distill, *out, "--incumbent", files.folder / "none.pld.json"),
            "--seed: a resumed run has this": pld("distill", "--resume", files.folder, "--seed", "1"),
        }
        assert server.requests == []
    for expected, done in runs.items():
        assert done.exit_code == 2, (expected, done.stdout)
        assert expected in " ".join(done.stderr.split()), done.stderr


@pytest.fixture
def dear(files: Files) -> list[str]:
    """Options of a run that may cost 40 dollars or so."""
    prices = files.folder / "prices.yaml"
    prices.write_text("ollama:fake: {input: 100, output: 100}\n", encoding="utf-8")
    return [*files.distill, "--prices", str(prices), "--out", str(files.folder / "a.pld.json")]


def test_a_dry_run_shows_plan_and_estimate_and_does_nothing(pld: Run, files: Files, dear: list[str]) -> None:
    before = sorted(files.folder.iterdir())
    with OllamaServer(ollama_script) as server:
        shown = pld(*dear, "--dry-run", host=server.url)
        told = pld(*dear, "--dry-run", "--json", host=server.url)
        assert server.requests == []
    assert shown.exit_code == 0, shown.stderr
    assert "Plan: " in shown.stdout
    assert "This run asks" in shown.stdout
    assert json.loads(told.stdout)["cost_usd"] > 1
    assert json.loads(told.stdout)["rows"] == {"train": 18, "validation": 30, "test": 21}
    assert sorted(files.folder.iterdir()) == before


def test_a_dear_run_does_not_begin_where_nobody_can_be_asked(pld: Run, files: Files, dear: list[str]) -> None:
    with OllamaServer(ollama_script) as server:
        refused = pld(*dear, host=server.url)
        assert server.requests == []
        assert not (files.folder / ".pld").exists()
        done = [
            pld(*dear, *said, host=server.url) for said in (["--yes"], ["--confirm-above", "1000"], ["--max-usd", "90"])
        ]
    assert refused.exit_code == 2
    assert re.search(r"the run may cost \d+\.\d\d USD", " ".join(refused.stderr.split()))
    assert [one.exit_code for one in done] == [0, 0, 0]


@pytest.mark.parametrize(("answer", "exit_code"), [("n", 1), ("y", 0)])
def test_a_person_at_a_terminal_is_asked(files: Files, dear: list[str], answer: str, exit_code: int) -> None:
    keyboard, terminal = os.openpty()
    with OllamaServer(ollama_script) as server:
        command = [sys.executable, "-c", "from langchain_pld.cli import main; main()", *dear]
        environment = {**os.environ, "OLLAMA_HOST": server.url}
        os.write(keyboard, f"{answer}\n".encode())
        done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, env=environment, check=False)
        assert bool(server.requests) == (answer == "y")
    os.close(keyboard)
    os.close(terminal)
    assert "USD. Begin? [y/N]" in done.stderr
    assert done.returncode == exit_code
    assert (files.folder / "a.pld.json").exists() == (answer == "y")
