"""`PLDClassifier`: the Runnable that decides with a distilled prompt and a small student."""

from __future__ import annotations

import asyncio
import copy
import math
import re
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel, SimpleChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, get_callback_manager_for_config
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.artifact import Calibration, DistilledPrompt, ModelFingerprint
from langchain_pld.errors import InputError, StudentError
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.student.chunks import (
    RESERVED_TOKENS,
    LongInput,
    chunk_spans,
    estimated_tokens,
    mean_scores,
    most_severe,
    worst_chunk,
)
from langchain_pld.student.deadlines import ThreadLimit, acall_within, call_within
from langchain_pld.student.escalation import Escalation, EscalationBudget, ask_other, ask_other_async, joined
from langchain_pld.student.failures import CircuitBreaker, RetryPolicy, failure_of, passes_through
from langchain_pld.student.inputs import ClassifierInput, input_text
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import bind_student, fingerprint_of, model_spec
from langchain_pld.student.questions import label_orders, questions
from langchain_pld.student.sanitize import clean_text
from langchain_pld.student.scoring import Scores
from langchain_pld.student.two_stage import last_line
from langchain_pld.task import Task
from langchain_pld.verdict import Failure, Usage, Verdict

__all__ = ["PLDClassifier"]

_Reply = AIMessage | Failure
_Wanted = list[BaseMessage] | Callable[[], list[str] | Failure]
_Bound = tuple[Runnable[Any, AIMessage], dict[str, Any]]

_OLLAMA_CONTEXT = 4096
_OLLAMA_ROOM = 2048
_OLLAMA_MARGIN = 16
_NOTHING_SPENT = Usage()

_asked_fingerprint: ContextVar[ModelFingerprint | None] = ContextVar("_asked_fingerprint", default=None)


class PLDClassifier(RunnableSerializable[ClassifierInput, Verdict]):
    """Classifies a text with a distilled prompt: one forward pass of a small model, no generated reasoning.

    Takes a text, messages, a prompt value or a mapping; gives a `Verdict`. Unless `on_failure` says so, it never raises
    for what a model or an input does: such a verdict is `failed` and says why. Cancellation and LangGraph interrupts
    pass through.

    Example:
        >>> classifier = PLDClassifier.from_artifact("chat.pld.json", student="ollama:gemma3:4b")  # doctest: +SKIP
        >>> classifier.invoke("Could you finish this on Sunday?").label  # doctest: +SKIP
        'pressure'
    """

    # Frozen, since what is asked is settled once: a student that is put in later would silently not be used.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    artifact: DistilledPrompt
    """The distilled prompt."""
    student: BaseChatModel
    """The model that decides."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that one model call may take."""
    retry: RetryPolicy = RetryPolicy()
    """When a transient failure is tried again."""
    long_input: LongInput = LongInput()
    """What happens to an input that does not fit the student's context."""
    escalate_to: Escalation | None = None
    """Who is asked about abstained and failed verdicts; a classifier, chat model or Runnable alone stands for an
    `Escalation` to it without a budget."""
    on_failure: Literal["return", "raise"] = "return"
    """Return a failed verdict, or raise it as `StudentError`, so that `with_retry` and `with_fallbacks` see it."""
    name: str | None = None
    """Name of the run in traces; `PLDClassifier` when absent."""

    _breaker: CircuitBreaker = PrivateAttr(default_factory=CircuitBreaker)
    _room_for_calls: ThreadLimit = PrivateAttr(default_factory=ThreadLimit)
    _fingerprint: ModelFingerprint | None = PrivateAttr(default=None)
    _stranger: str | None = PrivateAttr(default=None)
    _severity: tuple[tuple[str, ...], ...] = PrivateAttr(default=())
    _other: Escalation | None = PrivateAttr(default=None)
    _budget: EscalationBudget | None = PrivateAttr(default=None)
    _known_room: int | None = PrivateAttr(default=None)
    _bound_in: dict[asyncio.AbstractEventLoop, _Bound] = PrivateAttr(default_factory=dict)

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
        if student is not None:
            student = resolve_chat_model(student)
        other = values.get("escalate_to")
        if isinstance(other, str | Runnable):
            other = Escalation(to=resolve_chat_model(other) if isinstance(other, str) else other)
        return {**values, "artifact": artifact, "student": student, "escalate_to": other}

    def model_post_init(self, context: Any, /) -> None:
        """Compare the student with the one that the artifact was measured with, as far as that is known unasked."""
        super().model_post_init(context)
        self.artifact.require_usable()
        self._fingerprint = _asked_fingerprint.get() or fingerprint_of(self.student, ask_server=False)
        self._compare(self._fingerprint)
        # A prompt whose label orders cannot be had is told now, not at the first input.
        label_orders(self.artifact)
        if self.artifact.scorer == "structured":
            self._bind()  # a student that has no structured output is told now as well
        self._severity = self.long_input.severity(self.artifact.task)
        if self.escalate_to is not None:
            self._other = self._resolved(self.escalate_to)
            self._budget = EscalationBudget(self.escalate_to)

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
        artifact = DistilledPrompt.load(path)
        artifact.require_usable()  # here, since pydantic would wrap the error in its own
        model = resolve_chat_model(artifact.student.spec if student is None else student)
        # Asked before the classifier compares: a model under another name may have the very weights of the fingerprint.
        token = _asked_fingerprint.set(fingerprint_of(model))
        try:
            return cls(artifact=artifact, student=model, **options)
        finally:
            _asked_fingerprint.reset(token)

    @classmethod
    def zero_shot(
        cls,
        task: Task,
        student: BaseChatModel | str,
        *,
        answer: AnswerFormat | None = None,
        scorer: Scorer = "logprobs",
        **options: Any,
    ) -> Self:
        """A student with the bare task as its prompt: nothing distilled, measured or calibrated. For a first look.

        Asks no server, so that it may be called inside of an event loop.

        Args:
            task: What is decided.
            student: A chat model, or `provider:name`.
            answer: What the student answers with; the label names when absent.
            scorer: How its answers are read; `structured` or `text` for a student without log-probabilities.
            **options: Other fields of the classifier.

        Raises:
            ModelSetupError: The student cannot be had.
        """
        student = resolve_chat_model(student)
        answer = answer or AnswerFormat.words(task)
        artifact = DistilledPrompt(
            task=task,
            system_prompt=compile_prompt(task, (), answer),
            answer=answer,
            scorer=scorer,
            calibration=Calibration.identity(task.label_names),
            student=fingerprint_of(student, ask_server=False),
            notes=("zero-shot, not measured",),
        )
        return cls(artifact=artifact, student=student, **options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A classifier made anew with some fields changed; nothing settled for the old student or prompt stays.

        Args:
            update: Fields and their new values.
            deep: Copy the kept fields too.
        """
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        values = {**(copy.deepcopy(kept) if deep else kept), **(update or {})}
        token = _asked_fingerprint.set(None if "student" in (update or {}) else self._fingerprint)
        try:
            return type(self)(**values)
        finally:
            _asked_fingerprint.reset(token)

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """A tool that an agent calls with a text, or with the task's fields.

        Args:
            args_schema: The arguments; `text` or the task's fields when absent.
            name: The tool's name; `classify_` and the task's name when absent.
            description: What an agent reads of it; the task's instructions and labels when absent.
            arg_types: Types of the arguments, instead of a schema.
        """
        task = self.artifact.task
        if args_schema is None and arg_types is None:
            arg_types = dict.fromkeys(task.fields or ("text",), str)
        return super().as_tool(
            args_schema,
            name=name or "classify_" + re.sub(r"[^A-Za-z0-9_-]", "_", task.name),
            description=description or f"{task.instructions.strip()} Labels: {', '.join(task.label_names)}.",
            arg_types=arg_types,
        )

    # The student's own form may hold a password, and the artifact's the whole prompt.
    def __repr__(self) -> str:
        return f"{type(self).__name__}(artifact={self._artifact_id!r}, student={self.spec!r})"

    __str__ = __repr__

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
        unwatched = _unwatched(config)
        if unwatched is not None:
            return self._decide(input, None, unwatched)
        return self._call_with_config(self._decide, input, config)

    async def ainvoke(self, input: ClassifierInput, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:  # noqa: A002, ARG002
        """Decide about one input without blocking the event loop; equal to `invoke`."""
        unwatched = _unwatched(config)
        if unwatched is not None:
            return await self._adecide(input, None, unwatched)
        return await self._acall_with_config(self._adecide, input, config)

    # The three-argument form is the one that is handed the config with this run as the parent of what it calls.
    def _decide(
        self,
        value: ClassifierInput,
        run_manager: CallbackManagerForChainRun | None,  # noqa: ARG002
        config: RunnableConfig,
    ) -> Verdict:
        config = _unstreamed(config)
        verdict = self._run(value, config)
        if self._escalates(verdict) and self._other is not None:
            other = ask_other(self._other, value, config, self.artifact.task.label_names)
            verdict = joined(verdict, other, decider=self.spec)
        return self._given(verdict)

    async def _adecide(
        self,
        value: ClassifierInput,
        run_manager: AsyncCallbackManagerForChainRun | None,  # noqa: ARG002
        config: RunnableConfig,
    ) -> Verdict:
        config = _unstreamed(config)
        verdict = await self._arun(value, config)
        if self._escalates(verdict) and self._other is not None:
            other = await ask_other_async(self._other, value, config, self.artifact.task.label_names)
            verdict = joined(verdict, other, decider=self.spec)
        return self._given(verdict)

    def _run(self, value: ClassifierInput, config: RunnableConfig) -> Verdict:
        steps, config = self._steps(value), _kept_from_streams(config)
        try:
            wanted = next(steps)
            while True:
                wanted = steps.send(wanted() if callable(wanted) else self._ask(wanted, config))
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict

    async def _arun(self, value: ClassifierInput, config: RunnableConfig) -> Verdict:
        steps, config = self._steps(value), _kept_from_streams(config)
        try:
            wanted = next(steps)
            while True:
                got = await (asyncio.to_thread(wanted) if callable(wanted) else self._aask(wanted, config))
                wanted = steps.send(got)
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict

    def _escalates(self, verdict: Verdict) -> bool:
        if self.escalate_to is None or not self.escalate_to.wanted(verdict):
            return False
        return self._budget is not None and self._budget.take()

    def _given(self, verdict: Verdict) -> Verdict:
        if verdict.failure is not None and self.on_failure == "raise":
            raise StudentError(verdict.failure)
        return verdict

    # The logic of a decision, free of I/O: it yields the chats to ask and is sent the replies, or yields work that
    # blocks (counting tokens may load a model) and is sent its result. The two drivers above differ only in how they
    # ask.
    def _steps(self, value: ClassifierInput) -> Generator[_Wanted, Any, Verdict]:
        started = time.perf_counter()
        usage = _NOTHING_SPENT
        chunks: list[str] | Failure
        try:
            text = input_text(self.artifact.task, value)
        except InputError as error:
            chunks = Failure(kind="input", message=str(error))
        else:
            chunks = [text] if self._surely_fits(text) else (yield partial(self._chunks, text))
        if isinstance(chunks, Failure):
            return self._verdict(chunks, usage, (time.perf_counter() - started) * 1000)
        outcomes: list[Scores | Failure] = []
        for chunk in chunks:
            outcome, spent = yield from self._reading(chunk)
            usage = usage + spent if outcomes else spent
            outcomes.append(outcome)
        latency_ms = (time.perf_counter() - started) * 1000
        if len(outcomes) == 1:
            return self._verdict(outcomes[0], usage, latency_ms)
        worst = worst_chunk.get() if self.long_input.combine is None and not self.long_input.severe else None
        if worst is None and self._severity:
            worst = partial(most_severe, severity=self._severity)
        if worst is None:
            whole = self._verdict(mean_scores(outcomes), usage, latency_ms)
        else:
            whole = worst([self._verdict(outcome, usage, latency_ms) for outcome in outcomes])
        return whole.model_copy(update={"chunks": len(chunks)})

    def _surely_fits(self, text: str) -> bool:
        """Whether a text fits the student's context for certain, without a tokenizer."""
        if self._context is None:
            return True
        # A token is a byte at least.
        return self._known_room is not None and len(clean_text(text).encode()) <= self._known_room

    def _chunks(self, text: str) -> list[str] | Failure:
        """The text in parts that fit the context, cleaned; or why it cannot be read."""
        text = clean_text(text)
        try:
            room = self._room
            if self._tokens(text) <= room:
                return [text]
            if not self.long_input.in_chunks(self.artifact.task):
                msg = (
                    f"the input has about {self._tokens(text)} tokens, and the student's context of {self._context} "
                    f"leaves {max(room, 0)} for it; shorten it, or give the student a longer context"
                )
                return Failure(kind="input", message=msg)
            spans = chunk_spans(text, room=room, count=self._tokens, overlap=self.long_input.overlap)
        except Exception as error:  # loading a tokenizer is loading a model
            if passes_through(error):
                raise
            if isinstance(error, InputError):
                return Failure(kind="input", message=str(error))
            return failure_of(error, self.spec)
        most = self.long_input.max_chunks
        if len(spans) > most:
            return Failure(kind="input", message=f"the input needs {len(spans)} chunks, at most {most} are read")
        return [text[start:end] for start, end in spans]

    def _tokens(self, text: str) -> int:
        return len(self.student.get_token_ids(text)) if self.in_process else estimated_tokens(text)

    @cached_property
    def _context(self) -> int | None:
        """Tokens that fit into one request, as far as that is known; never asks anybody."""
        measured = self.artifact.student.context_length
        if self.in_process:
            own = getattr(self.student, "n_ctx", None)
            return min((size for size in (own, measured) if size is not None), default=None)
        if self.spec.startswith("ollama:"):
            own = getattr(self.student, "num_ctx", None)
            if own is not None:
                return int(own)
            # Ollama's own default depends on its version and on the memory of the graphics card.
            needed = estimated_tokens(self.artifact.system_prompt) + RESERVED_TOKENS + _OLLAMA_ROOM
            return measured or max(_OLLAMA_CONTEXT, -(-needed // 1024) * 1024)
        return measured

    @cached_property
    def _room(self) -> int:
        """Tokens that the prompt leaves for the text. Loads an embedded model."""
        context = self._context or 0
        if self.in_process:
            context = min(context, getattr(self.student, "context_length", context))
        prompt, answer = self.artifact.system_prompt, self.artifact.answer
        taken = RESERVED_TOKENS + answer.thinking_tokens + self._tokens(prompt)
        if answer.form == "two_stage":
            # A question has a line of the prompt behind the text, the last one a label of each line.
            longest = {group: max(labels, key=len) for group, labels in answer.groups.items()}
            taken += max(self._tokens(line) for line in (*prompt.split("\n"), last_line(longest)))
        self._known_room = context - taken
        return self._known_room

    def _whole(self, reply: _Reply) -> _Reply:
        """The reply, unless its prompt was cut: Ollama drops the middle and says nothing, but its token count tells."""
        if self._context is None or isinstance(reply, Failure) or not self.spec.startswith("ollama:"):
            return reply
        counted = reply.usage_metadata
        if counted is None or counted["input_tokens"] < self._context - _OLLAMA_MARGIN:
            return reply
        msg = f"the prompt filled the context of {self._context} tokens, so Ollama may have cut it; raise num_ctx"
        return Failure(kind="input", message=msg)

    def _reading(self, text: str) -> Generator[_Wanted, _Reply, tuple[Scores | Failure, Usage]]:
        """Ask about one text that fits the context."""
        asking = questions(self._asked_as, text)
        usage: Usage | None = None
        try:
            messages = next(asking)
            while True:
                reply = self._whole(_as_answer((yield messages)))
                usage = _usage(reply) if usage is None else usage + _usage(reply)
                messages = asking.send(reply)
        except StopIteration as done:
            return done.value, usage or _NOTHING_SPENT

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
        tied = probabilities is not None and _is_tied(probabilities)
        # A gate cannot be passed without a probability, nor by a student whose risk it was not fitted to.
        admitted = gate is None or (
            confidence is not None and self._stranger is None and gate.admits(label, confidence)
        )
        decided = admitted and not tied
        return Verdict(
            status="decided" if decided else "abstained",
            label=label if decided else None,
            predicted_label=label,
            probabilities=probabilities,
            confidence=confidence,
            calibrated=probabilities is not None and self.calibrated,
            label_mass=outcome.label_mass,
            evidence=outcome.evidence,
            rule_ids=self._rule_ids[label],
            decided_by=self.spec if decided else None,
            **common,
        )

    def _ask(self, messages: list[BaseMessage], config: RunnableConfig) -> _Reply:
        breaker = self._breaker  # pydantic finds a private attribute slowly
        refused = breaker.refuses()
        if refused is not None:
            return refused
        try:
            reply: _Reply = self.retry.call(self._call, messages, config)
        except Exception as error:  # whatever a client raises becomes a typed failure, never a label
            if passes_through(error):
                raise
            reply = failure_of(error, self.spec)
        breaker.record(reply if isinstance(reply, Failure) else None)
        return reply

    async def _aask(self, messages: list[BaseMessage], config: RunnableConfig) -> _Reply:
        breaker = self._breaker  # pydantic finds a private attribute slowly
        refused = breaker.refuses()
        if refused is not None:
            return refused
        try:
            reply: _Reply = await self.retry.acall(self._acall, messages, config)
        except Exception as error:  # as above; cancellation is no Exception and passes
            if passes_through(error):
                raise
            reply = failure_of(error, self.spec)
        breaker.record(reply if isinstance(reply, Failure) else None)
        return reply

    def _call(self, messages: list[BaseMessage], config: RunnableConfig) -> AIMessage:
        asked, options = self._asked
        if self._bounds_itself:
            return asked.invoke(messages, config, **options)
        return call_within(self.timeout_s, lambda: asked.invoke(messages, config, **options), room=self._room_for_calls)

    async def _acall(self, messages: list[BaseMessage], config: RunnableConfig) -> AIMessage:
        asked, options = self._asked_in_loop()
        if self._waits_in_process:
            return await asked.ainvoke(messages, config, **options)
        if self._blocks:
            return await acall_within(
                self.timeout_s, lambda: asked.invoke(messages, config, **options), self._room_for_calls
            )
        async with asyncio.timeout(self.timeout_s):
            return await asked.ainvoke(messages, config, **options)

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

    @cached_property
    def calibrated(self) -> bool:
        """Whether this student's probabilities were calibrated on labelled rows."""
        return self._stranger is None and self.artifact.calibration.method != "none"

    def _resolved(self, escalation: Escalation) -> Escalation:
        """The escalation with a classifier where a chat model is given: the same prompt, its answer read as text."""
        inner: Any = escalation.to
        while isinstance(inner, RunnableBindingBase):
            inner = inner.bound
        if not isinstance(inner, BaseChatModel):
            ours = self.artifact.task.label_names
            theirs = inner.artifact.task.label_names if isinstance(inner, PLDClassifier) else ours
            if set(theirs) != set(ours):
                msg = (
                    f"escalate_to decides between {', '.join(theirs)}, this classifier between {', '.join(ours)}; "
                    "both need the same labels"
                )
                raise InputError(msg)
            return escalation
        model = resolve_chat_model(cast("BaseChatModel", escalation.to))
        artifact = self.artifact.model_copy(
            update={
                "scorer": "text",
                "calibration": Calibration.identity(self.artifact.task.label_names),
                "gate": None,
                "student": fingerprint_of(model, ask_server=False),
            }
        )
        other = PLDClassifier(artifact=artifact, student=model, timeout_s=escalation.timeout_s, retry=self.retry)
        return escalation.model_copy(update={"to": other})

    def _compare(self, student: ModelFingerprint) -> None:
        self._stranger = self.artifact.student.differs_from(student)
        if self._stranger:
            abstains = ", and its gate lets nothing pass" if self.artifact.gate is not None else ""
            warnings.warn(
                f"this is not the student that {self.artifact.id} was measured with ({self._stranger}): its scores say "
                f"nothing about this one, probabilities are not called calibrated{abstains}",
                UserWarning,
                stacklevel=2,
            )

    def _asked_in_loop(self) -> _Bound:
        """What is called in the running event loop; Ollama's client keeps connections, which die with their loop."""
        if not self.spec.startswith("ollama:"):
            return self._asked
        loop, known = asyncio.get_running_loop(), self._bound_in
        bound = known.get(loop)
        if bound is None:
            for other in [other for other in list(known) if other.is_closed()]:
                known.pop(other, None)
            bound = known[loop] = self._bind()
        return bound

    @cached_property
    def _asked(self) -> _Bound:
        """What is called, and with which options."""
        return self._bind()

    def _bind(self) -> _Bound:
        """The student set up for the answer; a binding is opened, since going through it costs time a call."""
        student = self.student
        if self.spec.startswith("ollama:") and getattr(student, "num_ctx", None) is None:
            student = student.model_copy(update={"num_ctx": self._context})
        bound = bind_student(student, self.artifact.answer, self.artifact.scorer, timeout_s=self.timeout_s)
        if isinstance(bound, RunnableBinding) and not bound.config and not bound.config_factories:
            return bound.bound, dict(bound.kwargs)
        return bound, {}

    @cached_property
    def _asked_as(self) -> DistilledPrompt:
        """The artifact without what it knows of another student's tokenizer."""
        if self._fingerprint is None or self._stranger is None:
            return self.artifact
        return self.artifact.model_copy(update={"answer": self.artifact.answer_for(self._fingerprint)})

    @cached_property
    def _rule_ids(self) -> dict[str, tuple[str, ...]]:
        artifact = self.artifact
        return {name: tuple(rule.id for rule in artifact.rules_for(name)) for name in artifact.task.label_names}

    @cached_property
    def _artifact_id(self) -> str:
        return self.artifact.id

    @cached_property
    def _bounds_itself(self) -> bool:
        """Whether the student's own client gives up in time, so that no thread has to watch over a call that blocks."""
        if self.spec.partition(":")[0] in {"embedded", "ollama"}:
            return True
        own = (getattr(self.student, name, None) for name in ("timeout", "request_timeout", "default_request_timeout"))
        return any(isinstance(seconds, int | float) and 0 < seconds <= self.timeout_s for seconds in own)

    @cached_property
    def _blocks(self) -> bool:
        """Whether the student has no async form of its own, so that LangChain would run it in the loop's executor."""
        return type(self.student)._agenerate in {BaseChatModel._agenerate, SimpleChatModel._agenerate}

    @cached_property
    def _waits_in_process(self) -> bool:
        # A wait in the queue of a model in this process is no hang, and Ollama's client has its time-out per request.
        return self.spec.partition(":")[0] in {"embedded", "ollama"}


def _unwatched(config: RunnableConfig | None) -> RunnableConfig | None:
    """The config to hand on when no callback, tracer or listener would see a run; else `None`.

    Opening a run that nobody sees costs more than everything else around a model call.
    """
    settled = ensure_config(config)
    if get_callback_manager_for_config(settled).handlers:
        return None
    # These two name this run, not that of the student.
    settled.pop("run_id", None)
    settled.pop("run_name", None)
    return settled


def _unstreamed(config: RunnableConfig) -> RunnableConfig:
    """The config with LangGraph's tag that keeps the student's bare label out of `stream_mode="messages"`."""
    return {**config, "tags": [*(config.get("tags") or ()), "nostream"]}


def _kept_from_streams(config: RunnableConfig) -> RunnableConfig:
    """The config for the student: its answer is a code, and no message of the conversation that a graph streams."""
    return {**config, "tags": [*(config.get("tags") or ()), "nostream"]}  # langgraph.constants.TAG_NOSTREAM


def _is_tied(probabilities: Mapping[str, float]) -> bool:
    """Whether two labels are equally likely, so that their order alone would decide."""
    most = max(probabilities.values())
    return sum(math.isclose(value, most, rel_tol=1e-9) for value in probabilities.values()) > 1


def _as_answer(reply: object) -> _Reply:
    """What a model gave as the answer that is read: some clients give a message of another kind, or none."""
    if isinstance(reply, AIMessage | Failure):
        return reply
    if isinstance(reply, BaseMessage):
        return AIMessage(reply.content, response_metadata=reply.response_metadata)
    return Failure(kind="unreadable", message=f"the model gave a {type(reply).__name__} instead of a message")


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
