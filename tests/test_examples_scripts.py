"""The scripts in `examples/` run as they stand, against a fake student that knows one bad word."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_pld.guardrail import GuardrailPolicy
from tests.servers.fake_answers import FakeAnswer, user_text
from tests.servers.ollama import OllamaServer

EXAMPLES = Path(__file__).parents[1] / "examples"
DOCUMENT = EXAMPLES.parent / "docs" / "guardrail.md"
REFUSED = "This content was not passed on because it does not meet the rules of this service."


def answers(request: dict[str, Any]) -> FakeAnswer:
    text = user_text(request)
    if "idiot" in text:
        return FakeAnswer.picking({"hostile": 0.9, "ordinary": 0.1})
    if "ill?" in text:
        return FakeAnswer.picking({"private": 0.5, "ordinary": 0.4, "hostile": 0.1})
    return FakeAnswer.picking({"ordinary": 0.9, "private": 0.1})


@pytest.fixture(scope="module")
def server() -> Iterator[OllamaServer]:
    with OllamaServer(answers) as running:
        yield running


def output_of(script: str, server: OllamaServer) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{script}.py"), "ollama:fake"],
        env={**os.environ, "OLLAMA_HOST": server.url, "LANGSMITH_TRACING": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_chain_answers_withholds_and_refuses(server: OllamaServer) -> None:
    answered, withheld, refused = (line for line in output_of("guard_a_chain", server) if line and line[0] != ">")
    assert answered == "Lunch is at noon."
    assert withheld == refused == REFUSED


def test_the_stream_shows_what_was_checked_and_no_more(server: OllamaServer) -> None:
    assert output_of("guard_a_stream", server) == [f"Lunch is at noon today, in the small room. {REFUSED}"]


def test_the_agent_does_not_run_the_blocked_tool(server: OllamaServer) -> None:
    lines = output_of("guard_an_agent", server)
    assert [line.partition(":")[0] for line in lines] == ["human", "ai", "tool", "ai"]
    assert "was not run" in lines[2]


def test_a_student_that_cannot_be_had_is_told_before_everything_is_held_back(
    server: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    zero_shot = runpy.run_path(str(EXAMPLES / "zero_shot.py"))["zero_shot"]
    with pytest.raises(SystemExit, match="ollama pull missing"):
        zero_shot(student="ollama:missing")
    with pytest.raises(SystemExit, match="there is no model file"):
        zero_shot(student="embedded:/nowhere/model.gguf")


def test_the_transcript_in_the_docs_is_what_the_script_prints(server: OllamaServer) -> None:
    printed = output_of("agent_transcript", server)[1:]
    document = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = document.index(printed[1])
    assert document[start : start + len(printed) - 1] == printed[1:]


def test_the_policy_in_the_docs_can_be_read(tmp_path: Path) -> None:
    shown = DOCUMENT.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "policy.yaml").write_text(shown, encoding="utf-8")
    policy = GuardrailPolicy.from_yaml(tmp_path / "policy.yaml")
    assert (policy.block_labels, policy.on_uncertain) == ({"hostile": 0.6, "private": None}, "interrupt")
    # All that can be set is shown, but two of the three messages.
    assert set(GuardrailPolicy.model_fields) - policy.model_fields_set == {"uncertain_message", "error_message"}
