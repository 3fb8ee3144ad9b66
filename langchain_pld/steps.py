"""Logic written once for sync and async callers.

The logic is a generator without I/O. It yields each call in both forms, receives the outcome, and returns its result.
`run_steps` makes the calls in the sync form, `arun_steps` awaits them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

__all__ = ["Call", "Steps", "arun_steps", "blocking_call", "pause", "run_steps"]

T = TypeVar("T")


class Call(NamedTuple):
    """A call in both forms; its exceptions are raised in the generator that yielded it."""

    sync: Callable[[], Any]
    """Makes the call and returns its outcome."""
    awaited: Callable[[], Awaitable[Any]]
    """The same without blocking the event loop."""


Steps: TypeAlias = Generator[Call, Any, T]
"""Logic that returns a `T`."""


def run_steps(steps: Steps[T]) -> T:
    """Run the logic, making its calls one after another."""
    try:
        call = next(steps)
        while True:
            try:
                outcome = call.sync()
            except BaseException as error:  # the generator decides, Ctrl-C included
                call = steps.throw(error)
            else:
                call = steps.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result


async def arun_steps(steps: Steps[T]) -> T:
    """Run the logic, awaiting its calls one after another."""
    try:
        call = next(steps)
        while True:
            try:
                outcome = await call.awaited()
            except BaseException as error:  # the generator decides, cancellation included
                call = steps.throw(error)
            else:
                call = steps.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result


def blocking_call(function: Callable[[], Any]) -> Call:
    """A call that has only a blocking form; it is awaited in a thread of the event loop's executor."""
    return Call(function, lambda: asyncio.to_thread(function))


def pause(seconds: float) -> Call:
    """A call that waits."""
    return Call(lambda: time.sleep(seconds), lambda: asyncio.sleep(seconds))
