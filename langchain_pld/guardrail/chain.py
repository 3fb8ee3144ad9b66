"""Guards around any Runnable: input is checked before it runs, output before anything else sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, field_validator

from langchain_pld.guardrail.decision import Decision, GuardrailError
from langchain_pld.guardrail.guard import Guard, at_stage, check_steps
from langchain_pld.guardrail.invisible import strip_invisible
from langchain_pld.guardrail.message_edits import BlockedMessage, annotate
from langchain_pld.guardrail.nostream import nostream_config
from langchain_pld.guardrail.stream import guard_texts
from langchain_pld.guardrail.stream_buffer import StreamBuffer
from langchain_pld.guardrail.streaming import END, Emit, Source, StreamSteps, arun_stream, run_stream
from langchain_pld.steps import Call, Steps, arun_steps, run_steps

__all__ = ["GuardedRunnable", "guarded"]

Input = TypeVar("Input")
Output = TypeVar("Output")


def guarded(
    runnable: Runnable[Input, Output],
    *,
    input_guards: Guard | Sequence[Guard] = (),
    output_guards: Guard | Sequence[Guard] = (),
    blocked_message: BlockedMessage | None = None,
    buffer: StreamBuffer | None = None,
) -> GuardedRunnable[Input, Output]:
    """Put guards around a Runnable: a model, a chain, a retriever.

    Args:
        runnable: What to guard.
        input_guards: Check the input; blocked input never reaches the runnable.
        output_guards: Check the output.
        blocked_message: The output when something is blocked; by default the policy's message.
        buffer: How much of a stream to hold back until it is checked; by default sentences.

    Raises:
        InputError: There is no guard on either side, or something else in place of one.

    Example:
        >>> chain = guarded(prompt | model, input_guards=guard, output_guards=guard) | parser  # doctest: +SKIP
    """
    return GuardedRunnable(
        bound=runnable,
        input_guards=input_guards,
        output_guards=output_guards,
        blocked_message=blocked_message,
        buffer=buffer or StreamBuffer(),
    )


class GuardedRunnable(RunnableSerializable[Input, Output]):
    """A Runnable between guards. Where a policy asks a person, it blocks: a chain cannot wait.

    When something is blocked, a sentence comes out in the form of the runnable's output: a text or an `AIMessage`. For
    outputs of another form pass `blocked_message`; without it `GuardrailError` is raised.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    bound: Runnable[Input, Output]
    """What is guarded."""
    input_guards: tuple[Any, ...] = ()
    """Guards that check the input."""
    output_guards: tuple[Any, ...] = ()
    """Guards that check what comes out. With one, the tokens of the models inside appear in no stream but this one."""
    blocked_message: Any = None
    """What comes out when something is blocked: a text, or a function that makes it of the decision."""
    buffer: StreamBuffer = StreamBuffer()
    """How much of a stream is held back until it is checked."""
    name: str | None = None
    """Name of the run in traces."""

    def __init__(self, **fields: Any) -> None:
        """Refuse to stand there without a guard.

        Raises:
            InputError: There is no guard on either side, or something else in the place of one.
        """
        super().__init__(**fields)
        at_stage((*self.input_guards, *self.output_guards), "input")

    @field_validator("input_guards", "output_guards", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return (value,) if isinstance(value, Guard) else value

    @property
    def InputType(self) -> Any:  # noqa: N802
        """What it takes."""
        return self.bound.InputType

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives."""
        return self.bound.OutputType

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:  # noqa: A002
        """Check the input, run, check the output.

        Raises:
            GuardrailError: A policy says to raise, or the output's form has no place for a sentence.
        """
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:  # noqa: A002
        """Check the input, run, check the output, without blocking the event loop; equal to `invoke`."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:  # noqa: A002
        """Stream the output, each part only after it was checked."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(
        self,
        input: Input,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        """Stream the output, each part only after it was checked."""

        async def once() -> AsyncIterator[Input]:
            yield input

        async for part in self.atransform(once(), config, **kwargs):
            yield part

    def transform(
        self,
        input: Iterator[Input],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Output]:
        """Stream the output of a streamed input, which is checked when it is complete."""
        yield from self._transform_stream_with_config(input, self._transform, config, **kwargs)

    async def atransform(
        self,
        input: AsyncIterator[Input],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        """Stream the output of a streamed input, which is checked when it is complete."""
        async for part in self._atransform_stream_with_config(input, self._atransform, config, **kwargs):
            yield part

    # The three-argument form is the one that is handed the config with this run as the parent of what it calls.
    def _invoke(self, value: Input, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Output:  # noqa: ARG002
        return cast("Output", run_steps(self._steps(value, config, kwargs)))

    async def _ainvoke(self, value: Input, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Output:  # noqa: ARG002
        return cast("Output", await arun_steps(self._steps(value, config, kwargs)))

    def _transform(
        self,
        values: Iterator[Input],
        run_manager: Any,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Output]:
        yield from run_stream(*self._stream_steps(values, config, kwargs))

    async def _atransform(
        self,
        values: AsyncIterator[Input],
        run_manager: Any,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        async for part in arun_stream(*self._stream_steps(values, config, kwargs)):
            yield part

    def _steps(self, value: Any, config: RunnableConfig, kwargs: dict[str, Any]) -> Steps[Any]:
        value, blocked = yield from self._check_input(value, config)
        if blocked is not None:
            return self._instead(blocked)
        inner = self._inner(config)
        output = yield Call(
            lambda: self.bound.invoke(value, inner, **kwargs), lambda: self.bound.ainvoke(value, inner, **kwargs)
        )
        return (yield from self._check_output(output, config))

    def _stream_steps(self, values: Any, config: RunnableConfig, kwargs: dict[str, Any]) -> tuple[StreamSteps, Source]:
        inner = self._inner(config)
        checked: list[Any] = []
        output = Source(
            lambda: self.bound.stream(checked[0], inner, **kwargs),
            lambda: self.bound.astream(checked[0], inner, **kwargs),
        )

        def steps() -> StreamSteps:
            value, blocked = yield from self._check_input(
                _sum((yield from _collect(Source(lambda: values, lambda: values)))), config
            )
            if blocked is not None:
                yield Emit(self._instead(blocked))
                return
            checked.append(value)
            first = yield output.read()
            if not self.output_guards:
                while first is not END:
                    yield Emit(first)
                    first = yield output.read()
            elif isinstance(first, str | BaseMessage):
                guards, say = self.output_guards, self.blocked_message
                yield from guard_texts(output, guards, self.buffer, say, config, first=first)
            elif first is not END:
                # Parts of an object cannot be checked one by one.
                whole = _sum([first, *(yield from _collect(output))])
                yield Emit((yield from self._check_output(whole, config)))

        return steps(), output

    def _check_input(self, value: Any, config: RunnableConfig) -> Steps[tuple[Any, Decision | None]]:
        """The value as it goes on, and the decision that blocks it, if one does."""
        if not self.input_guards:
            return value, None
        decision = yield from check_steps(at_stage(self.input_guards, "input"), value, config)
        if not decision.enforce().allowed:
            return value, decision
        return strip_invisible(value) if decision.strips_invisible else value, None

    def _check_output(self, output: Any, config: RunnableConfig) -> Steps[Any]:
        if not self.output_guards:
            return output
        decision = yield from check_steps(at_stage(self.output_guards, "output"), output, config)
        if not decision.enforce().allowed:
            return self._instead(decision, type(output))
        if decision.action == "flag" and isinstance(output, BaseMessage):
            return annotate(output, decision)
        return output

    def _inner(self, config: RunnableConfig) -> RunnableConfig:
        """The config for what is guarded: behind an output guard nothing inside may show its tokens to anybody."""
        return nostream_config(config) if self.output_guards else config

    def _instead(self, decision: Decision, form: Any = None) -> Any:
        """What comes out in place of what was blocked."""
        if callable(self.blocked_message):
            return self.blocked_message(decision)
        words = self.blocked_message or decision.message
        form = form or self._form()
        if isinstance(form, type) and issubclass(form, BaseMessage):
            return annotate(AIMessage(words), decision)
        if isinstance(form, type) and issubclass(form, str):
            return words
        raise GuardrailError(decision)

    def _form(self) -> Any:
        """The type that comes out, as far as the runnable tells: a text where it does not."""
        try:
            form = self.bound.OutputType
        except TypeError:
            return str
        kinds = list(_kinds(form))
        messages = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseMessage)]
        return messages[0] if messages else str if kinds == [Any] else form


def _kinds(form: Any) -> Iterator[Any]:
    """The types that a union or an annotated type consists of."""
    if hasattr(form, "__metadata__"):
        yield from _kinds(get_args(form)[0])
    elif get_origin(form) in {Union, UnionType}:
        for part in get_args(form):
            yield from _kinds(part)
    else:
        yield form


def _collect(source: Source) -> Steps[list[Any]]:
    chunks: list[Any] = []
    while (chunk := (yield source.read())) is not END:
        chunks.append(chunk)
    return chunks


def _sum(parts: Sequence[Any]) -> Any:
    """Streamed parts added up; where they cannot be, the last one stands for all, as in LangChain."""
    total = parts[0]
    for part in parts[1:]:
        try:
            total = total + part
        except TypeError:
            total = part
    return total
