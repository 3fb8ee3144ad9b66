"""Modes 4, 5, 6 and 20: event loops, many users at once, control flow that passes, and one slow check among others."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import time
from asyncio.selector_events import _SelectorTransport  # type: ignore[attr-defined]
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Command, interrupt

from langchain_pld.guardrail import Guard
from langchain_pld.student.inputs import input_text
from langchain_pld.verdict import Verdict
from tests.guardrail.agents import BAD
from tests.guardrail.factories import LABELS, POLICY, verdict
from tests.guardrail.failure_modes.call_styles import BLOCKED, HOWS, UNCHECKED, CallStyle, each_style, main_model, watch
from tests.guardrail.failure_modes.test_no_verdict import served
from tests.servers.fake_answers import FakeAnswer, user_text
from tests.servers.ollama import OllamaServer
from tests.student.small_artifact import TASK


def by_text(request: dict[str, Any]) -> FakeAnswer:
    return FakeAnswer.picking({"sad": 0.9, "glad": 0.1} if BAD in user_text(request) else {"glad": 0.9, "sad": 0.1})


def from_text(answer: Callable[[str], Verdict], wait: Callable[[str], float]) -> Runnable[Any, Verdict]:
    """A fake classifier that answers by the text, after a wait by the text."""

    def invoke(value: Any) -> Verdict:
        text = input_text(TASK, value)
        time.sleep(wait(text))
        return answer(text)

    async def ainvoke(value: Any) -> Verdict:
        text = input_text(TASK, value)
        await asyncio.sleep(wait(text))
        return answer(text)

    return RunnableLambda(invoke, ainvoke)


# --- 4


@each_style(hows=["invoke", "stream"])
async def test_mode_04_a_guard_called_synchronously_inside_a_running_event_loop_works(style: CallStyle) -> None:
    with OllamaServer(by_text) as server:
        assert BLOCKED in str(style(served(server), f"tell me {BAD}"))
        assert style(served(server), "good morning").reached


@each_style(hows=["ainvoke", "astream"])
def test_mode_04_a_guard_that_outlives_its_event_loop_works_in_the_next(style: CallStyle) -> None:
    """Web frameworks and notebooks start a loop for each call, while a client keeps the connections of the first."""
    with OllamaServer(by_text, keep_alive=True) as server:
        watched = served(server)
        for _ in range(3):
            assert style(watched, "good morning").reached
            close_what_closed_loops_left()
        assert BLOCKED in str(style(watched, f"tell me {BAD}"))
        close_what_closed_loops_left()


def close_what_closed_loops_left() -> None:
    # LangChain's client never closes its connections, of which Python would warn in some later test.
    for found in gc.get_objects():
        if isinstance(found, _SelectorTransport) and found._sock is not None and found._loop.is_closed():
            found._sock.close()
            found._sock = None


# --- 5


@each_style()
def test_mode_05_the_verdicts_of_a_hundred_users_do_not_mix(style: CallStyle) -> None:
    def answer(text: str) -> Verdict:
        return verdict("sad" if BAD in text else "glad")

    def wait(text: str) -> float:
        return (int(text.split()[0]) * 7 % 10) / 1000

    watched = Guard(from_text(answer, wait), POLICY, labels=LABELS)
    made = style.build(watched, checkpointer=InMemorySaver())
    texts = [f"{user} {BAD if user % 3 == 0 else 'fine'}" for user in range(100)]
    shown = all_at_once(made, [style.input(text) for text in texts], style.how)
    assert [BLOCKED in str(answer) for answer in shown] == [user % 3 == 0 for user in range(100)]
    # A part of a stream that came from another user would name its number.
    heard = [set(re.findall(r"(\d+) (?:fine|FORBIDDEN)", str(answer))) for answer in shown]
    assert all(numbers <= {str(user)} for user, numbers in enumerate(heard))


@pytest.mark.parametrize("how", HOWS)
def test_mode_05_nor_do_they_over_a_real_connection(how: str) -> None:
    with OllamaServer(by_text) as server:
        guarded = CallStyle("chain", how).build(served(server))
        texts = [f"{user} {BAD if user % 3 == 0 else 'fine'}" for user in range(100)]
        shown = all_at_once(guarded, texts, how, at_once=20)
    assert [BLOCKED in str(answer) for answer in shown] == [user % 3 == 0 for user in range(100)]


def all_at_once(made: Any, inputs: list[Any], how: str, *, at_once: int = 100) -> list[Any]:
    """What each input gave, all called at the same time, each in a thread of conversation of its own."""
    configs: Any = [{"configurable": {"thread_id": str(user)}} for user in range(len(inputs))]
    if how in {"invoke", "stream"}:

        def call(value: Any, config: Any) -> Any:
            return made.invoke(value, config) if how == "invoke" else list(made.stream(value, config))

        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(call, inputs, configs))

    async def acall(value: Any, config: Any, slots: asyncio.Semaphore) -> Any:
        async with slots:
            if how == "ainvoke":
                return await made.ainvoke(value, config)
            return [part async for part in made.astream(value, config)]

    async def all_of_them() -> list[Any]:
        slots = asyncio.Semaphore(at_once)
        return await asyncio.gather(*(acall(*pair, slots) for pair in zip(inputs, configs, strict=True)))

    return asyncio.run(all_of_them())


# --- 6

PASSING = [GraphInterrupt(()), GraphBubbleUp(), ParentCommand(Command(goto="x"))]


@each_style()
@pytest.mark.parametrize("passing", PASSING, ids=lambda error: type(error).__name__)
def test_mode_06_control_flow_is_not_swallowed(style: CallStyle, passing: BaseException) -> None:
    """Under a policy that lets errors pass, so that one taken for an error would open the gate."""
    watched = watch(lambda _: passing, policy={"on_error": "allow", "on_uncertain": "allow"})
    model = main_model()
    shown = ""
    try:
        # A graph turns the interrupt of a node into a pause of its own.
        shown = str(style(watched, "good morning", {"configurable": {"thread_id": "1"}}, model=model))
    except GraphBubbleUp as error:
        assert isinstance(error, type(passing)), repr(error)
    else:
        assert style.place != "chain", "only a graph may have dealt with it"
    assert model.asked == []
    assert UNCHECKED not in shown


@each_style(places=["node", "subgraph", "agent"])
def test_mode_06_a_question_from_below_the_guard_is_put_and_its_answer_counts(style: CallStyle) -> None:
    def asks(value: Any) -> Verdict:
        return verdict(interrupt("which?"))

    async def aasks(value: Any) -> Verdict:
        return verdict(interrupt("which?"))

    for label, reached in (("glad", True), ("sad", False)):
        watched = Guard(RunnableLambda(asks, aasks), POLICY, labels=LABELS)
        memory, config, model = InMemorySaver(), {"configurable": {"thread_id": "1"}}, main_model()
        paused = style(watched, "good morning", config, model=model, checkpointer=memory)
        assert "which?" in str(paused)
        assert not paused.reached
        made = style.build(watched, model=model, checkpointer=memory)
        made.invoke(Command(resume=label), config)
        assert bool(model.asked) == reached


@each_style(hows=["ainvoke", "astream"])
def test_mode_06_a_cancelled_call_ends_at_once(style: CallStyle) -> None:
    watched = Guard(from_text(lambda _: verdict("glad"), lambda _: 5.0), POLICY, labels=LABELS)
    model = main_model()

    async def cancelled() -> float:
        made, given = style.build(watched, model=model), style.input("good morning")

        async def read() -> None:
            if style.how == "ainvoke":
                await made.ainvoke(given)
            else:
                async for _ in made.astream(given):
                    pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - started

    assert asyncio.run(cancelled()) < 1
    assert model.asked == []


# --- 20


@each_style()
def test_mode_20_one_slow_check_stalls_no_other(style: CallStyle) -> None:
    """Checks share neither a lock nor a queue: the others are done while the slow one still waits."""
    ended: list[str] = []

    def waits(text: str) -> bool:
        return "slow" in text and len(ended) < 20

    def answer(text: str) -> Verdict:
        while waits(text):
            time.sleep(0.01)
        return verdict("glad")

    async def aanswer(text: str) -> Verdict:
        while waits(text):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return verdict("glad")

    policy = POLICY.model_copy(update={"deadline_s": 60.0})
    watched = Guard(RunnableLambda(answer, aanswer), policy, labels=LABELS)
    texts = ["slow", *(str(user) for user in range(20))]
    made = style.build(watched)
    if style.how in {"invoke", "stream"}:
        threads = [threading.Thread(target=lambda text=text: end(made, style, text, ended)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:

        async def all_of_them() -> None:
            await asyncio.gather(*(aend(made, style, text, ended) for text in texts))

        asyncio.run(all_of_them())
    assert ended[-1] == "slow"
    assert len(ended) == 21


def end(made: Any, style: CallStyle, text: str, ended: list[str]) -> None:
    if style.how == "invoke":
        made.invoke(style.input(text))
    else:
        list(made.stream(style.input(text)))
    ended.append(text)


async def aend(made: Any, style: CallStyle, text: str, ended: list[str]) -> None:
    if style.how == "ainvoke":
        await made.ainvoke(style.input(text))
    else:
        async for _ in made.astream(style.input(text)):
            pass
    ended.append(text)


class FakeOneAtATime(Runnable[Any, Verdict]):
    """A classifier whose model is inside this process and serves one request at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Verdict:  # noqa: A002
        with self._turn:
            time.sleep(0.7 if input == "slow" else 0.0)
            return verdict("glad")

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Verdict:  # noqa: A002
        return await asyncio.to_thread(self.invoke, input, config)


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_20_behind_a_model_that_serves_one_at_a_time_the_deadline_ends_the_wait(sync: bool) -> None:
    """A model inside the process has one queue. What is promised then: no check waits longer than its deadline, what
    was not checked in time stays closed."""
    policy = POLICY.model_copy(update={"deadline_s": 0.2})
    watched = Guard(FakeOneAtATime(), policy, labels=LABELS)
    texts = ["slow", *map(str, range(6))]
    started = time.perf_counter()
    if sync:
        decisions = await asyncio.gather(*(asyncio.to_thread(watched.check, text) for text in texts))
    else:
        decisions = await asyncio.gather(*(watched.acheck(text) for text in texts))
    assert time.perf_counter() - started < 0.65
    assert all(decision.reason.endswith("(timeout)") for decision in decisions if not decision.allowed)
    assert not decisions[0].allowed
