"""Ollama as the student: the real client against a loopback server, with a real model or scripted answers behind it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from time import perf_counter

import pytest
from langchain_ollama import ChatOllama

from langchain_pld import PLDClassifier
from langchain_pld.artifact import ModelFingerprint
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.providers import fingerprint_of
from langchain_pld.student.sanitize import OPENING
from tests.integration.small import TEXTS, artifact_of, small_model_artifact
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaModel, OllamaServer

PLAIN = FakeAnswer.picking({"yes": 0.6, "no": 0.3})
SAME = ModelFingerprint(spec="ollama:fake")


def classifier(server: OllamaServer, *, attempts: int = 2, timeout_s: float = 20.0) -> PLDClassifier:
    return PLDClassifier(
        artifact=artifact_of(SAME),
        student=ChatOllama(model="fake", base_url=server.url),
        timeout_s=timeout_s,
        retry=RetryPolicy(attempts=attempts, initial_s=0),
    )


# A real model behind the server


@pytest.mark.model
async def test_a_model_gives_the_same_probabilities_through_ollama_as_in_process(
    small_model: EmbeddedChatModel,
) -> None:
    embedded = PLDClassifier(
        artifact=small_model_artifact(fingerprint_of(small_model)), student=small_model, timeout_s=120
    )
    direct = [embedded.invoke(text) for text in TEXTS[::3]]
    entry = OllamaModel(name="smol:135m", capabilities=("completion",))
    # The classifier tells the embedded model how its messages begin; Ollama's protocol has no word for that.
    backend = small_model.model_copy(update={"opening": OPENING})
    with OllamaServer(backend, models=(entry,)) as server:
        student = ChatOllama(model="smol:135m", base_url=server.url)
        served = PLDClassifier(
            artifact=small_model_artifact(fingerprint_of(student)),
            student=student,
            timeout_s=120,
            retry=RetryPolicy(attempts=1),
        )
        sync = [served.invoke(text) for text in TEXTS[::3]]
        awaited = [await served.ainvoke(text) for text in TEXTS[::3]]
    assert all(verdict.probabilities for verdict in direct), direct
    for here, there, later in zip(direct, sync, awaited, strict=True):
        assert there.failure is None
        assert there.probabilities == pytest.approx(here.probabilities, abs=1e-6)
        assert later.probabilities == there.probabilities
        assert (there.label, there.decided_by) == (here.label, "ollama:smol:135m")
        assert there.usage.input_tokens == here.usage.input_tokens > 50
    assert len({verdict.confidence for verdict in sync}) > 3


# What can go wrong


async def test_a_missing_model_is_told_with_the_command_that_pulls_it() -> None:
    with OllamaServer(PLAIN, models=()) as server:
        asked = classifier(server)
        for verdict in (asked.invoke("hello"), await asked.ainvoke("hello")):
            assert verdict.status == "failed"
            assert verdict.failure is not None
            assert verdict.failure.kind == "model_missing"
            assert "ollama pull fake" in verdict.failure.message
        assert server.count("/api/chat") == 2  # asking again would not bring the model


async def test_a_stopped_server_is_no_connection() -> None:
    with OllamaServer(PLAIN) as server:
        asked = classifier(server)
        assert asked.invoke("hello").label == "yes"
    for verdict in (asked.invoke("hello"), await asked.ainvoke("hello")):
        assert verdict.status == "failed"
        assert verdict.label is None
        assert verdict.failure is not None
        assert verdict.failure.kind == "connection"


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_failing_server_is_asked_again(way: str) -> None:
    answers = iter([FakeAnswer(status=500, error="loading"), PLAIN])
    with OllamaServer(lambda _: next(answers)) as server:
        asked = classifier(server)
        verdict = asked.invoke("hello") if way == "sync" else await asked.ainvoke("hello")
        assert server.count("/api/chat") == 2
    assert (verdict.status, verdict.label) == ("decided", "yes")


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_silent_server_is_a_timeout(way: str) -> None:
    with OllamaServer(FakeAnswer(content="yes", break_off="hang")) as server:
        asked = classifier(server, attempts=1, timeout_s=0.3)
        begun = perf_counter()
        verdict = asked.invoke("hello") if way == "sync" else await asked.ainvoke("hello")
        took = perf_counter() - begun
    assert verdict.failure is not None
    assert verdict.failure.kind == "timeout"
    assert took < 3


async def test_a_server_too_old_for_log_probabilities_is_no_verdict() -> None:
    answer = {"model": "fake", "message": {"role": "assistant", "content": "yes"}, "done": True, "done_reason": "stop"}
    with OllamaServer(FakeAnswer(body=json.dumps(answer).encode())) as server:
        asked = classifier(server)
        for verdict in (asked.invoke("hello"), await asked.ainvoke("hello")):
            assert verdict.status == "failed"
            assert verdict.failure is not None
            assert verdict.failure.kind == "unreadable"
            assert "log-probabilities" in verdict.failure.message


async def test_an_answer_that_is_none_of_ollamas_is_a_failure_without_its_text() -> None:
    with OllamaServer(FakeAnswer(body=b"<html>the proxy says hello</html>")) as server:
        verdict = await classifier(server).ainvoke("hello")
    assert verdict.status == "failed"
    assert verdict.failure is not None
    assert "proxy says" not in verdict.failure.message


# The fingerprint


def test_the_digest_is_recorded_and_changed_weights_are_told(tmp_path: Path) -> None:
    with OllamaServer(PLAIN, models=(OllamaModel(digest="a" * 64, quantization_level="Q8_0"),)) as server:
        student = ChatOllama(model="fake", base_url=server.url)
        known = fingerprint_of(student)
        assert (known.digest, known.quantization) == ("a" * 64, "Q8_0")
        path = artifact_of(known).save(tmp_path / "mood.pld.json")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same = PLDClassifier.from_artifact(path, student=student)
        assert same.invoke("hello").calibrated
    with OllamaServer(PLAIN, models=(OllamaModel(digest="b" * 64, quantization_level="Q8_0"),)) as server:
        student = ChatOllama(model="fake", base_url=server.url)
        with pytest.warns(UserWarning, match="digest bbbbbbbbbbbb instead of aaaaaaaaaaaa"):
            changed = PLDClassifier.from_artifact(path, student=student)
        verdict = changed.invoke("hello")
    assert (verdict.label, verdict.calibrated) == ("yes", False)
