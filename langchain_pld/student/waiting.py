"""Waiting for a call that blocks, but only so long: for clients that would wait for ever."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

__all__ = ["within"]

T = TypeVar("T")
_Reply = SimpleQueue[tuple[Any, BaseException | None]]


def within(seconds: float, call: Callable[[], T], context: contextvars.Context | None = None) -> T:
    """Run a blocking call in another thread and stop waiting for it after some seconds.

    Threads that are done are used again: starting one a call would cost more than everything else around a model call.
    They are daemons, since a pool of the standard library is joined at exit, where a hung client would keep the process
    alive; a thread that hangs is not used again.

    Args:
        seconds: How long to wait.
        call: What is run.
        context: Where it is run; a copy of the caller's context when absent.

    Raises:
        TimeoutError: The time ran out. The call may still run, and its outcome is dropped.
    """
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    # No Future: a queue of the interpreter's own wakes the caller without running Python code for it.
    reply: _Reply = SimpleQueue()
    worker.jobs.put((reply, contextvars.copy_context() if context is None else context, call))
    try:
        outcome, error = reply.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is None:
        given: T = outcome
        return given
    try:
        raise error
    finally:
        del error  # its traceback holds this frame


class _Worker:
    """A thread that runs one job after the other."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[_Reply, contextvars.Context, Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="pld-student", daemon=True).start()

    def _run(self) -> None:
        while True:
            reply, context, call = self.jobs.get()
            try:
                outcome, error = context.run(call), None
            except BaseException as caught:  # handed to the caller, who raises it
                outcome, error = None, caught
            # Before the caller wakes, so that its next call finds this thread and starts none.
            _idle.append(self)
            reply.put((outcome, error))
            # An idle thread must not keep the last input and answer alive.
            del reply, context, call, outcome, error


# The idle ones; a list's append and pop are atomic.
_idle: list[_Worker] = []
# A fork copies the list but none of its threads.
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_idle.clear)
