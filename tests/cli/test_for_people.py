"""What people see: an artifact, a verdict, a table on their terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_pld import DistilledPrompt, Verdict
from langchain_pld.artifact import Interval, ScoreCard
from langchain_pld.distillation.run_directory import RunDirectory
from langchain_pld.errors import ArtifactError
from langchain_pld.verdict import Failure
from tests.cli.conftest import Files, Run
from tests.servers.ollama import OllamaServer
from tests.teams import ollama_script


def test_show_prints_labels_rules_and_scores_and_asks_no_model(pld: Run, artifact: Path) -> None:
    done = pld("show", artifact)
    assert done.exit_code == 0, done.stderr
    prompt = DistilledPrompt.load(artifact)
    assert done.stdout.startswith(f"{prompt.id}: amber, violet, green; 3 rules for ollama:fake\nnot scored\n")
    assert "Decide which team gets the note." in done.stdout
    for rule in prompt.rules:
        assert rule.condition in done.stdout
    assert pld("show", artifact, "--prompt").stdout == prompt.system_prompt + "\n"
    assert json.loads(pld("show", artifact, "--json").stdout)["id"] == prompt.id
    assert pld("show", artifact.parent / "none.pld.json").exit_code == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"zero-shot": 0.4, "distilled": 0.7, "incumbent": 0.6}, "0.700 [0.700, 0.700] on 9 test rows"),
        ({"zero-shot": 0.4, "rules, not shipped": 0.5, "incumbent": 0.6}, "0.600 [0.600, 0.600] on 9 test rows"),
    ],
    ids=["distilled", "incumbent"],
)
def test_an_artifact_prints_the_test_score_of_what_was_shipped(
    artifact: Path, names: dict[str, float], expected: str
) -> None:
    def card(name: str, role: str, value: float) -> ScoreCard:
        score = Interval(value=value, low=value, high=value)
        return ScoreCard(
            name=name, role=role, rows=9, student="ollama:fake", calibrated=True, macro_f1=score, accuracy=score
        )

    scores = (
        *(card(name, "test", value) for name, value in names.items()),
        *(card(name, "validation", value + 0.1) for name, value in names.items()),
    )
    made = DistilledPrompt.load(artifact).model_copy(update={"scores": scores})
    assert str(made).splitlines()[1] == f"macro-F1 {expected}"
    assert len(str(made).splitlines()) == 2


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (
            Verdict(
                status="decided", label="ham", predicted_label="ham", confidence=0.9,
                probabilities={"ham": 0.9, "spam": 0.1}, artifact_id="mail@1", decided_by="ollama:a", calibrated=True,
            ),
            "ham (90%)\nby ollama:a with mail@1: ham 0.90, spam 0.10",
        ),
        (
            Verdict(
                status="abstained", predicted_label="ham", confidence=0.6, artifact_id="mail@1", decided_by="ollama:a"
            ),
            "abstained, most likely ham (60%)\nby ollama:a with mail@1",
        ),
        (
            Verdict(status="failed", failure=Failure(kind="empty", message="no\nanswer")),
            "failed: empty, no answer\nby nobody with no artifact",
        ),
    ],
    ids=["decided", "abstained", "failed"],
)  # fmt: skip
def test_a_verdict_is_printed_in_two_lines_and_its_repr_is_exact(verdict: Verdict, expected: str) -> None:
    assert str(verdict) == expected
    assert repr(verdict).startswith("Verdict(status=")


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_on_a_terminal_the_verdicts_are_a_table_with_the_texts(artifact: Path) -> None:
    master, slave = os.openpty()
    texts = ["an invoice", "my \x1b[2Jpassword"]
    with OllamaServer(ollama_script) as server:
        done = subprocess.run(
            [sys.executable, "-c", "from langchain_pld.cli import main; main()", "classify", artifact, *texts],
            stdout=slave,
            stderr=subprocess.PIPE,
            env={"OLLAMA_HOST": server.url, "PATH": "", "PYTHONPATH": ":".join(sys.path), "COLUMNS": "80"},
            check=False,
        )
    os.close(slave)
    shown = os.read(master, 10_000).decode().splitlines()
    os.close(master)
    assert done.returncode == 0, done.stderr
    assert [line.split(maxsplit=2) for line in shown] == [
        ["amber", "0.92", "an invoice"],
        ["green", "0.92", "my  [2Jpassword"],
    ]


def test_a_run_keeps_itself_out_of_a_repository_and_from_other_users(pld: Run, files: Files) -> None:
    out, folder = files.folder / "teams.pld.json", files.folder / ".pld"
    with OllamaServer(ollama_script) as server:
        done = pld(*files.distill, "--out", out, host=server.url)
    assert done.exit_code == 0, done.stderr
    assert (folder / ".gitignore").read_text() == "*\n"
    assert RunDirectory.fresh(out).path.parent.parent == folder
    made = [folder, *folder.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o700}
    with_texts = [path for path in made if path.suffix in {".json", ".sqlite"}]
    assert len(with_texts) == 4
    assert {path.stat().st_mode & 0o777 for path in with_texts} == {0o600}


def test_half_a_surrogate_pair_in_an_artifact_is_an_error_of_the_file(artifact: Path) -> None:
    content = json.loads(artifact.read_text())
    content["notes"] = ["\ud800"]
    artifact.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="half a surrogate pair"):
        DistilledPrompt.load(artifact)
