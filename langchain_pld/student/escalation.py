"""Asking somebody else: another classifier, chat model or Runnable for what the student leaves open."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, ConfigDict, Field

from langchain_pld.student.deadlines import call_within
from langchain_pld.student.failures import failure_of, passes_through
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.verdict import Failure, Opinion, Verdict

__all__ = ["Escalation", "EscalationBudget", "ask_other", "ask_other_async", "joined", "opinion"]


class Escalation(BaseModel):
    """Whom to ask, about which verdicts, and how often at most."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    to: Runnable[Any, Any]
    """A classifier; a chat model, which is asked with the artifact's own prompt and read as text; or any Runnable that
    takes the input and gives a `Verdict` or the name of a label."""
    on: tuple[Literal["abstained", "failed"], ...] = ("abstained", "failed")
    """The verdicts that are escalated. An input that cannot be classified is not: it is no better elsewhere."""
    budget: int | None = Field(default=None, ge=0)
    """Escalations at most in `per`; `None`: no limit. Beyond it a verdict stays as it is."""
    per: Literal["process", "minute"] = "process"
    """What the budget is for: the lifetime of the classifier in this process, or any sixty seconds."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds that the other may take."""

    def wanted(self, verdict: Verdict) -> bool:
        """Whether a verdict is to be escalated."""
        if verdict.failure is not None and verdict.failure.kind == "input":
            return False
        return verdict.status in self.on


class EscalationBudget:
    """Counts escalations; safe to share between threads and event loops.

    Args:
        escalation: Its `budget` and `per` are kept to.
        clock: Monotonic clock in seconds.
    """

    def __init__(self, escalation: Escalation, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = escalation.budget
        self._window_s = 60.0 if escalation.per == "minute" else None
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()

    def take(self) -> bool:
        """Spend one escalation; `False` when none is left."""
        if self._most is None:
            return True
        with self._lock:
            now = self._clock()
            while self._window_s is not None and self._taken and self._taken[0] <= now - self._window_s:
                self._taken.popleft()
            if len(self._taken) >= self._most:
                return False
            self._taken.append(now)
            return True


def ask_other(
    escalation: Escalation, value: ClassifierInput, config: RunnableConfig, labels: tuple[str, ...]
) -> Verdict:
    """The other's verdict; whatever it raises or gives instead of a label is a failed one."""
    started = time.perf_counter()
    try:
        given = call_within(escalation.timeout_s, lambda: escalation.to.invoke(value, config))
    except Exception as error:
        if passes_through(error):
            raise
        given = failure_of(error, _name(escalation.to))
    return _as_verdict(given, escalation.to, labels, (time.perf_counter() - started) * 1000)


async def ask_other_async(
    escalation: Escalation, value: ClassifierInput, config: RunnableConfig, labels: tuple[str, ...]
) -> Verdict:
    """The same without blocking the event loop."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(escalation.timeout_s):
            given = await escalation.to.ainvoke(value, config)
    except Exception as error:
        if passes_through(error):
            raise
        given = failure_of(error, _name(escalation.to))
    return _as_verdict(given, escalation.to, labels, (time.perf_counter() - started) * 1000)


def joined(first: Verdict, second: Verdict, *, decider: str) -> Verdict:
    """One verdict of two: the second's where it decided, else the first's; with both opinions and what both cost.

    Args:
        first: The student's.
        second: The other's.
        decider: The student's name.
    """
    decided = second.status == "decided"
    shared = {
        "opinions": (opinion(first, decider), *(second.opinions or (opinion(second, second.decided_by or "-"),))),
        "usage": first.usage + second.usage,
        "latency_ms": first.latency_ms + second.latency_ms,
        "chunks": max(first.chunks, second.chunks),
    }
    if not decided:
        return first.model_copy(update=shared)
    return second.model_copy(update={**shared, "artifact_id": second.artifact_id or first.artifact_id})


def opinion(verdict: Verdict, decider: str) -> Opinion:
    """What a verdict says, in short."""
    return Opinion(
        decider=decider,
        status=verdict.status,
        label=verdict.label or verdict.predicted_label,
        confidence=verdict.confidence,
        failure=verdict.failure,
    )


def _name(other: Runnable[Any, Any]) -> str:
    spec = getattr(other, "spec", None)
    return spec if isinstance(spec, str) else other.get_name()


def _as_verdict(given: Any, other: Runnable[Any, Any], labels: tuple[str, ...], latency_ms: float) -> Verdict:
    name = _name(other)
    if isinstance(given, Verdict) and given.label is not None and given.label not in labels:
        given = given.label
    if isinstance(given, Verdict):
        return given if given.decided_by else given.model_copy(update={"decided_by": name})
    if isinstance(given, str) and given in labels:
        return Verdict(status="decided", label=given, predicted_label=given, decided_by=name, latency_ms=latency_ms)
    if not isinstance(given, Failure):
        # What it gave may quote the user's text: only its type is told.
        what = "a label that the task does not have" if isinstance(given, str) else f"a {type(given).__name__}"
        given = Failure(kind="unreadable", message=f"{name} gave {what}; a Verdict or one of the labels is needed")
    return Verdict(status="failed", failure=given, decided_by=name, latency_ms=latency_ms)
