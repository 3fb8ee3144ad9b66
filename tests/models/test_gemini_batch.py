"""Gemini's batch interface: the real client of google-genai against a loopback server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from typer.testing import CliRunner

from langchain_pld.cli import app, batch
from langchain_pld.errors import ModelSetupError
from langchain_pld.models.batch import BatchFolder
from langchain_pld.models.batch_rows import Question
from langchain_pld.models.errors import ModelCallError
from langchain_pld.models.gemini_batch import GeminiBatch, gemini_client
from tests.servers.fake_answers import FakeAnswer
from tests.servers.gemini import GeminiServer
from tests.servers.loopback import RecordedRequest, Reply

SCHEMA = {
    "title": "Explanation",
    "type": "object",
    "properties": {"condition": {"type": "string"}},
    "required": ["condition"],
}
Script = Callable[[dict[str, Any]], dict[str, Any]]


def fitting(request: dict[str, Any]) -> dict[str, Any]:
    """A reply to one request of a job."""
    text = json.dumps({"condition": f"If it is {request['contents'][0]['parts'][0]['text']}"})
    usage = {"promptTokenCount": 50, "candidatesTokenCount": 7, "totalTokenCount": 57}
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return {"response": {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-fake"}}


class GeminiBatchServer(GeminiServer):
    """Gemini's batch interface; a job is done when it is looked at for the third time.

    Source of the wire form: https://ai.google.dev/api/batch-api and the types of the `google-genai` package.
    """

    def __init__(self, script: Script = fitting, *, ends_as: str = "SUCCEEDED", looks: int = 3) -> None:
        super().__init__(FakeAnswer())
        self.jobs: dict[str, dict[str, Any]] = {}
        self._script = script
        self._ends_as = ends_as
        self._looks = looks
        self._left: dict[str, int] = {}

    async def respond(self, request: RecordedRequest, reply: Reply) -> None:
        """Create a job, or tell of one."""
        if request.method == "POST" and request.path.endswith(":batchGenerateContent"):
            assert request.body is not None
            name = f"batches/job{len(self.jobs)}"
            self.jobs[name] = request.body["batch"]
            self._left[name] = self._looks
            reply.send(200, json.dumps({"name": name, "metadata": {"state": "BATCH_STATE_PENDING"}}).encode())
        elif request.path.removeprefix("/v1beta/") in self.jobs:
            reply.send(200, json.dumps(self._told(request.path.removeprefix("/v1beta/"))).encode())
        else:
            await super().respond(request, reply)

    def _told(self, name: str) -> dict[str, Any]:
        self._left[name] -= 1
        if self._left[name] > 0:
            return {"name": name, "metadata": {"state": "BATCH_STATE_RUNNING"}}
        metadata: dict[str, Any] = {"state": f"BATCH_STATE_{self._ends_as}"}
        if self._ends_as == "SUCCEEDED":
            requests = self.jobs[name]["inputConfig"]["requests"]["requests"]
            answers = [{**self._script(one["request"]), "metadata": one["metadata"]} for one in requests]
            metadata["output"] = {"inlinedResponses": {"inlinedResponses": answers}}
        return {"name": name, "done": True, "metadata": metadata}


@pytest.fixture
def folder(tmp_path: Path) -> BatchFolder:
    folder = BatchFolder(tmp_path / "answers")
    folder.ask([question(text) for text in ("one", "two", "three")], node="generate")
    return folder


def question(text: str) -> Question:
    return Question.of([SystemMessage("Explain."), HumanMessage(text)], SCHEMA)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[[GeminiServer], None]:
    def connect(server: GeminiServer) -> None:
        monkeypatch.setenv("GOOGLE_API_KEY", "test")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)

    return connect


def test_a_job_carries_prompts_and_schemas_and_its_answers_come_back_under_their_ids(
    folder: BatchFolder, connected: Callable[[GeminiServer], None]
) -> None:
    with GeminiBatchServer() as server:
        connected(server)
        gemini = GeminiBatch(folder, gemini_client())
        (job,) = gemini.send("gemini-fake")
        assert gemini.send("gemini-fake") == []  # all are under way
        assert [one.runs for one in gemini.collect()] == [True]
        # Another process goes on waiting.
        gemini = GeminiBatch(folder, gemini_client())
        gemini.collect()
        (done,) = gemini.collect()
        sent = server.jobs[job.name]["inputConfig"]["requests"]["requests"]
        assert gemini.collect() == []
    assert (done.state, done.runs) == ("JOB_STATE_SUCCEEDED", False)
    assert [one["metadata"]["key"] for one in sent] == list(job.questions)
    request = sent[0]["request"]
    assert request["systemInstruction"]["parts"] == [{"text": "Explain."}]
    assert request["contents"] == [{"role": "user", "parts": [{"text": "one"}]}]
    assert request["generationConfig"]["responseJsonSchema"] == SCHEMA
    assert request["generationConfig"]["responseMimeType"] == "application/json"
    assert folder.open_questions() == []
    found = folder.read_responses().answers
    assert json.loads(found[question("two").id].text) == {"condition": "If it is two"}
    assert (found[question("two").id].input_tokens, found[question("two").id].output_tokens) == (50, 7)


def test_failed_and_blocked_requests_stay_open_and_are_sent_again(
    folder: BatchFolder, connected: Callable[[GeminiServer], None]
) -> None:
    def script(request: dict[str, Any]) -> dict[str, Any]:
        text = request["contents"][0]["parts"][0]["text"]
        if text == "one":
            return {"error": {"code": 13, "message": "internal"}}
        return {"response": {"candidates": [{"finishReason": "SAFETY"}]}} if text == "two" else fitting(request)

    with GeminiBatchServer(script, looks=1) as server:
        connected(server)
        gemini = GeminiBatch(folder, gemini_client())
        gemini.send("gemini-fake")
        gemini.collect()
        assert [one.id for one in folder.open_questions()] == [question("one").id, question("two").id]
        (second,) = gemini.send("gemini-fake")
    assert second.questions == (question("one").id, question("two").id)
    reasons = [bad.reason for bad in folder.read_responses().bad]
    assert '"message": "internal"' in reasons[0]
    assert "holds no answer" in reasons[1]


def test_a_lost_job_leaves_its_questions_open(folder: BatchFolder, connected: Callable[[GeminiServer], None]) -> None:
    with GeminiBatchServer(ends_as="EXPIRED", looks=1) as server:
        connected(server)
        gemini = GeminiBatch(folder, gemini_client())
        gemini.send("gemini-fake")
        (lost,) = gemini.collect()
    assert (lost.state, lost.responses) == ("JOB_STATE_EXPIRED", None)
    assert len(folder.open_questions()) == 3


def test_many_questions_go_in_several_jobs(
    folder: BatchFolder, connected: Callable[[GeminiServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_pld.models.gemini_batch._MOST_BYTES", 2 * len(question("three").line()))
    with GeminiBatchServer() as server:
        connected(server)
        jobs = GeminiBatch(folder, gemini_client()).send("gemini-fake")
    assert [len(job.questions) for job in jobs] == [2, 1]


def test_a_refusal_of_the_service_and_a_missing_key_are_told(
    folder: BatchFolder, connected: Callable[[GeminiServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with GeminiServer(FakeAnswer(), api_key="another") as server:
        connected(server)
        with pytest.raises(ModelCallError, match="failed with 400 INVALID_ARGUMENT: API key not valid"):
            GeminiBatch(folder, gemini_client()).send("gemini-fake")
    with pytest.raises(ModelCallError, match="cannot be reached"):
        GeminiBatch(folder, gemini_client()).send("gemini-fake")
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelSetupError, match="set GOOGLE_API_KEY"):
        gemini_client()


def test_the_command_sends_waits_and_says_what_is_next(
    folder: BatchFolder, connected: Callable[[GeminiServer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "POLL_S", 0.0)
    with GeminiBatchServer() as server:
        connected(server)
        arguments = ["batch", "send", str(folder.path), "--model", "google_genai:gemini-fake"]
        begun = CliRunner().invoke(app, [*arguments, "--no-wait"])
        assert begun.stdout == "batches/job0: 3 questions sent\n3 questions still wait for an answer\n"
        done = CliRunner().invoke(app, arguments)
    assert len(server.jobs) == 1
    assert done.stdout.splitlines() == [
        f"batches/job0: succeeded, answers in {folder.responses / '0001-gemini.jsonl'}",
        "All questions are answered. Next: pld distill --resume RUN",
    ]
