"""Time limits for calls, even through clients that would wait forever.

A guard sets one deadline for a whole check; the classifier's calls, retries and escalation share what is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from langchain_core.runnables import Runnable, RunnableLambda

__all__ = ["ThreadLimit", "acall_within", "call_within", "only_blocks", "remaining_s", "set_deadline"]

T = TypeVar("T")
_POLL_S = 0.01

_deadline: ContextVar[float] = ContextVar("_deadline", default=math.inf)


def set_deadline(seconds: float) -> None:
    """Set a deadline for every call in this context, unless an earlier one is set."""
    _deadline.set(min(_deadline.get(), time.monotonic() + seconds))


def remaining_s() -> float:
    """Seconds until the deadline of this context; infinite without one, 0 or less if it has passed."""
    deadline = _deadline.get()
    return deadline if deadline == math.inf else deadline - time.monotonic()


class ThreadLimit:
    """Limits how many calls of one model hold a thread at once, so that a hanging model takes no other's threads.

    Args:
        size: Maximum number of calls at once.
    """

    def __init__(self, size: int = 32) -> None:
        self._free = threading.BoundedSemaphore(size)

    def acquire(self, seconds: float) -> None:
        """Wait for a free slot.

        Raises:
            TimeoutError: None became free in time.
        """
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError

    async def aacquire(self) -> None:
        """Async form of `acquire`, without a time limit of its own."""
        # Slots are released from threads, which cannot wake an unknown event loop.
        while not self._free.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def release(self) -> None:
        """Free the slot."""
        self._free.release()


def call_within(
    seconds: float, call: Callable[[], T], context: Context | None = None, limit: ThreadLimit | None = None
) -> T:
    """Run a blocking call in another thread, and stop waiting for it after some seconds.

    Idle threads are reused: starting one per call would cost more than everything else around a model call. They are
    daemons, because a standard pool is joined at exit, where a hung client would keep the process alive.

    Args:
        seconds: How long to wait, including the wait for a free slot.
        call: The call to run.
        context: The context to run it in; by default a copy of the caller's.
        limit: Limits how many calls hold a thread; by default unlimited.

    Raises:
        TimeoutError: Time ran out. The call may still be running; its outcome is dropped.
    """
    if seconds <= 0:
        raise TimeoutError
    ends = time.monotonic() + seconds
    if limit is not None:
        limit.acquire(seconds)
    # Not a Future: this queue wakes the caller without running Python code.
    reply: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    _start(_Job(call, copy_context() if context is None else context, limit, reply.put))
    try:
        outcome, error = reply.get(timeout=max(0.0, ends - time.monotonic()))
    except Empty:
        raise TimeoutError from None
    if error is None:
        result: T = outcome
        return result
    try:
        raise error
    finally:
        del error  # its traceback holds this frame


def only_blocks(runnable: Runnable[Any, Any]) -> bool:
    """Whether a Runnable has no async form, so that LangChain would run it in the application's executor."""
    without_afunc = isinstance(runnable, RunnableLambda) and not hasattr(runnable, "afunc")
    return without_afunc or type(runnable).ainvoke is Runnable.ainvoke


async def acall_within(seconds: float, call: Callable[[], T], limit: ThreadLimit) -> T:
    """Async form of `call_within`, which leaves the event loop's executor to the application.

    Raises:
        TimeoutError: Time ran out. The call may still be running; its outcome is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def set_outcome(outcome: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)

    def reply(result: tuple[Any, BaseException | None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop closed while the call hung
            loop.call_soon_threadsafe(set_outcome, *result)

    async with asyncio.timeout(seconds):
        await limit.aacquire()
        _start(_Job(call, copy_context(), limit, reply))
        return await future


class _Job(NamedTuple):
    call: Callable[[], Any]
    context: Context
    limit: ThreadLimit | None
    reply: Callable[[tuple[Any, BaseException | None]], None]


def _start(job: _Job) -> None:
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.jobs.put(job)


class _Worker:
    """A thread that runs one job after another."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        threading.Thread(target=self._run, name="pld-student", daemon=True).start()

    def _run(self) -> None:
        while True:
            call, context, limit, reply = self.jobs.get()
            try:
                outcome, error = context.run(call), None
            except BaseException as caught:  # raised by the caller
                outcome, error = None, caught
            # Idle before the caller wakes, so that its next call reuses this thread.
            _idle.append(self)
            if limit is not None:
                limit.release()
            reply((outcome, error))
            # An idle thread must not keep the last input and answer alive.
            del reply, context, call, limit, outcome, error


# Append and pop of a list are atomic.
_idle: list[_Worker] = []
# A fork copies the list but not the threads.
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_idle.clear)
