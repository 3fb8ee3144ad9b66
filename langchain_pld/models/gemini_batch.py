"""Sends the open questions of an offline teacher through Gemini's batch API, at half the price of single calls.

Questions are sent inline, in jobs of at most 15 MB. Each job is recorded at once in `DIR/jobs`, so waiting can stop and
resume, and nothing is sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_pld.errors import MissingExtraError, ModelSetupError
from langchain_pld.models.batch import BatchFolder
from langchain_pld.models.batch_rows import Question
from langchain_pld.models.errors import ModelCallError

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.types import BatchJob, InlinedRequest, InlinedResponse

__all__ = ["GeminiBatch", "SentJob", "gemini_client"]

_MOST_BYTES = 15_000_000
_DONE = ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED")
_LOST = ("JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")


def gemini_client() -> Client:
    """The client of google-genai, with the key of GOOGLE_API_KEY or GEMINI_API_KEY.

    Raises:
        MissingExtraError: google-genai is not installed.
        ModelSetupError: There is no key.
    """
    try:
        from google.genai import Client
    except ImportError as error:
        raise MissingExtraError.of("google-genai", "google") from error
    try:
        return Client()
    except ValueError as error:
        raise ModelSetupError("Gemini needs a key: set GOOGLE_API_KEY") from error


@dataclass(frozen=True)
class SentJob:
    """A job at Gemini."""

    name: str
    """Its name at Gemini, `batches/…`."""
    questions: tuple[str, ...]
    """Ids of the questions that it answers."""
    state: str = "JOB_STATE_PENDING"
    """As reported by Gemini."""
    responses: Path | None = None
    """The file with its answers; `None` while there are none."""

    @property
    def runs(self) -> bool:
        """Whether it is still running."""
        return self.state not in (*_DONE, *_LOST)


class GeminiBatch:
    """The jobs of one folder.

    Args:
        folder: Request and response files.
        client: From `gemini_client`.
    """

    def __init__(self, folder: BatchFolder, client: Client) -> None:
        self._folder = folder
        self._client = client
        self._jobs = folder.path / "jobs"

    def send(self, model: str) -> list[SentJob]:
        """Create jobs for the open questions that are in no running job.

        Args:
            model: Gemini's name for the model, e.g. `gemini-2.5-pro`.

        Raises:
            ModelCallError: Gemini refuses the job.
        """
        in_flight = {one for _, job in self._running() for one in job.questions}
        questions = [one for one in self._folder.open_questions() if one.id not in in_flight]
        return [self._create(model, portion) for portion in _portions(questions)]

    def collect(self) -> list[SentJob]:
        """Check the running jobs, and write the answers of finished ones into the response folder.

        Raises:
            ModelCallError: Gemini does not answer.
        """
        return [self._look_after(file, job) for file, job in self._running()]

    def _create(self, model: str, questions: Sequence[Question]) -> SentJob:
        requests = [_request(question) for question in questions]
        job = _call(lambda: self._client.batches.create(model=model, src=requests))
        sent = SentJob(str(job.name), tuple(question.id for question in questions))
        self._jobs.mkdir(exist_ok=True)
        file = self._jobs / f"{''.join(char if char.isalnum() else '-' for char in sent.name)}.json"
        file.write_text(json.dumps({"name": sent.name, "questions": sent.questions}), encoding="utf-8")
        return sent

    def _look_after(self, file: Path, job: SentJob) -> SentJob:
        found: BatchJob = _call(lambda: self._client.batches.get(name=job.name))
        job = replace(job, state=found.state.value if found.state else job.state)
        if job.state in _DONE:
            responses = (found.dest and found.dest.inlined_responses) or []
            if rows := [_row(response, key) for response, key in zip(responses, job.questions, strict=False)]:
                job = replace(job, responses=self._folder.add_responses("gemini", rows))
        if not job.runs:
            file.unlink()
        return job

    def _running(self) -> Iterator[tuple[Path, SentJob]]:
        for file in sorted(self._jobs.glob("*.json")):
            job = json.loads(file.read_text(encoding="utf-8"))
            yield file, SentJob(job["name"], tuple(job["questions"]))


def _portions(questions: Sequence[Question]) -> list[list[Question]]:
    portions: list[list[Question]] = []
    room = 0
    for question in questions:
        length = len(question.line())
        if length > room:
            portions.append([])
            room = _MOST_BYTES
        portions[-1].append(question)
        room -= length
    return portions


def _request(question: Question) -> InlinedRequest:
    from google.genai.types import Content, GenerateContentConfig, InlinedRequest, Part

    roles = {"user": "user", "assistant": "model"}
    system = [str(one["content"]) for one in question.messages if one["role"] == "system"]
    contents: Any = [
        Content(role=roles[one["role"]], parts=[Part(text=str(one["content"]))])
        for one in question.messages
        if one["role"] != "system"
    ]
    config = GenerateContentConfig(
        system_instruction="\n\n".join(system) or None,
        response_mime_type="application/json",
        response_json_schema=dict(question.schema),
    )
    return InlinedRequest(contents=contents, config=config, metadata={"key": question.id})


def _row(response: InlinedResponse, key: str) -> dict[str, Any]:
    """A row of a response file in Gemini's form; if Gemini gives no id, the order of the questions does."""
    found = response.model_dump(mode="json", by_alias=True, exclude_none=True, include={"response", "error"})
    if response.error is not None:
        found["error"] = found["error"] or "unknown"
    return {"key": (response.metadata or {}).get("key", key), **found}


def _call(call: Callable[[], Any]) -> Any:
    from google.genai.errors import APIError
    from httpx import HTTPError

    try:
        return call()
    except APIError as error:
        msg = f"Gemini's batch API failed with {error.code} {error.status}: {error.message}"
        raise ModelCallError(msg) from error
    except HTTPError as error:
        raise ModelCallError(f"Gemini cannot be reached ({type(error).__name__})") from error
