"""One generator of logic, run by sync and by async callers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from langchain_pld.steps import Call, Steps, arun_steps, blocking_call, pause, run_steps


def answers(outcome: Any) -> Call:
    """A call that gives, or raises, its outcome."""

    def sync() -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def awaited() -> Any:
        return sync()

    return Call(sync, awaited)


def both(logic: Any) -> list[Any]:
    return [run_steps(logic()), asyncio.run(arun_steps(logic()))]


def test_outcomes_are_sent_and_the_result_is_returned() -> None:
    def logic() -> Steps[int]:
        first = yield answers(1)
        second = yield answers(first + 1)
        yield pause(0)
        return first + second

    assert both(logic) == [3, 3]


def test_logic_without_calls_has_a_result() -> None:
    def logic() -> Steps[str]:
        return "done"
        yield

    assert both(logic) == ["done", "done"]


def test_what_a_call_raises_is_raised_in_the_logic_which_may_go_on() -> None:
    def logic() -> Steps[str]:
        try:
            yield answers(ValueError("no"))
        except ValueError as error:
            return f"{error}, then {(yield answers('yes'))}"
        return "not raised"

    assert both(logic) == ["no, then yes"] * 2


def test_what_the_logic_does_not_catch_is_raised_to_the_caller() -> None:
    def logic() -> Steps[None]:
        yield answers(KeyError("x"))

    with pytest.raises(KeyError):
        run_steps(logic())
    with pytest.raises(KeyError):
        asyncio.run(arun_steps(logic()))


async def test_a_cancelled_caller_ends_the_logic_cleanly() -> None:
    ended: list[str] = []

    def logic() -> Steps[None]:
        try:
            yield pause(30.0)
        finally:
            ended.append("ended")

    task = asyncio.create_task(arun_steps(logic()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended"]


def test_a_blocking_call_is_awaited_in_another_thread() -> None:
    def logic() -> Steps[int]:
        return (yield blocking_call(threading.get_ident))

    sync, awaited = both(logic)
    assert sync == threading.get_ident() != awaited
