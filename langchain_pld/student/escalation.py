"""Escalation: another classifier, chat model or Runnable decides what the student leaves open."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from langchain_pld.steps import Call, Steps
from langchain_pld.student.deadlines import ThreadLimit, acall_within, call_within, only_blocks, remaining_s
from langchain_pld.student.failures import failure_of, passes_through
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.verdict import Failure, Opinion, Verdict

__all__ = ["Escalation", "EscalationBudget", "ask_other", "merge_verdicts"]


class Escalation(BaseModel):
    """Whom to ask, about which verdicts, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    to: Runnable[Any, Any]
    """A classifier; a chat model, which gets the artifact's prompt and is read as text; or any Runnable that takes the
    input and returns a `Verdict` or a label name."""
    on: tuple[Literal["abstained", "failed"], ...] = ("abstained", "failed")
    """The verdicts to escalate; an input that cannot be classified never is, as it would fail elsewhere too."""
    budget: int | None = Field(default=None, ge=0)
    """Maximum number of escalations in `per`; `None`: no limit. Beyond it a verdict stays as it is."""
    per: Literal["process", "minute"] = "process"
    """Period of the budget: the lifetime of the classifier in this process, or any sixty seconds."""
    timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Time limit in seconds; less if a deadline is nearer."""

    _threads: ThreadLimit = PrivateAttr(default_factory=ThreadLimit)

    def applies_to(self, verdict: Verdict) -> bool:
        """Whether to escalate a verdict."""
        if verdict.failure is not None and verdict.failure.kind == "input":
            return False
        return verdict.status in self.on


class EscalationBudget:
    """Counts escalations against their budget; safe to share between threads and event loops.

    Args:
        escalation: Gives `budget` and `per`.
        clock: Monotonic clock in seconds.
    """

    def __init__(self, escalation: Escalation, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = escalation.budget
        self._window_s = 60.0 if escalation.per == "minute" else None
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()

    def take(self) -> bool:
        """Spend one escalation; `False` if none is left."""
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
) -> Steps[Verdict]:
    """Ask for the other's verdict; an exception or an answer that is not a label becomes a failed one."""
    other, started = escalation.to, time.perf_counter()
    seconds, threads = min(escalation.timeout_s, remaining_s()), escalation._threads
    invoke = partial(other.invoke, value, config)

    async def await_other() -> Any:
        if only_blocks(other):
            return await acall_within(seconds, invoke, threads)
        async with asyncio.timeout(seconds):
            return await other.ainvoke(value, config)

    try:
        answer = yield Call(lambda: call_within(seconds, invoke, limit=threads), await_other)
    except Exception as error:
        if passes_through(error):
            raise
        answer = failure_of(error, _name(other))
    return _as_verdict(answer, _name(other), labels, (time.perf_counter() - started) * 1000)


def merge_verdicts(first: Verdict, second: Verdict, *, decider: str) -> Verdict:
    """The second verdict if it is decided, else the first; with both opinions and the cost of both."""
    shared = {
        "opinions": (_opinion(first, decider), *(second.opinions or (_opinion(second, second.decided_by or "-"),))),
        "usage": first.usage + second.usage,
        "latency_ms": first.latency_ms + second.latency_ms,
        "chunks": max(first.chunks, second.chunks),
    }
    if second.status != "decided":
        return first.model_copy(update=shared)
    return second.model_copy(update={**shared, "artifact_id": second.artifact_id or first.artifact_id})


def _opinion(verdict: Verdict, decider: str) -> Opinion:
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


def _as_verdict(answer: Any, name: str, labels: tuple[str, ...], latency_ms: float) -> Verdict:
    if isinstance(answer, Verdict) and answer.label is not None and answer.label not in labels:
        answer = answer.label
    if isinstance(answer, Verdict):
        return answer if answer.decided_by else answer.model_copy(update={"decided_by": name})
    if isinstance(answer, str) and answer in labels:
        return Verdict(status="decided", label=answer, predicted_label=answer, decided_by=name, latency_ms=latency_ms)
    if not isinstance(answer, Failure):
        # Its answer may quote the user's text, so the message names only the type.
        what = "a label that the task does not have" if isinstance(answer, str) else f"a {type(answer).__name__}"
        message = f"{name} returned {what}; it must return a Verdict or one of the labels"
        answer = Failure(kind="unreadable", message=message)
    return Verdict(status="failed", failure=answer, decided_by=name, latency_ms=latency_ms)
