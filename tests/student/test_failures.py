"""Exceptions become typed failures; transient ones are retried, and a failing model is left in peace."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import ollama
import pytest
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel

from langchain_pld.models.errors import PromptTooLongError
from langchain_pld.steps import arun_steps, blocking_call, run_steps
from langchain_pld.student.deadlines import set_deadline
from langchain_pld.student.failures import CircuitBreaker, RetryPolicy, failure_of
from langchain_pld.verdict import Failure

SECRET = "the user's own words"


def chained() -> Exception:
    outer = RuntimeError(SECRET)
    outer.__cause__ = ollama.ResponseError(SECRET, 503)
    return outer


TABLE = [
    (httpx.ConnectError(SECRET), "connection", "is its server running"),
    (httpx.ReadTimeout(SECRET), "timeout", "did not answer in time"),
    (ollama.ResponseError(SECRET, 404), "model_missing", "ollama pull tiny:1b"),
    (ollama.ResponseError(SECRET, 401), "authentication", "check the API key"),
    (ollama.ResponseError(SECRET, 403), "authentication", "check the API key"),
    (ollama.ResponseError(SECRET, 429), "rate_limit", "slow down"),
    (ollama.ResponseError(SECRET, 500), "server", "the service's own log"),
    (ollama.ResponseError(SECRET, 400), "unexpected", "ResponseError"),
    (chained(), "server", "RuntimeError"),
    (TimeoutError(SECRET), "timeout", "TimeoutError"),
    (ConnectionResetError(SECRET), "connection", "ConnectionResetError"),
    (OutputParserException(SECRET), "unreadable", "could not parse"),
    (ValueError(SECRET), "unexpected", "raised ValueError"),
]


@pytest.mark.parametrize(("error", "kind", "expected"), TABLE)
def test_an_exception_becomes_a_failure_that_never_quotes_the_user(error: Exception, kind: str, expected: str) -> None:
    failure = failure_of(error, "ollama:tiny:1b")
    assert failure.kind == kind
    assert expected in failure.message
    assert "tiny:1b" in failure.message
    assert SECRET not in failure.message


def test_a_model_missing_elsewhere_gets_no_ollama_advice() -> None:
    assert "ollama" not in failure_of(ollama.ResponseError("x", 404), "openai:gpt").message


@pytest.mark.parametrize(("error", "kind", "_"), TABLE)
async def test_only_transient_failures_are_tried_again(error: Exception, kind: str, _: str) -> None:
    calls: list[int] = []

    def ask() -> None:
        calls.append(1)
        raise error

    policy = RetryPolicy(attempts=3, initial_s=0)
    expected = 3 if Failure(kind=kind, message="").transient else 1  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        run_steps(policy.repeat(blocking_call(ask)))
    assert len(calls) == expected
    with pytest.raises(type(error)):
        await arun_steps(policy.repeat(blocking_call(ask)))
    assert len(calls) == 2 * expected


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    calls: list[int] = []

    async def ask() -> None:
        calls.append(1)
        raise httpx.ConnectError("x")

    set_deadline(5)
    started = time.monotonic()
    with pytest.raises(httpx.ConnectError):
        await RetryPolicy(attempts=3, initial_s=60, max_s=60).acall(ask)
    assert (len(calls), time.monotonic() - started < 1) == (1, True)


def test_the_circuit_opens_lets_one_try_and_closes() -> None:
    now = [0.0]
    breaker = CircuitBreaker(threshold=2, cooldown_s=10, clock=lambda: now[0])
    down = Failure(kind="connection", message="")
    breaker.record(down)
    assert breaker.refusal() is None
    breaker.record(down)
    refused = breaker.refusal()
    assert refused is not None
    assert refused.kind == "circuit_open"
    assert "failed 2 times in a row; it is asked again in 10 s" in refused.message
    now[0] = 10
    assert breaker.refusal() is None
    assert breaker.refusal() is not None
    breaker.record(down)
    now[0] = 19
    assert breaker.refusal() is not None
    now[0] = 20
    assert breaker.refusal() is None
    breaker.record(None)
    assert breaker.refusal() is None


def test_an_input_that_is_refused_says_nothing_about_a_dead_model() -> None:
    breaker = CircuitBreaker(threshold=2)
    for _ in range(2):
        breaker.record(Failure(kind="connection", message="…"))
        breaker.record(Failure(kind="input", message="…"))
    assert breaker.refusal() is not None


def test_unreadable_answers_do_not_open_the_circuit() -> None:
    breaker = CircuitBreaker(threshold=1)
    breaker.record(Failure(kind="unreadable", message=""))
    assert breaker.refusal() is None


class Body(BaseModel):
    done: bool


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (raised(lambda: Body.model_validate({"done": "perhaps"})), "unreadable"),
        (raised(lambda: json.loads("<html>")), "unreadable"),
        (PromptTooLongError(9_000, 8_192), "input"),
    ],
)
def test_a_reply_that_no_client_can_read_and_a_prompt_that_does_not_fit_have_kinds(error: Exception, kind: str) -> None:
    failure = failure_of(error, "ollama:x")
    assert failure.kind == kind
    assert "perhaps" not in failure.message


async def test_a_call_that_succeeds_at_last_gives_its_result() -> None:
    left: list[Exception] = []

    def ask() -> int:
        if left:
            raise left.pop()
        return 7

    policy = RetryPolicy(attempts=3, initial_s=0)
    left[:] = [httpx.ConnectError("x"), ollama.ResponseError("x", 503)]
    assert run_steps(policy.repeat(blocking_call(ask))) == 7
    left[:] = [httpx.ConnectError("x"), ollama.ResponseError("x", 503)]
    assert await arun_steps(policy.repeat(blocking_call(ask))) == 7


def test_one_try_at_a_time_while_half_open() -> None:
    now = [0.0]
    breaker = CircuitBreaker(threshold=1, cooldown_s=10, clock=lambda: now[0])
    breaker.record(Failure(kind="timeout", message=""))
    now[0] = 10
    ready = threading.Barrier(50)

    def ask(_: int) -> bool:
        ready.wait()
        return breaker.refusal() is None

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(ask, range(50))) == 1
    # Nothing is ever recorded of that try: it was cancelled. The next may try after another wait.
    now[0] = 19
    assert breaker.refusal() is not None
    now[0] = 20
    assert breaker.refusal() is None
