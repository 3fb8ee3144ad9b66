"""Waiting for a call that blocks, but only so long: for clients that would wait for ever."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["within"]

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run a blocking call in another thread and stop waiting for it after some seconds.

    Threads that are done are used again: starting one a call would cost more than everything else around a model call.
    They are daemons, since a pool of the standard library is joined at exit, where a hung client would keep the process
    alive; a thread that hangs is not used again.

    Raises:
        TimeoutError: The time ran out. The call may still run, and its outcome is dropped.
    """
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    future: Future[T] = Future()
    context = contextvars.copy_context()
    worker.jobs.put((future, lambda: context.run(call)))
    return future.result(timeout=seconds)


class _Worker:
    """A thread that runs one job after the other."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="pld-student", daemon=True).start()

    def _run(self) -> None:
        while True:
            future, job = self.jobs.get()
            try:
                outcome, error = job(), None
            except BaseException as caught:  # handed to the caller, who raises it
                outcome, error = None, caught
            # Before the caller wakes, so that its next call finds this thread and starts none.
            _idle.append(self)
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome)
            # An idle thread must not keep the last input and answer alive.
            del future, job, outcome, error


# The idle ones; a list's append and pop are atomic.
_idle: list[_Worker] = []
# A fork copies the list but none of its threads.
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_idle.clear)
