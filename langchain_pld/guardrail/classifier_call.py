"""Calling one classifier under a deadline; any error becomes a failed verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_pld.guardrail.nostream import nostream_context
from langchain_pld.steps import Call, Steps
from langchain_pld.student.chunks import worst_chunk
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.deadlines import ThreadLimit, acall_within, call_within, only_blocks, set_deadline
from langchain_pld.student.failures import CircuitBreaker, failure_of, passes_through
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.verdict import Failure, Verdict

__all__ = ["ClassifierCall", "unwrap"]

_GRACE_S = 0.05
"""A classifier ends by the deadline itself, and its breaker counts that; seconds in which it may tell."""


class ClassifierCall:
    """A classifier with its circuit breaker: its own where it has one.

    Args:
        classifier: The Runnable that gives a `Verdict`.
        name: Its name in failures.
        worst: Picks the verdict on an input that is read in chunks.
    """

    def __init__(
        self, classifier: Runnable[Any, Verdict], name: str, *, worst: Callable[[Sequence[Verdict]], Verdict]
    ) -> None:
        self._classifier = classifier
        self._name = name
        self._worst = worst
        self._breaker = None if isinstance(unwrap(classifier), PLDClassifier) else CircuitBreaker()
        self._threads = ThreadLimit()
        self._blocks = only_blocks(classifier)

    def steps(self, value: ClassifierInput, config: RunnableConfig, deadline_s: float) -> Steps[Verdict]:
        """Its verdict; a failed one where it raised, took too long, gave something else or is not to be asked now."""
        if self._breaker is not None and (refusal := self._breaker.refusal()) is not None:
            return Verdict(status="failed", failure=refusal)
        context = nostream_context(config)
        context.run(worst_chunk.set, self._worst)
        context.run(set_deadline, deadline_s)
        seconds = deadline_s + (_GRACE_S if self._breaker is None else 0.0)
        invoke = partial(context.run, partial(self._classifier.invoke, value, config))
        ainvoke: Callable[[], Any]
        if self._blocks:
            ainvoke = partial(acall_within, seconds, invoke, self._threads)
        else:
            ainvoke = partial(_await_within, seconds, partial(self._classifier.ainvoke, value, config), context)
        ask = Call(partial(call_within, seconds, invoke, limit=self._threads), ainvoke)
        try:
            verdict = self._read((yield ask))
        except Exception as error:  # whatever a classifier raises is an error of the check, never a pass
            if passes_through(error):
                raise
            verdict = Verdict(status="failed", failure=failure_of(error, self._name))
        if self._breaker is not None:
            self._breaker.record(verdict.failure)
        return verdict

    def _read(self, answer: object) -> Verdict:
        """The verdict, if it is one: anybody can build one that no check has seen."""
        if isinstance(answer, Verdict):
            return Verdict.model_validate(answer.__dict__)
        message = f"the classifier {self._name} gave a {type(answer).__name__}; it must give a Verdict"
        return Verdict(status="failed", failure=Failure(kind="unexpected", message=message))


def unwrap(classifier: Any) -> Any:
    """The classifier in what `with_config`, `with_retry` and the like put around it."""
    inner: Any = classifier
    while (bound := getattr(inner, "bound", None)) is not None:
        inner = bound
    return inner


async def _await_within(seconds: float, ask: Callable[[], Any], context: Context) -> object:
    """Await a classifier, but only so long, also one that does not heed its cancellation.

    Raises:
        TimeoutError: The time ran out.
    """

    async def answer() -> object:
        return await ask()

    call = asyncio.create_task(answer(), context=context)
    try:
        await asyncio.wait([call], timeout=seconds)
    finally:
        if not call.done():
            call.cancel()
            # An outcome that comes too late is looked at, so that asyncio does not report it as forgotten.
            call.add_done_callback(lambda late: late.cancelled() or late.exception())
    if not call.done():
        raise TimeoutError
    return call.result()
