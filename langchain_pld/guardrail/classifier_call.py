"""Calling one classifier under a deadline, with a circuit breaker; whatever goes wrong is a failed verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_pld.guardrail.silent_callbacks import silent_context
from langchain_pld.student.chunks import worst_chunk
from langchain_pld.student.deadlines import call_within
from langchain_pld.student.failures import CircuitBreaker, failure_of, passes_through
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.verdict import Failure, Verdict

__all__ = ["ClassifierCall"]


class ClassifierCall:
    """A classifier with its circuit breaker.

    Args:
        classifier: The Runnable that gives a `Verdict`.
        name: Its name in failures.
        worst: Picks the verdict on an input that is read in chunks.
    """

    def __init__(
        self, classifier: Runnable[Any, Verdict], name: str, *, worst: Callable[[Sequence[Verdict]], Verdict]
    ) -> None:
        self._worst = worst
        self._classifier = classifier
        self._name = name
        self._breaker = CircuitBreaker()
        # A wait in the queue of a model in this process is no hang of a service.
        self._counts_timeouts = not getattr(classifier, "in_process", False)

    def call(self, value: ClassifierInput, config: RunnableConfig, deadline_s: float) -> Verdict:
        """Its verdict; a failed one where it raised, took too long, gave something else or is not to be asked now."""
        refused = self._breaker.refuses()
        if refused is not None:
            return _failed(refused)
        try:
            verdict = self._read(
                call_within(deadline_s, lambda: self._classifier.invoke(value, config), self._context(config))
            )
        except Exception as error:  # whatever a classifier raises is an error of the check, never a pass
            if passes_through(error):
                raise
            verdict = _failed(failure_of(error, self._name))
        return self._record(verdict)

    async def acall(self, value: ClassifierInput, config: RunnableConfig, deadline_s: float) -> Verdict:
        """The same without blocking the event loop."""
        refused = self._breaker.refuses()
        if refused is not None:
            return _failed(refused)
        try:
            verdict = self._read(await _awithin(deadline_s, self._classifier, value, config, self._context(config)))
        except Exception as error:  # as above; cancellation is no Exception and passes
            if passes_through(error):
                raise
            verdict = _failed(failure_of(error, self._name))
        return self._record(verdict)

    def _context(self, config: RunnableConfig) -> Context:
        context = silent_context(config)
        context.run(worst_chunk.set, self._worst)
        return context

    def _read(self, answer: object) -> Verdict:
        if isinstance(answer, Verdict):
            return answer
        return _failed(
            Failure(
                kind="unexpected",
                message=f"the classifier {self._name} gave a {type(answer).__name__}; it must give a Verdict",
            )
        )

    def _record(self, verdict: Verdict) -> Verdict:
        kind = verdict.failure.kind if verdict.failure is not None else None
        # A classifier's own breaker tells when it asks again; counting its refusals would only lengthen the wait.
        if kind != "circuit_open" and not (kind == "timeout" and not self._counts_timeouts):
            self._breaker.record(verdict.failure)
        return verdict


async def _awithin(
    seconds: float,
    classifier: Runnable[Any, Verdict],
    value: ClassifierInput,
    config: RunnableConfig,
    context: Context,
) -> object:
    """Await a classifier, but only so long, also one that does not heed its cancellation.

    Raises:
        TimeoutError: The time ran out.
    """
    call = asyncio.create_task(_coroutine(classifier, value, config), context=context)
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


async def _coroutine(classifier: Runnable[Any, Verdict], value: ClassifierInput, config: RunnableConfig) -> object:
    return await classifier.ainvoke(value, config)


def _failed(failure: Failure) -> Verdict:
    return Verdict(status="failed", failure=failure)
