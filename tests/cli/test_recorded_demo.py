"""`pld demo --teacher recorded`: shipped answers, and a student that is asked."""

from __future__ import annotations

from pathlib import Path

from langchain_pld import DistilledPrompt
from tests.cli.conftest import Run
from tests.cli.test_demo import script
from tests.servers.ollama import OllamaServer


def test_the_recorded_demo_asks_no_teacher_and_says_where_the_answers_come_from(pld: Run, tmp_path: Path) -> None:
    out = tmp_path / "my.pld.json"
    with OllamaServer(script) as server:
        done = pld("demo", "--teacher", "recorded", "--out", out, "--model", "ollama:fake", host=server.url)
        asked_as_teacher = [request for request in server.requests if request.body and request.body.get("format")]
    assert done.exit_code == 0, done.stderr
    assert asked_as_teacher == []
    assert "Model: ollama:fake, as student\n" in done.stdout
    assert "Teacher: recorded, not live. The answers were written by a strong writer" in done.stdout
    made = DistilledPrompt.load(out)
    assert made.teacher is not None
    assert made.teacher.spec == "recorded:workplace_chat"


def test_another_teacher_can_be_named(pld: Run, tmp_path: Path) -> None:
    with OllamaServer(script) as server:
        given = ("demo", "--teacher", "ollama:nobody", "--model", "ollama:fake", "--out", tmp_path / "a.pld.json")
        done = pld(*given, host=server.url)
    assert "Teacher: ollama:nobody\n" in done.stdout
    assert done.exit_code == 1
    assert "calls to the teacher ollama:nobody failed" in done.stderr
