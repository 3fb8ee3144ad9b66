"""`PLDClassifier`: the Runnable that decides with a distilled prompt and a small student."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_pld.artifact import DistilledPrompt, ModelFingerprint
from langchain_pld.errors import InputError
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.student.binding import bind_student, fingerprint_of, model_spec
from langchain_pld.student.failures import CircuitBreaker, RetryPolicy, failure_of, passes_through
from langchain_pld.student.inputs import ClassifierInput, input_text
from langchain_pld.student.prompt import chat
from langchain_pld.student.scoring import Scores, read_answer
from langchain_pld.verdict import Failure, Usage, Verdict

__all__ = ["PLDClassifier"]

_Reply = AIMessage | Failure


class PLDClassifier(RunnableSerializable[ClassifierInput, Verdict]):
    """Classifies a text with a distilled prompt: one forward pass of a small model, no generated reasoning.

    Takes a text, messages, a prompt value or a mapping; gives a `Verdict`. It never raises for what a model or an
    input does: such a verdict is `failed` and says why. Cancellation and LangGraph interrupts pass through.

    Example:
        >>> classifier = PLDClassifier.from_artifact("chat.pld.json", student="ollama:gemma3:4b")  # doctest: +SKIP
        >>> classifier.invoke("Could you finish this on Sunday?").label  # doctest: +SKIP
        'pressure'
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    artifact: DistilledPrompt
    """The distilled prompt."""
    student: BaseChatModel
    """The model that decides."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that one model call may take."""
    retry: RetryPolicy = RetryPolicy()
    """When a transient failure is tried again."""
    name: str | None = None
    """Name of the run in traces; `PLDClassifier` when absent."""

    _breaker: CircuitBreaker = PrivateAttr(default_factory=CircuitBreaker)
    _stranger: str | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        artifact, student = values.get("artifact"), values.get("student")
        if isinstance(artifact, str | Path):
            artifact = DistilledPrompt.load(artifact)
        if student is None and isinstance(artifact, DistilledPrompt):
            student = artifact.student.spec
        if isinstance(student, str):
            student = resolve_chat_model(student)
        return {**values, "artifact": artifact, "student": student}

    def model_post_init(self, context: Any, /) -> None:
        """Compare the student with the one that the artifact was measured with, as far as that is known unasked."""
        super().model_post_init(context)
        self._compare(fingerprint_of(self.student, ask_server=False))

    @classmethod
    def from_artifact(cls, path: str | Path, *, student: BaseChatModel | str | None = None, **options: Any) -> Self:
        """Load an artifact and put a student behind it.

        An Ollama server is asked which weights it serves (this blocks for five seconds at most). When the student is
        not that of the artifact's fingerprint, a warning is given and no probability is called calibrated.

        Args:
            path: The `*.pld.json` file.
            student: A chat model, or `provider:name`; the one of the fingerprint when absent.
            **options: Other fields of the classifier.

        Raises:
            ArtifactError: The file cannot be used.
            ModelSetupError: The student cannot be had.
        """
        values: dict[str, Any] = {"artifact": DistilledPrompt.load(path), "student": student, **options}
        classifier = cls(**values)
        if model_spec(classifier.student).startswith("ollama:"):
            classifier._compare(fingerprint_of(classifier.student))
        return classifier

    @property
    def InputType(self) -> Any:  # noqa: N802
        """What it takes."""
        return ClassifierInput

    @property
    def OutputType(self) -> type[Verdict]:  # noqa: N802
        """What it gives."""
        return Verdict

    def invoke(self, input: ClassifierInput, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:  # noqa: A002, ARG002
        """Decide about one input.

        Args:
            input: A text, messages, a prompt value, the task's fields, or a mapping with text, input or messages.
            config: Callbacks, tags, metadata; handed on to the student.
            **kwargs: Ignored; there for the Runnable interface.
        """
        return self._call_with_config(self._decide, input, config)

    async def ainvoke(self, input: ClassifierInput, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:  # noqa: A002, ARG002
        """Decide about one input without blocking the event loop; equal to `invoke`."""
        return await self._acall_with_config(self._adecide, input, config)

    # The three-argument form is the one that is handed the config with this run as the parent of what it calls.
    def _decide(
        self,
        value: ClassifierInput,
        run_manager: CallbackManagerForChainRun,  # noqa: ARG002
        config: RunnableConfig,
    ) -> Verdict:
        steps = self._steps(value)
        try:
            messages = next(steps)
            while True:
                messages = steps.send(self._ask(messages, config))
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict

    async def _adecide(
        self,
        value: ClassifierInput,
        run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG002
        config: RunnableConfig,
    ) -> Verdict:
        steps = self._steps(value)
        try:
            messages = next(steps)
            while True:
                messages = steps.send(await self._aask(messages, config))
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict

    # The logic of a decision, free of I/O: it yields the chats to ask and is sent the replies. The two drivers above
    # differ only in how they ask.
    def _steps(self, value: ClassifierInput) -> Generator[list[BaseMessage], _Reply, Verdict]:
        started = time.perf_counter()
        usage = Usage()
        try:
            text = input_text(self.artifact.task, value)
        except InputError as error:
            outcome: Scores | Failure = Failure(kind="input", message=str(error))
        else:
            reply = yield chat(self.artifact.system_prompt, text)
            usage = _usage(reply)
            outcome = self._read(reply)
        return self._verdict(outcome, usage, (time.perf_counter() - started) * 1000)

    def _read(self, reply: _Reply) -> Scores | Failure:
        if isinstance(reply, Failure):
            return reply
        artifact = self.artifact
        return read_answer(reply, artifact.answer, artifact.scorer, min_label_mass=artifact.min_label_mass)

    def _verdict(self, outcome: Scores | Failure, usage: Usage, latency_ms: float) -> Verdict:
        common: dict[str, Any] = {"artifact_id": self._artifact_id, "usage": usage, "latency_ms": latency_ms}
        if isinstance(outcome, Failure):
            return Verdict(status="failed", failure=outcome, **common)
        probabilities, label, confidence = None, outcome.label, None
        if outcome.log_probabilities is not None:
            probabilities = self.artifact.calibration.apply(outcome.log_probabilities)
            label = max(probabilities, key=probabilities.__getitem__)
            confidence = probabilities[label]
        gate = self.artifact.gate
        # A gate cannot be passed without a probability.
        decided = gate is None or (confidence is not None and gate.admits(label, confidence))
        return Verdict(
            status="decided" if decided else "abstained",
            label=label if decided else None,
            leaning=label,
            probabilities=probabilities,
            confidence=confidence,
            calibrated=probabilities is not None and self.calibrated,
            label_mass=outcome.label_mass,
            evidence=outcome.evidence,
            decided_by=self.spec if decided else None,
            **common,
        )

    def _ask(self, messages: list[BaseMessage], config: RunnableConfig) -> _Reply:
        refused = self._breaker.refuses()
        if refused is not None:
            return refused
        try:
            reply: _Reply = self.retry.retrying()(self._call, messages, config)
        except Exception as error:  # whatever a client raises becomes a typed failure, never a label
            if passes_through(error):
                raise
            reply = failure_of(error, self.spec)
        self._breaker.record(reply if isinstance(reply, Failure) else None)
        return reply

    async def _aask(self, messages: list[BaseMessage], config: RunnableConfig) -> _Reply:
        refused = self._breaker.refuses()
        if refused is not None:
            return refused
        try:
            reply: _Reply = await self.retry.async_retrying()(self._acall, messages, config)
        except Exception as error:  # as above; cancellation is no Exception and passes
            if passes_through(error):
                raise
            reply = failure_of(error, self.spec)
        self._breaker.record(reply if isinstance(reply, Failure) else None)
        return reply

    def _call(self, messages: list[BaseMessage], config: RunnableConfig) -> AIMessage:
        if self._bounds_itself:
            return self._bound.invoke(messages, config)
        return _within(self.timeout_s, lambda: self._bound.invoke(messages, config))

    async def _acall(self, messages: list[BaseMessage], config: RunnableConfig) -> AIMessage:
        async with asyncio.timeout(None if self._bounds_itself else self.timeout_s):
            return await self._bound.ainvoke(messages, config)

    @cached_property
    def spec(self) -> str:
        """The student as `provider:name`."""
        return model_spec(self.student)

    @property
    def in_process(self) -> bool:
        """Whether the student runs inside this process, one call at a time."""
        return self.spec.startswith("embedded:")

    @cached_property
    def prompt_tokens(self) -> int | None:
        """Length of the system prompt in the student's tokens; `None` where no tokenizer is at hand."""
        return self.student.get_num_tokens(self.artifact.system_prompt) if self.in_process else None

    @property
    def calibrated(self) -> bool:
        """Whether this student's probabilities were calibrated on labelled rows."""
        return self._stranger is None and self.artifact.calibration.method != "none"

    def _compare(self, student: ModelFingerprint) -> None:
        self._stranger = self.artifact.student.differs_from(student)
        if self._stranger:
            warnings.warn(
                f"this is not the student that {self.artifact.id} was measured with ({self._stranger}): its scores say "
                "nothing about this one, and probabilities are not called calibrated",
                UserWarning,
                stacklevel=2,
            )

    @cached_property
    def _bound(self) -> Runnable[Any, AIMessage]:
        return bind_student(self.student, self.artifact.answer, self.artifact.scorer, timeout_s=self.timeout_s)

    @cached_property
    def _artifact_id(self) -> str:
        return self.artifact.id

    @cached_property
    def _bounds_itself(self) -> bool:
        # These clients have a time-out of their own, and a wait in the queue of a model in this process is none.
        return self.spec.partition(":")[0] in {"embedded", "ollama"}


def _usage(reply: _Reply) -> Usage:
    if isinstance(reply, Failure) or reply.usage_metadata is None:
        return Usage(calls=1)
    counted = reply.usage_metadata
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        cached_tokens=counted.get("input_token_details", {}).get("cache_read", 0) or 0,
        calls=1,
    )


def _within(seconds: float, call: Callable[[], AIMessage]) -> AIMessage:
    """Run a blocking call in a thread and stop waiting for it after some seconds.

    A daemon thread, since a pool would be joined at exit and a hung client would keep the process alive.
    """
    future: Future[AIMessage] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:  # handed to the caller, who raises it
            future.set_exception(error)

    threading.Thread(target=run, name="pld-student", daemon=True).start()
    return future.result(timeout=seconds)
