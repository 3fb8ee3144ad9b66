"""Asking a model: in time, in few threads, and not while it keeps failing."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.steps import arun_steps, run_steps
from langchain_pld.student.failures import CircuitBreaker, RetryPolicy
from langchain_pld.student.model_caller import ModelCaller, Reply
from langchain_pld.student.providers import profile_of
from langchain_pld.verdict import Failure
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import WORDS

SAD = scored({"sad": 0.8, "glad": 0.2})
CHAT = [HumanMessage("alas")]


def caller_of(model: BaseChatModel, *, timeout_s: float = 30.0, breaker: CircuitBreaker | None = None) -> ModelCaller:
    return ModelCaller(
        profile_of(model), WORDS, "logprobs", timeout_s=timeout_s, retry=RetryPolicy(attempts=1), breaker=breaker
    )


def kind_of(reply: Reply) -> str | None:
    return reply.kind if isinstance(reply, Failure) else None


async def test_a_try_that_is_cancelled_does_not_leave_the_circuit_stuck() -> None:
    now = [0.0]
    model = FakeChatModel(script=lambda _: httpx.ConnectError("x"))
    caller = caller_of(model, breaker=CircuitBreaker(threshold=1, cooldown_s=10, clock=lambda: now[0]))
    await arun_steps(caller.ask(CHAT, {}))
    now[0] = 10
    model.script, model.latency_s = lambda _: SAD, 5
    trial = asyncio.create_task(arun_steps(caller.ask(CHAT, {})))
    await asyncio.sleep(0.02)
    assert kind_of(await arun_steps(caller.ask(CHAT, {}))) == "circuit_open"
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    now[0], model.latency_s = 20, 0
    assert await arun_steps(caller.ask(CHAT, {})) == SAD


class HangingModel(BaseChatModel):
    """Has no async form, and hangs until it is released."""

    release: Any

    @property
    def _llm_type(self) -> str:
        return "fake-chat"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        self.release.wait()
        return ChatResult(generations=[ChatGeneration(message=SAD)])


async def test_a_model_that_hangs_takes_no_thread_of_the_application_and_a_bounded_number_of_its_own() -> None:
    model = HangingModel(release=threading.Event())
    caller = caller_of(model, timeout_s=0.05, breaker=CircuitBreaker(threshold=1_000))
    before = threading.active_count()
    try:
        replies = await asyncio.gather(*(arun_steps(caller.ask(CHAT, {})) for _ in range(100)))
        replies += [await asyncio.to_thread(run_steps, caller.ask(CHAT, {})) for _ in range(3)]
        assert [kind_of(reply) for reply in replies] == ["timeout"] * 103
        held = [thread for thread in threading.enumerate() if thread.name == "pld-student"]
        assert len(held) <= 32 + before
        started = time.monotonic()
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0), 5)
        assert time.monotonic() - started < 1
    finally:
        model.release.set()
    assert await arun_steps(caller_of(model, timeout_s=5).ask(CHAT, {})) == SAD


async def test_waiting_for_a_model_in_this_process_opens_no_circuit() -> None:
    class BusyModel(EmbeddedChatModel):
        def _generate(self, *_: Any, **__: Any) -> ChatResult:
            raise TimeoutError

        async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
            raise TimeoutError

    caller = caller_of(BusyModel(), breaker=CircuitBreaker(threshold=1))
    replies = [run_steps(caller.ask(CHAT, {})), await arun_steps(caller.ask(CHAT, {}))]
    assert [kind_of(reply) for reply in replies] == ["timeout", "timeout"]


async def test_what_is_no_message_is_unreadable() -> None:
    class TextModel(FakeChatModel):
        def bind(self, **_: Any) -> Any:
            return self

        def invoke(self, *_: Any, **__: Any) -> Any:
            return "sad"

    reply = run_steps(caller_of(TextModel(script=lambda _: AIMessage("sad"))).ask(CHAT, {}))
    assert kind_of(reply) == "unreadable"
