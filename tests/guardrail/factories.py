"""Guards around scripted verdicts and around a real classifier with a scripted student."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from langchain_pld import Verdict
from langchain_pld.guardrail import Guard, GuardrailPolicy
from langchain_pld.verdict import Failure
from tests.fakes import scored, text_of
from tests.student.small_artifact import classifier

POLICY = GuardrailPolicy(block_labels=["sad"])
LABELS = ("glad", "sad", "calm")


def verdict(label: str, confidence: float = 0.9) -> Verdict:
    rest = (1 - confidence) / (len(LABELS) - 1)
    return Verdict(
        status="decided",
        label=label,
        predicted_label=label,
        probabilities={name: confidence if name == label else rest for name in LABELS},
        confidence=confidence,
        decided_by="fake:student",
        artifact_id="mood@0123456789ab",
        evidence="words of the text",
    )


def failed(kind: Any = "server") -> Verdict:
    return Verdict(status="failed", failure=Failure(kind=kind, message="as told"))


def answering(answer: Any, *, latency_s: float = 0.0) -> Runnable[Any, Any]:
    """A fake classifier: gives what it is told to, or what a function makes of the input; raises exceptions."""

    def give(value: Any) -> Any:
        given = answer(value) if isinstance(answer, Callable) else answer
        if isinstance(given, BaseException):
            raise given
        return given

    def invoke(value: Any) -> Any:
        time.sleep(latency_s)
        return give(value)

    async def ainvoke(value: Any) -> Any:
        await asyncio.sleep(latency_s)
        return give(value)

    return RunnableLambda(invoke, ainvoke)


def guard(answer: Any, *, latency_s: float = 0.0, policy: GuardrailPolicy = POLICY, **options: Any) -> Guard:
    options.setdefault("name", "mood")
    return Guard(answering(answer, latency_s=latency_s), policy, labels=LABELS, **options)


def mood_guard(*, policy: GuardrailPolicy = POLICY, **options: Any) -> Guard:
    """A guard around a `PLDClassifier` whose student finds `grief` sad and `hm` hard to tell."""

    def script(messages: Any) -> Any:
        text = text_of(messages)
        if "grief" in text:
            return scored({"sad": 0.9, "glad": 0.1})
        return scored({"sad": 0.5, "glad": 0.3, "calm": 0.2}) if "hm" in text else scored({"glad": 0.8, "sad": 0.2})

    return Guard(classifier(script), policy, **options)


async def both(guards: Any, value: Any, config: RunnableConfig | None = None) -> Any:
    """The decision, after seeing that the two faces agree."""
    from langchain_pld.guardrail import acheck_all, check_all

    sync = check_all(guards, value, config)
    decision = await acheck_all(guards, value, config)
    assert sync.summary() | {"latency_ms": 0, "findings": ()} == decision.summary() | {"latency_ms": 0, "findings": ()}
    assert sync.verdicts == decision.verdicts
    return decision
