"""A coroutine's result for a caller that cannot await, inside a running event loop too."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["run_blocking"]

T = TypeVar("T")


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine; Ctrl-C cancels it.

    Where this thread's event loop runs already, as in a notebook, the coroutine gets a loop and a thread of its own,
    and sees the caller's context variables. The caller's loop stands still for that time.

    Args:
        work: The coroutine.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def beside() -> T:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1, thread_name_prefix="langchain-pld") as pool:
        result = pool.submit(contextvars.copy_context().run, asyncio.run, beside())
        try:
            return result.result()
        except KeyboardInterrupt:
            loop, task = begun.result()
            with suppress(RuntimeError):  # the loop is closed: the work has ended meanwhile
                loop.call_soon_threadsafe(task.cancel)
            raise
