"""Asking the teacher: the cache, answers that do not fit, failures, the rate limiter."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel, Field

from langchain_pld.distillation.plan import Budget
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.teacher import CALLS, Teacher
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.verdict import Failure
from tests.fakes import FakeChatModel


class Rule(BaseModel):
    condition: str = Field(min_length=10)


GOOD = Rule(condition="If it is about an invoice")
PLAIN = GOOD.model_dump_json()
QUESTION = [HumanMessage("Which rule?")]


def answering(*texts: str | Exception) -> FakeChatModel:
    """Says one after the other, the last for ever."""
    left = list(texts)

    def script(_: list[BaseMessage]) -> AIMessage | Exception:
        said = left.pop(0) if len(left) > 1 else left[0]
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        return said if isinstance(said, Exception) else AIMessage(said, usage_metadata=usage)

    return FakeChatModel(script=script)


def teacher(model: FakeChatModel, store: InMemoryStore | None = None, **options: Any) -> Teacher:
    retry = RetryPolicy(attempts=3, initial_s=0)
    return Teacher(model, node="generate", store=store or InMemoryStore(), concurrency=4, retry=retry, **options)


@pytest.mark.parametrize(
    "text", [PLAIN, f"```json\n{PLAIN}\n```", f"Here it is:\n{PLAIN}\nI hope it helps.", PLAIN.replace("an", "an\n")]
)
async def test_json_in_prose_needs_no_second_call(text: str) -> None:
    model = answering(text)
    answer = await teacher(model).ask(QUESTION, Rule)
    assert isinstance(answer, Rule)
    assert len(model.asked) == 1


@pytest.mark.parametrize("text", [PLAIN[:-4], "no", "{}", "[1]", '{"condition": "short"}', "{" * 5000])
async def test_an_answer_that_does_not_fit_is_asked_for_once_more_with_the_reason(text: str) -> None:
    model = answering(text, PLAIN)
    assert await teacher(model).ask(QUESTION, Rule) == GOOD
    assert "An earlier answer did not fit" in str(model.asked[1][-1].text)


async def test_rubbish_twice_is_a_failure_that_is_not_kept() -> None:
    model, store = answering("I would rather not."), InMemoryStore()
    asked = teacher(model, store)
    answer = await asked.ask(QUESTION, Rule)
    assert isinstance(answer, Failure)
    assert answer.kind == "unreadable"
    assert len(model.asked) == 2
    assert (
        asked.spending.ledger[0].calls,
        asked.spending.ledger[0].failures,
        asked.spending.ledger[0].input_tokens,
    ) == (2, 2, 200)
    assert await teacher(answering(PLAIN), store).ask(QUESTION, Rule) == GOOD


class QuotaError(Exception):
    status_code = 429


@pytest.mark.parametrize(
    ("error", "kind", "attempts"),
    [(QuotaError(), "rate_limit", 3), (httpx.ReadTimeout("slow"), "timeout", 3), (ValueError("odd"), "unexpected", 1)],
)
async def test_a_passing_trouble_is_tried_again_a_few_times_and_then_a_failure(
    error: Exception, kind: str, attempts: int
) -> None:
    model = answering(error)
    asked = teacher(model)
    answer = await asked.ask(QUESTION, Rule)
    assert isinstance(answer, Failure)
    assert answer.kind == kind
    assert len(model.asked) == attempts
    assert (asked.spending.ledger[0].calls, asked.spending.ledger[0].failures) == (attempts, attempts), (
        "each retry is a call"
    )


async def test_a_budget_of_calls_holds_for_retries() -> None:
    model = answering(QuotaError())
    asked = teacher(model, spending=Spending(Budget(calls=2)))
    answer = await asked.ask(QUESTION, Rule)
    assert isinstance(answer, Failure)
    assert answer.kind == "budget"
    assert (len(model.asked), asked.spending.ledger[0].calls) == (2, 2)


class KilledError(BaseException):
    """The process ends here."""


async def test_a_run_that_is_killed_while_it_writes_its_ledger_does_not_pay_for_the_answer_again() -> None:
    written: list[dict[str, Any]] = []

    async def keep(state: dict[str, Any]) -> None:
        written.append(state)
        if len(written) == 2:  # the first entry counts the call, the second one its tokens
            raise KilledError

    store, model = InMemoryStore(), answering(PLAIN)
    with pytest.raises(KilledError):
        await teacher(model, store, spending=Spending(keep=keep)).ask(QUESTION, Rule)
    assert [line["calls"] for line in written[0]["lines"]] == [1]
    assert await teacher(model, store).ask(QUESTION, Rule) == GOOD
    assert len(model.asked) == 1


async def test_a_teacher_that_hangs_is_given_up() -> None:
    model = FakeChatModel(script=lambda _: AIMessage(PLAIN), latency_s=30)
    answer = await teacher(model, timeout_s=0.02).ask(QUESTION, Rule)
    assert isinstance(answer, Failure)
    assert answer.kind == "timeout"


async def test_a_kept_answer_that_no_longer_fits_is_asked_for_anew() -> None:
    store, model = InMemoryStore(), answering(PLAIN)
    await teacher(model, store).ask(QUESTION, Rule)
    (kept,) = await store.asearch(CALLS)
    for broken in ({"answer": {"condition": "short"}}, {"else": 1}):
        await store.aput(CALLS, kept.key, broken)
        assert await teacher(model, store).ask(QUESTION, Rule) == GOOD
    assert len(model.asked) == 3


async def test_the_same_question_asked_at_one_time_is_paid_once() -> None:
    model = FakeChatModel(script=lambda _: AIMessage(PLAIN), latency_s=0.02)
    asked = teacher(model)
    await asyncio.gather(*(asked.ask(QUESTION, Rule) for _ in range(4)))
    assert len(model.asked) == 1
    assert (asked.spending.ledger[0].calls, asked.spending.ledger[0].cache_hits) == (1, 3)


async def test_the_seconds_of_a_call_leave_out_its_wait_in_the_queue_of_a_model_in_this_process() -> None:
    def script(_: list[BaseMessage]) -> AIMessage:
        return AIMessage(PLAIN, response_metadata={"timings": {"queue_ms": 60_000.0, "generate_ms": 5.0}})

    asked = teacher(FakeChatModel(script=script, latency_s=0.02))
    await asked.ask(QUESTION, Rule)
    assert asked.spending.ledger[0].seconds == 0.0
    # Other servers' timings know no queue, or are none.
    for metadata in ({"timings": {"prompt_ms": 1}}, {"timings": "fast"}, {"timings": {"queue_ms": "long"}}, {}):
        said = AIMessage(PLAIN, response_metadata=metadata)
        other = teacher(FakeChatModel(script=lambda _, said=said: said, latency_s=0.02))
        await other.ask(QUESTION, Rule)
        assert other.spending.ledger[0].seconds >= 0.02


async def test_the_rate_limiter_of_the_model_is_waited_for() -> None:
    limiter = InMemoryRateLimiter(requests_per_second=20, check_every_n_seconds=0.01, max_bucket_size=1)
    model = FakeChatModel(script=lambda _: AIMessage(PLAIN), rate_limiter=limiter)
    asked, started = teacher(model), time.monotonic()
    await asyncio.gather(*(asked.ask([HumanMessage(f"Rule {number}?")], Rule) for number in range(6)))
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("budget", "calls"),
    [(Budget(calls=3), 3), (Budget(tokens=200), 2), (Budget(usd=0.0011), 2), (Budget(minutes=0), 0), (Budget(), 5)],
)
async def test_a_spent_budget_is_a_failure_without_a_call(budget: Budget, calls: int) -> None:
    model = answering(PLAIN)
    prices = {"fake-chat:fake": Price(input=5.0, output=10.0, cached_input=1.0)}
    spending = Spending(budget, prices=prices)
    asked = teacher(model, spending=spending)
    answers = [await asked.ask([HumanMessage(str(number))], Rule) for number in range(5)]
    assert len(model.asked) == calls
    refused = [answer for answer in answers if isinstance(answer, Failure)]
    assert {answer.kind for answer in refused} <= {"budget"}
    assert bool(refused) == bool(spending.stopped) == (calls < 5)


async def test_calls_in_flight_count_as_calls() -> None:
    model = FakeChatModel(script=lambda _: AIMessage(PLAIN), latency_s=0.01)
    asked = teacher(model, spending=Spending(Budget(calls=2)))
    await asyncio.gather(*(asked.ask([HumanMessage(str(number))], Rule) for number in range(5)))
    assert len(model.asked) == 2


def usage(**details: int) -> Callable[[list[BaseMessage]], AIMessage]:
    tokens = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100, "input_token_details": details}
    return lambda _: AIMessage(json.dumps(GOOD.model_dump()), usage_metadata=tokens)


async def test_the_ledger_knows_the_cost_and_what_is_not_known() -> None:
    price = {"fake-chat:fake": Price(input=1.0, output=10.0, cached_input=0.1)}
    for script, prices, cost in (
        (usage(), price, 0.002),
        (usage(cache_read=500), price, 0.00155),
        (usage(), {}, None),
    ):
        spending = Spending(prices=prices)
        asked = teacher(FakeChatModel(script=script), spending=spending)
        for _ in range(2):
            await asked.ask(QUESTION, Rule)
        (line,) = spending.ledger
        assert (line.calls, line.cache_hits, line.input_tokens) == (1, 1, 1000)
        assert line.cost == (cost if cost is None else pytest.approx(cost))
