"""The `pld` command: its version, a model that is missing, and bad use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_pld import __version__
from tests.cli.conftest import Run
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaServer


def test_version() -> None:
    program = "from langchain_pld.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"langchain-pld {__version__}\n"


def test_a_model_that_is_missing_is_a_failed_verdict_with_the_command_that_pulls_it(pld: Run, artifact: Path) -> None:
    with OllamaServer(FakeAnswer(status=404, error="model 'fake' not found")) as server:
        done = pld("classify", artifact, "one", "--json", host=server.url)
    assert done.exit_code == 1
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["status"] == "failed"
    assert "ollama pull fake" in verdict["failure"]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("classify missing.pld.json x", "no artifact at missing.pld.json"),
        ("models path nothing", "no embedded model is called 'nothing'"),
        ("distill no.yaml --train a --validation b --out c", "no task file at no.yaml"),
        ("demo --teacher chess", "'chess' names no model: write PROVIDER:NAME"),
        ("frobnicate", "No such command 'frobnicate'"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    pld: Run, arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = pld(*arguments.split())
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
