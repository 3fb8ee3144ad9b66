"""Typed failures of model calls, retries, and the circuit breaker."""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
from langchain_core.exceptions import ContextOverflowError, OutputParserException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_pld.steps import Call, Steps, arun_steps, pause
from langchain_pld.student.deadlines import remaining_s
from langchain_pld.verdict import Failure, FailureKind

__all__ = ["CircuitBreaker", "RetryPolicy", "failure_of", "passes_through"]

T = TypeVar("T")

_STATUS_KINDS: dict[int, FailureKind] = {
    401: "authentication",
    403: "authentication",
    404: "model_missing",
    408: "timeout",
    429: "rate_limit",
}


class RetryPolicy(BaseModel):
    """How often to retry a transient failure: exponential waits with jitter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=3, ge=1, le=20)
    """Maximum number of calls, including the first."""
    initial_s: float = Field(default=0.2, ge=0)
    """Seconds before the second call; doubled each time."""
    max_s: float = Field(default=5.0, ge=0)
    """Longest wait, in seconds."""

    def repeat(self, call: Call) -> Steps[Any]:
        """Make a call, and retry transient failures while attempts and the deadline allow; the last error is raised."""
        for attempt in itertools.count():
            try:
                return (yield call)
            except Exception as error:
                wait_s = min(self.initial_s * 2**attempt + random.uniform(0, self.initial_s), self.max_s)
                if attempt + 1 >= self.attempts or not _is_transient(error) or wait_s >= remaining_s():
                    raise
            yield pause(wait_s)

    async def acall(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await a function as `repeat` does."""
        result: T = await arun_steps(self.repeat(Call(function, function)))
        return result


class CircuitBreaker:
    """Stops calls to a model that keeps failing, so that callers fail at once instead of timing out.

    After `threshold` failures in a row the circuit opens for `cooldown_s` seconds; then one call goes through, and its
    outcome closes or reopens the circuit. Safe to share between threads and event loops.

    Args:
        threshold: Failures in a row that open the circuit.
        cooldown_s: Seconds that it stays open.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self, *, threshold: int = 5, cooldown_s: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.threshold = threshold
        self.cooldown_s = cooldown_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None

    def refusal(self) -> Failure | None:
        """The failure to return without calling, or `None` if the call may go ahead."""
        if not self._failures:
            return None
        with self._lock:
            if self._open_until is None:
                return None
            now = self._clock()
            if now >= self._open_until:
                # Half open: this caller tries, the others are refused until its outcome is known.
                self._open_until = now + self.cooldown_s
                return None
            return Failure(
                kind="circuit_open",
                message=f"the model failed {self._failures} times in a row; it is asked again in "
                f"{self._open_until - now:.0f} s",
            )

    def record(self, failure: Failure | None) -> None:
        """Record the outcome of a call.

        Only failures of the service count. Any answer, even an unreadable one, shows that the service is up; a refused
        input shows nothing, since it may never have been sent.
        """
        if failure is None and not self._failures:
            return
        if failure is not None and failure.kind == "input":
            return
        with self._lock:
            if failure is None or failure.kind in {"empty", "cut", "unreadable"}:
                self._failures, self._open_until = 0, None
                return
            self._failures += 1
            if self._failures >= self.threshold:
                self._open_until = self._clock() + self.cooldown_s


def passes_through(error: BaseException) -> bool:
    """Whether an exception is control flow, such as a LangGraph interrupt, and not a failure."""
    graph_errors = sys.modules.get("langgraph.errors")
    return graph_errors is not None and isinstance(error, graph_errors.GraphBubbleUp)


def failure_of(error: Exception, model: str) -> Failure:
    """The typed failure for an exception raised by the chat model named `model`."""
    kind = _kind(error)
    return Failure(kind=kind, message=_message(kind, error, model))


def _is_transient(error: BaseException) -> bool:
    return (
        isinstance(error, Exception)
        and not passes_through(error)
        and _kind(error) in {"connection", "timeout", "rate_limit", "server"}
    )


def _kind(error: Exception) -> FailureKind:
    if isinstance(error, ContextOverflowError):
        return "input"
    # An exception may wrap a more telling one: google-genai's ServerError, openai's APIConnectionError.
    status = _status(error)
    if status is not None:
        return _STATUS_KINDS.get(status, "server" if status >= 500 else "unexpected")
    if isinstance(error, TimeoutError | httpx.TimeoutException) or "timeout" in type(error).__name__.casefold():
        return "timeout"
    if isinstance(error, httpx.TransportError | ConnectionError) or "Connection" in type(error).__name__:
        return "connection"
    # The client could not parse the reply: a proxy's page, another API, half a line.
    if isinstance(error, OutputParserException | ValidationError | json.JSONDecodeError):
        return "unreadable"
    return "unexpected"


def _status(error: BaseException | None) -> int | None:
    for _ in range(4):
        if error is None:
            return None
        response = getattr(error, "response", None)
        for value in (
            getattr(error, "status_code", None),
            getattr(error, "code", None),
            getattr(response, "status_code", None),
        ):
            if isinstance(value, int) and 400 <= value < 600:
                return value
        error = error.__cause__
    return None


def _message(kind: FailureKind, error: Exception, model: str) -> str:
    name = type(error).__name__
    advice = {
        "connection": f"no connection to the model {model} ({name}); is its server running and reachable?",
        "timeout": f"the model {model} did not answer in time ({name}); raise the time-out or use a smaller model",
        "authentication": f"the service refused the key for {model} ({name}); check the API key",
        "model_missing": f"the service has no model {model} ({name}){_pull_hint(model)}",
        "rate_limit": f"the service limits the rate of requests to {model} ({name}); slow down or raise the quota",
        "server": f"the service behind {model} failed ({name}); see the service's own log",
        "input": f"the prompt does not fit the context of {model} ({name}); shorten the input or give a longer context",
        "unreadable": f"the model {model} gave an answer that its client could not parse ({name})",
    }
    # The exception's text may quote the prompt and with it the user's text, so only its type is shown.
    return advice.get(kind, f"asking the model {model} raised {name}")


def _pull_hint(model: str) -> str:
    provider, _, name = model.partition(":")
    return f"; run: ollama pull {name}" if provider == "ollama" else "; check the model's name"
