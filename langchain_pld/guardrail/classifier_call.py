"""Calling one classifier under a deadline, with a circuit breaker; whatever goes wrong is a failed verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_pld.guardrail.nostream import nostream_context
from langchain_pld.steps import Call, Steps
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

    def steps(self, value: ClassifierInput, config: RunnableConfig, deadline_s: float) -> Steps[Verdict]:
        """Its verdict; a failed one where it raised, took too long, gave something else or is not to be asked now."""
        failure = self._breaker.refusal()
        if failure is not None:
            return Verdict(status="failed", failure=failure)
        context = nostream_context(config)
        context.run(worst_chunk.set, self._worst)
        ask = Call(
            lambda: call_within(deadline_s, lambda: self._classifier.invoke(value, config), context),
            lambda: _await_within(deadline_s, self._classifier, value, config, context),
        )
        try:
            verdict = self._read((yield ask))
        except Exception as error:  # whatever a classifier raises is an error of the check, never a pass
            if passes_through(error):
                raise
            verdict = Verdict(status="failed", failure=failure_of(error, self._name))
        self._record(verdict.failure)
        return verdict

    def _read(self, answer: object) -> Verdict:
        if isinstance(answer, Verdict):
            return answer
        message = f"the classifier {self._name} gave a {type(answer).__name__}; it must give a Verdict"
        return Verdict(status="failed", failure=Failure(kind="unexpected", message=message))

    def _record(self, failure: Failure | None) -> None:
        kind = failure.kind if failure is not None else None
        # A classifier's own breaker tells when it asks again; counting its refusals would only lengthen the wait.
        if kind != "circuit_open" and not (kind == "timeout" and not self._counts_timeouts):
            self._breaker.record(failure)


async def _await_within(
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

    async def ask() -> object:
        return await classifier.ainvoke(value, config)

    call = asyncio.create_task(ask(), context=context)
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
