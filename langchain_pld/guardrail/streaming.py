"""Logic of streams that is written once for sync and async readers.

As in `langchain_pld.steps`, the logic is a generator without I/O that yields its calls; it also yields what it emits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeAlias

from langchain_pld.steps import Call

__all__ = ["END", "Emit", "Source", "StreamSteps", "arun_stream", "run_stream"]

END = object()
"""What a source gives behind its last chunk."""


class Emit(NamedTuple):
    """Hands a part to the reader."""

    part: Any


StreamSteps: TypeAlias = Generator[Call | Emit, Any, None]


class Source:
    """What a stream is made of, read in either form.

    Args:
        sync: Opens it as an iterator, at the first read.
        awaited: Opens it as an asynchronous iterator.
    """

    def __init__(self, sync: Callable[[], Any], awaited: Callable[[], Any]) -> None:
        self._open = Call(sync, awaited)
        self._chunks: Any = None

    def read(self) -> Call:
        """The next chunk, or `END`."""
        return Call(lambda: next(self._iterator(0), END), lambda: anext(self._iterator(1), END))

    def close(self) -> None:
        """End what writes the stream: a model behind a stream that was cut off must not go on writing."""
        if close := getattr(self._chunks, "close", None):
            close()

    async def aclose(self) -> None:
        """The same for an asynchronous stream."""
        if close := getattr(self._chunks, "aclose", None):
            await close()

    def _iterator(self, form: int) -> Any:
        if self._chunks is None:
            self._chunks = self._open[form]()
        return self._chunks


def run_stream(steps: StreamSteps, source: Source) -> Iterator[Any]:
    """Run the logic and give what it emits; the source is closed at the end, however that comes about."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Emit):
                yield step.part
                step = next(steps)
                continue
            try:
                outcome = step.sync()
            except BaseException as error:  # the logic decides
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration:
        return
    finally:
        source.close()


async def arun_stream(steps: StreamSteps, source: Source) -> AsyncIterator[Any]:
    """The same without blocking the event loop."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Emit):
                yield step.part
                step = next(steps)
                continue
            try:
                outcome = await step.awaited()
            except BaseException as error:  # as above
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration:
        return
    finally:
        await source.aclose()
