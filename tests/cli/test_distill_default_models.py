"""`pld distill` as a newcomer calls it: no model named, and a file name with periods."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_pld import DistilledPrompt
from langchain_pld.cli import embedded
from tests.cli.conftest import Files, Run
from tests.fakes import FakeChatModel
from tests.teams import rule_for, student_script


class Embedded(FakeChatModel):
    """Stands behind the default model's name, as teacher where a schema is asked for and as student elsewhere."""

    model: str = "qwen2.5-coder-1.5b"

    @property
    def _llm_type(self) -> str:
        return "embedded-llama.cpp"

    def get_token_ids(self, text: str) -> list[int]:
        return [int.from_bytes(word.encode()) for word in text.split()]

    def _reply(self, messages: list[BaseMessage], options: dict[str, Any]) -> ChatResult:
        if "schema" not in options:
            return super()._reply(messages, options)
        answer = AIMessage(rule_for("\n".join(str(message.text) for message in messages)))
        return ChatResult(generations=[ChatGeneration(message=answer)])


@pytest.fixture(autouse=True)
def default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def ready(spec: str) -> Embedded:
        assert spec == "embedded:qwen2.5-coder-1.5b"
        return Embedded(script=student_script)

    monkeypatch.setattr(embedded, "ready_model", ready)


def test_a_run_with_the_default_models_ends_with_an_artifact(pld: Run, files: Files) -> None:
    out = files.folder / "chat.v2.pld.json"
    data = ["--train", files.train, "--validation", files.validation, "--test", files.test]
    done = pld("distill", files.task, *data, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert DistilledPrompt.load(out).student.spec == "embedded:qwen2.5-coder-1.5b"
