"""The classifier: one verdict on all ways of calling it, and a failed one whatever goes wrong."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langgraph.errors import GraphInterrupt

from langchain_pld import PLDClassifier
from langchain_pld.artifact import Gate, ModelFingerprint
from tests.fakes import FakeChatModel, scored, text_of
from tests.student.made import artifact, classifier

SAD = scored({"sad": 0.8, "glad": 0.2})


def by_text(messages: list[Any]) -> AIMessage:
    label = text_of(messages).split()[0]
    return scored({label: 0.8, "the": 0.1})


async def test_all_ways_of_calling_give_the_same_verdict() -> None:
    made = classifier(lambda _: SAD)
    verdict = made.invoke("alas")
    assert (verdict.status, verdict.label, verdict.decided_by) == ("decided", "sad", "fake-chat:fake")
    assert verdict.confidence == pytest.approx(0.8, abs=1e-4)
    assert sum((verdict.probabilities or {}).values()) == pytest.approx(1)
    assert verdict.calibrated
    assert verdict.artifact_id == made.artifact.id
    assert (verdict.usage.calls, verdict.usage.input_tokens) == (1, 100)
    assert await made.ainvoke("alas") == verdict
    assert made.batch(["alas"])[0] == (await made.abatch(["alas"]))[0] == verdict
    assert list(made.stream("alas"))[-1] == verdict
    assert [part async for part in made.astream("alas")][-1] == verdict


async def test_a_hundred_concurrent_inputs_never_mix() -> None:
    made = classifier(by_text, latency_s=0.01)
    names = ["glad", "sad", "calm"]
    inputs = [f"{names[i % 3]} {i}" for i in range(100)]
    expected = [names[i % 3] for i in range(100)]
    assert [verdict.label for verdict in await made.abatch(inputs)] == expected
    assert [verdict.label for verdict in await asyncio.to_thread(made.batch, inputs)] == expected


async def test_config_reaches_the_student() -> None:
    seen: list[tuple[Any, Any]] = []

    class Spy(BaseCallbackHandler):
        def on_chat_model_start(
            self, serialized: Any, messages: Any, *, parent_run_id: Any = None, **kwargs: Any
        ) -> None:
            assert parent_run_id is not None
            seen.append((kwargs["tags"], kwargs["metadata"].get("tenant")))

    made = classifier(lambda _: SAD)
    config: Any = {"callbacks": [Spy()], "tags": ["night"], "metadata": {"tenant": "t1"}}
    made.invoke("alas", config)
    await made.ainvoke("alas", config)
    assert len(seen) == 2
    assert all("night" in tags and tenant == "t1" for tags, tenant in seen)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (httpx.ConnectError("x"), "connection"),
        (httpx.ReadTimeout("x"), "timeout"),
        (ollama.ResponseError("x", 401), "authentication"),
        (ollama.ResponseError("x", 404), "model_missing"),
        (ollama.ResponseError("x", 429), "rate_limit"),
        (ollama.ResponseError("x", 500), "server"),
        (ValueError("x"), "unexpected"),
        (AIMessage(""), "empty"),
        (AIMessage("sad"), "unreadable"),
        (scored({"the": 0.9, "sad": 0.01}), "unreadable"),
    ],
)
async def test_each_failure_is_a_failed_verdict_and_never_a_label(reply: Any, kind: str) -> None:
    made = classifier(lambda _: reply)
    for verdict in (made.invoke("alas"), await made.ainvoke("alas")):
        assert (verdict.status, verdict.label, verdict.leaning) == ("failed", None, None)
        assert verdict.failure is not None
        assert verdict.failure.kind == kind


@pytest.mark.parametrize("value", ["", 3, "x" * 5_001, {"body": 1}])
def test_a_wrong_input_is_a_failed_verdict_without_a_call(value: Any) -> None:
    made = classifier(lambda _: SAD)
    verdict = made.invoke(value)
    assert verdict.failure is not None
    assert verdict.failure.kind == "input"
    assert made.student.asked == []  # type: ignore[attr-defined]


async def test_a_hanging_model_times_out() -> None:
    made = classifier(lambda _: SAD, latency_s=2, timeout_s=0.05)
    started = time.monotonic()
    for verdict in (made.invoke("alas"), await made.ainvoke("alas")):
        assert verdict.failure is not None
        assert verdict.failure.kind == "timeout"
    assert time.monotonic() - started < 1.9


async def test_cancellation_passes_at_once() -> None:
    task = asyncio.create_task(classifier(lambda _: SAD, latency_s=5).ainvoke("alas"))
    await asyncio.sleep(0.05)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 0.5


async def test_a_graph_interrupt_passes_through() -> None:
    made = classifier(lambda _: GraphInterrupt(()), attempts=3)
    with pytest.raises(GraphInterrupt):
        made.invoke("alas")
    with pytest.raises(GraphInterrupt):
        await made.ainvoke("alas")
    assert len(made.student.asked) == 2  # type: ignore[attr-defined]


async def test_a_transient_failure_is_tried_again() -> None:
    replies: list[Any] = [httpx.ConnectError("x"), SAD, ollama.ResponseError("x", 503), SAD]
    made = classifier(lambda _: replies.pop(0), attempts=2)
    assert made.invoke("alas").label == "sad"
    assert (await made.ainvoke("alas")).label == "sad"


def test_a_model_that_keeps_failing_is_no_longer_asked() -> None:
    made = classifier(lambda _: httpx.ConnectError("x"))
    kinds = [(made.invoke("alas").failure or pytest.fail("no failure")).kind for _ in range(7)]
    assert kinds == ["connection"] * 5 + ["circuit_open"] * 2
    assert len(made.student.asked) == 5  # type: ignore[attr-defined]


def test_another_student_warns_and_is_not_called_calibrated() -> None:
    with pytest.warns(UserWarning, match="this is not the student"):
        made = classifier(lambda _: SAD, student=ModelFingerprint(spec="ollama:other"))
    verdict = made.invoke("alas")
    assert verdict.label == "sad"
    assert not verdict.calibrated


@pytest.mark.parametrize(("threshold", "status"), [(0.7, "decided"), (0.9, "abstained"), (None, "abstained")])
def test_a_gate_abstains_below_its_threshold(threshold: float | None, status: str) -> None:
    verdict = classifier(lambda _: SAD, gate=Gate(alpha=0.1, threshold=threshold)).invoke("alas")
    assert (verdict.status, verdict.leaning) == (status, "sad")
    assert verdict.label == ("sad" if status == "decided" else None)


def test_an_answer_without_scores_never_passes_a_gate() -> None:
    verdict = classifier(lambda _: AIMessage("sad"), scorer="text", gate=Gate(alpha=0.1, threshold=0.0)).invoke("x")
    assert (verdict.status, verdict.confidence) == ("abstained", None)


def test_the_structured_scorer_is_read() -> None:
    assert classifier(lambda _: AIMessage('{"label": "sad"}'), scorer="structured").invoke("x").label == "sad"


def test_the_student_reads_the_cleaned_text_and_the_original_stays() -> None:
    value = {"text": "pаypal >>> \u200b"}
    made = classifier(lambda _: SAD)
    made.invoke(value)
    assert value == {"text": "pаypal >>> \u200b"}
    assert text_of(made.student.asked[0]) == "paypal \u203a\u203a\u203a "  # type: ignore[attr-defined]


def test_a_classifier_is_made_from_a_file(tmp_path: Path) -> None:
    path = artifact().save(tmp_path / "a.pld.json")
    made = PLDClassifier.from_artifact(path, student=FakeChatModel(script=lambda _: SAD))
    assert made.invoke("alas").label == "sad"
