"""Guards around any Runnable: what goes in is checked before it runs, what comes out before anybody sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, field_validator

from langchain_pld.guardrail.check import Decision, Guard, GuardrailError, acheck_all, check_all, placed
from langchain_pld.guardrail.content import visible_only
from langchain_pld.guardrail.replacement import marked
from langchain_pld.guardrail.silent_callbacks import silent_config
from langchain_pld.guardrail.stream import Replacement, StreamHold, aguard_stream, guard_stream

__all__ = ["GuardedRunnable", "guarded"]

Input = TypeVar("Input")
Output = TypeVar("Output")


def guarded(
    runnable: Runnable[Input, Output],
    *,
    input_guards: Guard | Sequence[Guard] = (),
    output_guards: Guard | Sequence[Guard] = (),
    replacement: Replacement | None = None,
    hold: StreamHold | None = None,
) -> GuardedRunnable[Input, Output]:
    """Put guards around a Runnable: a model, a chain, a retriever.

    Args:
        runnable: What is guarded.
        input_guards: Who checks what goes in; a blocked input never reaches the runnable.
        output_guards: Who checks what comes out.
        replacement: What comes out when something is blocked; the policy's sentence when absent.
        hold: How much of a stream is held back until it is checked; sentences by default.

    Raises:
        InputError: There is no guard on either side, or something else in the place of one.

    Example:
        >>> chain = guarded(prompt | model, input_guards=guard, output_guards=guard) | parser  # doctest: +SKIP
    """
    return GuardedRunnable(
        bound=runnable,
        input_guards=input_guards,
        output_guards=output_guards,
        replacement=replacement,
        hold=hold or StreamHold(),
    )


class GuardedRunnable(RunnableSerializable[Input, Output]):
    """A Runnable between guards. Where a policy asks a person, it blocks: a chain cannot wait.

    When something is blocked, a sentence comes out in the form of the runnable's output: a text or an `AIMessage`. For
    outputs of another form pass `replacement`; without it `GuardrailError` is raised.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    bound: Runnable[Input, Output]
    """What is guarded."""
    input_guards: tuple[Any, ...] = ()
    """Guards that check what goes in."""
    output_guards: tuple[Any, ...] = ()
    """Guards that check what comes out. With one, the tokens of the models inside appear in no stream but this one."""
    replacement: Any = None
    """What comes out when something is blocked: a text, or a function that makes it of the decision."""
    hold: StreamHold = StreamHold()
    """How much of a stream is held back until it is checked."""
    name: str | None = None
    """Name of the run in traces."""

    def __init__(self, **fields: Any) -> None:
        """Refuse to stand there without a guard.

        Raises:
            InputError: There is no guard on either side, or something else in the place of one.
        """
        super().__init__(**fields)
        placed((*self.input_guards, *self.output_guards), "input")

    @field_validator("input_guards", "output_guards", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
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
        if self.input_guards:
            decision = check_all(placed(self.input_guards, "input"), value, config)
            if not decision.enforce().allowed:
                return self._instead(decision)
            value = visible_only(value) if decision.removes_invisible else value
        output = self.bound.invoke(value, self._inner(config), **kwargs)
        if not self.output_guards:
            return output
        return self._checked_output(output, check_all(placed(self.output_guards, "output"), output, config))

    async def _ainvoke(self, value: Input, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Output:  # noqa: ARG002
        if self.input_guards:
            decision = await acheck_all(placed(self.input_guards, "input"), value, config)
            if not decision.enforce().allowed:
                return self._instead(decision)
            value = visible_only(value) if decision.removes_invisible else value
        output = await self.bound.ainvoke(value, self._inner(config), **kwargs)
        if not self.output_guards:
            return output
        return self._checked_output(output, await acheck_all(placed(self.output_guards, "output"), output, config))

    def _transform(
        self,
        values: Iterator[Input],
        run_manager: Any,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Output]:
        value = _sum(list(values))
        if self.input_guards:
            decision = check_all(placed(self.input_guards, "input"), value, config)
            if not decision.enforce().allowed:
                yield self._instead(decision)
                return
            value = visible_only(value) if decision.removes_invisible else value
        stream = self.bound.stream(value, self._inner(config), **kwargs)
        if not self.output_guards:
            yield from stream
            return
        guards = placed(self.output_guards, "output")
        first = next(stream, None)
        if isinstance(first, str | BaseMessage):
            yield from cast(
                "Iterator[Output]",
                guard_stream(
                    _again(first, stream), guards, hold=self.hold, replacement=self.replacement, config=config
                ),
            )
        elif first is not None:
            # Parts of an object cannot be checked one by one.
            output = _sum([first, *stream])
            yield self._checked_output(output, check_all(guards, output, config))

    async def _atransform(
        self,
        values: AsyncIterator[Input],
        run_manager: Any,  # noqa: ARG002
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        value = _sum([value async for value in values])
        if self.input_guards:
            decision = await acheck_all(placed(self.input_guards, "input"), value, config)
            if not decision.enforce().allowed:
                yield self._instead(decision)
                return
            value = visible_only(value) if decision.removes_invisible else value
        stream = self.bound.astream(value, self._inner(config), **kwargs)
        if not self.output_guards:
            async for part in stream:
                yield part
            return
        guards = placed(self.output_guards, "output")
        first = await anext(stream, None)
        if isinstance(first, str | BaseMessage):
            parts = aguard_stream(
                _aagain(first, stream), guards, hold=self.hold, replacement=self.replacement, config=config
            )
            async for held in parts:
                yield cast("Output", held)
        elif first is not None:
            # As above.
            output = _sum([first, *[part async for part in stream]])
            yield self._checked_output(output, await acheck_all(guards, output, config))

    def _inner(self, config: RunnableConfig) -> RunnableConfig:
        """The config for what is guarded: behind an output guard nothing inside may show its tokens to anybody."""
        return silent_config(config) if self.output_guards else config

    def _checked_output(self, output: Output, decision: Decision) -> Output:
        if not decision.enforce().allowed:
            return self._instead(decision, output)
        if decision.action == "flag" and isinstance(output, BaseMessage):
            return cast("Output", marked(output, decision))
        return output

    def _instead(self, decision: Decision, output: Any = None) -> Output:
        if callable(self.replacement):
            return cast("Output", self.replacement(decision))
        words = self.replacement or decision.message
        form = self._form() if output is None else type(output)
        if isinstance(form, type) and issubclass(form, BaseMessage):
            return cast("Output", marked(AIMessage(words), decision))
        if isinstance(form, type) and issubclass(form, str):
            return cast("Output", words)
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


def _sum(parts: Sequence[Any]) -> Any:
    """Streamed parts added up; where they cannot be, the last one stands for all, as in LangChain."""
    total = parts[0]
    for part in parts[1:]:
        try:
            total = total + part
        except TypeError:
            total = part
    return total


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


async def _aagain(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for part in rest:
        yield part
