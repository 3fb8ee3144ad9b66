"""Calling one chat model, with retries, time limits and a circuit breaker."""

from __future__ import annotations

import asyncio
from functools import cached_property, partial
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.steps import Call, Steps
from langchain_pld.student.deadlines import ThreadLimit, acall_within, call_within, remaining_s
from langchain_pld.student.failures import CircuitBreaker, RetryPolicy, failure_of, passes_through
from langchain_pld.student.providers import ModelProfile
from langchain_pld.verdict import Failure

__all__ = ["ModelCaller", "Reply"]

Reply: TypeAlias = AIMessage | Failure

_Bound = tuple[Runnable[Any, AIMessage], dict[str, Any]]


class ModelCaller:
    """Asks a model for answers in one form; whatever it raises becomes a `Failure`, never a label."""

    def __init__(
        self,
        profile: ModelProfile,
        answer: AnswerFormat,
        scorer: Scorer,
        *,
        timeout_s: float,
        retry: RetryPolicy,
        context_length: int | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._profile = profile
        self._answer = answer
        self._scorer: Scorer = scorer
        self._timeout_s = timeout_s
        self._retry = retry
        self._context_length = context_length
        self._breaker = breaker or CircuitBreaker()
        self._threads = ThreadLimit()
        self._keeps_time = profile.keeps_time(timeout_s)
        self._has_async_form = profile.has_async_form
        self._bound_in_loop: dict[asyncio.AbstractEventLoop, _Bound] = {}
        if scorer == "structured":
            _ = self._bound  # a model without structured output fails now, not at the first input

    def ask(self, messages: list[BaseMessage], config: RunnableConfig) -> Steps[Reply]:
        """Ask one question."""
        refusal = self._breaker.refusal()
        if refusal is not None:
            return refusal
        call = Call(partial(self._call, messages, config), partial(self._acall, messages, config))
        try:
            reply = yield from self._retry.repeat(call)
        except Exception as error:  # becomes a typed failure
            if passes_through(error):
                raise
            failure = failure_of(error, self._profile.spec)
            # Waiting for a model in this process does not mean that a service hangs.
            if failure.kind != "timeout" or not self._profile.in_process:
                self._breaker.record(failure)
            return failure
        self._breaker.record(None)
        return self._read(reply)

    def _call(self, messages: list[BaseMessage], config: RunnableConfig) -> object:
        model, options = self._bound
        seconds = remaining_s()
        if self._keeps_time and seconds >= self._timeout_s:
            return model.invoke(messages, config, **options)
        call = partial(model.invoke, messages, config, **options)
        return call_within(min(seconds, self._timeout_s), call, limit=self._threads)

    async def _acall(self, messages: list[BaseMessage], config: RunnableConfig) -> object:
        model, options = self._bound_here()
        seconds = remaining_s()
        if not self._has_async_form:
            call = partial(model.invoke, messages, config, **options)
            return await acall_within(min(seconds, self._timeout_s), call, self._threads)
        if self._keeps_time and seconds >= self._timeout_s:
            return await model.ainvoke(messages, config, **options)
        async with asyncio.timeout(min(seconds, self._timeout_s)):
            return await model.ainvoke(messages, config, **options)

    def _read(self, reply: object) -> Reply:
        """The answer, if it is one: some clients return another kind of message, or none."""
        if not isinstance(reply, AIMessage):
            if not isinstance(reply, BaseMessage):
                message = f"the model gave a {type(reply).__name__} instead of a message"
                return Failure(kind="unreadable", message=message)
            reply = AIMessage(reply.content, response_metadata=reply.response_metadata)
        context = self._context_length
        if context is not None and self._profile.was_cut(reply, context):
            message = f"the prompt filled the context of {context} tokens, so it may have been cut; raise num_ctx"
            return Failure(kind="input", message=message)
        return reply

    def _bound_here(self) -> _Bound:
        """The bound model for the running event loop."""
        if not self._profile.bound_to_loop:
            return self._bound
        loop = asyncio.get_running_loop()
        bound = self._bound_in_loop.get(loop)
        if bound is None:
            for other in [other for other in list(self._bound_in_loop) if other.is_closed()]:
                self._bound_in_loop.pop(other, None)
            bound = self._bound_in_loop[loop] = self._bind()
        return bound

    @cached_property
    def _bound(self) -> _Bound:
        return self._bind()

    def _bind(self) -> _Bound:
        """The model set up for the answer; a binding is unwrapped, because going through it costs time on each call."""
        bound = self._profile.bind(
            self._answer, self._scorer, timeout_s=self._timeout_s, context_length=self._context_length
        )
        if isinstance(bound, RunnableBinding) and not bound.config and not bound.config_factories:
            return bound.bound, dict(bound.kwargs)
        return bound, {}
