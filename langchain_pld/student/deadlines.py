"""How long a call may take, also through clients that would wait for ever.

A guard sets one deadline for a whole check; the calls of the classifier behind it, its retries and its escalation keep
to what is left of it.
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
    """Let whatever is called in this context end within some seconds; an earlier deadline stays."""
    _deadline.set(min(_deadline.get(), time.monotonic() + seconds))


def remaining_s() -> float:
    """Seconds until the deadline of this context; infinite without one, and not above 0 when it has passed."""
    deadline = _deadline.get()
    return deadline if deadline == math.inf else deadline - time.monotonic()


class ThreadLimit:
    """How many calls of one model may hold a thread at once; one that hangs holds its own until it returns.

    So a model that hangs takes no more than its own threads, and none of another model's or of the application's.

    Args:
        size: Calls at once.
    """

    def __init__(self, size: int = 32) -> None:
        self._free = threading.BoundedSemaphore(size)

    def acquire(self, seconds: float) -> None:
        """Wait for a free place.

        Raises:
            TimeoutError: None became free in time.
        """
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError

    async def aacquire(self) -> None:
        """The same without blocking the event loop, for as long as the caller waits."""
        # Places are given back from threads, which cannot wake a loop that they do not know.
        while not self._free.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def release(self) -> None:
        """Give the place back."""
        self._free.release()


def call_within(
    seconds: float, call: Callable[[], T], context: Context | None = None, limit: ThreadLimit | None = None
) -> T:
    """Run a blocking call in another thread and stop waiting for it after some seconds.

    Threads that are done are used again: starting one a call would cost more than everything else around a model call.
    They are daemons, since a pool of the standard library is joined at exit, where a hung client would keep the process
    alive; a thread that hangs is not used again.

    Args:
        seconds: How long to wait.
        call: What is run.
        context: Where it is run; a copy of the caller's context when absent.
        limit: How many calls may hold a thread; no limit when absent. Waiting for a place is part of the time.

    Raises:
        TimeoutError: The time ran out. The call may still run, and its outcome is dropped.
    """
    if seconds <= 0:
        raise TimeoutError
    ends = time.monotonic() + seconds
    if limit is not None:
        limit.acquire(seconds)
    # No Future: a queue of the interpreter's own wakes the caller without running Python code for it.
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
    """Whether a Runnable has no async form of its own: LangChain runs it in the loop's executor, the application's."""
    without_afunc = isinstance(runnable, RunnableLambda) and not hasattr(runnable, "afunc")
    return without_afunc or type(runnable).ainvoke is Runnable.ainvoke


async def acall_within(seconds: float, call: Callable[[], T], limit: ThreadLimit) -> T:
    """The same without blocking the event loop, and without the threads of its executor, which are the application's.

    Raises:
        TimeoutError: The time ran out. The call may still run, and its outcome is dropped.
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
        with contextlib.suppress(RuntimeError):  # the loop was closed while the call hung
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
    """A thread that runs one job after the other."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        threading.Thread(target=self._run, name="pld-student", daemon=True).start()

    def _run(self) -> None:
        while True:
            call, context, limit, reply = self.jobs.get()
            try:
                outcome, error = context.run(call), None
            except BaseException as caught:  # handed to the caller, who raises it
                outcome, error = None, caught
            # Before the caller wakes, so that its next call finds this thread and starts none.
            _idle.append(self)
            if limit is not None:
                limit.release()
            reply((outcome, error))
            # An idle thread must not keep the last input and answer alive.
            del reply, context, call, limit, outcome, error


# The idle ones; a list's append and pop are atomic.
_idle: list[_Worker] = []
# A fork copies the list but none of its threads.
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_idle.clear)
