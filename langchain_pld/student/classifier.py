"""`PLDClassifier`: the Runnable that decides with a distilled prompt and a small student."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, get_callback_manager_for_config
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.artifact import Calibration, DistilledPrompt, ModelFingerprint
from langchain_pld.errors import InputError, StudentError
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.steps import Steps, arun_steps, run_steps
from langchain_pld.student.chunks import LongInput
from langchain_pld.student.decider import Decider
from langchain_pld.student.escalation import Escalation, EscalationBudget, ask_other, merge_verdicts
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.inputs import ClassifierInput, Select
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import fingerprint_of, model_spec, profile_of
from langchain_pld.task import Task
from langchain_pld.verdict import Verdict

__all__ = ["PLDClassifier"]

_known: ContextVar[tuple[BaseChatModel, ModelFingerprint] | None] = ContextVar("_known", default=None)
"""The student of the classifier under construction, with its fingerprint."""


class PLDClassifier(RunnableSerializable[ClassifierInput, Verdict]):
    """Classifies a text with a distilled prompt: one forward pass of a small model, no generated reasoning.

    Takes a text, messages, a prompt value or a mapping; returns a `Verdict`. Errors of a model or an input give a
    `failed` verdict that says why, unless `on_failure` is `raise`. Cancellation and LangGraph interrupts pass through.

    Example:
        >>> classifier = PLDClassifier.from_artifact("chat.pld.json", student="ollama:gemma3:4b")  # doctest: +SKIP
        >>> classifier.invoke("Could you finish this on Sunday?").label  # doctest: +SKIP
        'pressure'
    """

    # Frozen, because the student is set up only once: one assigned later would silently be ignored.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    artifact: DistilledPrompt
    """The distilled prompt."""
    student: BaseChatModel
    """The model that decides."""
    timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Time limit of one model call, in seconds."""
    retry: RetryPolicy = RetryPolicy()
    """When to retry a transient failure."""
    select: Select = "last_human"
    """Which of several messages to read: the last human one (else the last), for tasks about single texts; or `all`, as
    a transcript."""
    long_input: LongInput = LongInput()
    """What happens to an input that does not fit the student's context."""
    escalate_to: Escalation | None = None
    """Who decides about abstained and failed verdicts; a bare classifier, chat model or Runnable means an `Escalation`
    to it without a budget."""
    on_failure: Literal["return", "raise"] = "return"
    """Return a failed verdict, or raise `StudentError`, so that `with_retry` and `with_fallbacks` see it."""
    name: str | None = None
    """Name of the run in traces; by default `PLDClassifier`."""

    _fingerprint: ModelFingerprint = PrivateAttr()
    _escalation: Escalation = PrivateAttr()
    _budget: EscalationBudget = PrivateAttr()

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
        """Compare the student with the one that the artifact was measured with, without asking a server."""
        super().model_post_init(context)
        self.artifact.require_usable()
        known = _known.get()
        own = known is not None and known[0] is self.student
        self._fingerprint = known[1] if known and own else fingerprint_of(self.student, ask_server=False)
        # Built here, so that invalid settings fail now.
        if self._decider.other_student:
            abstains = ", and the gate always abstains" if self.artifact.gate is not None else ""
            warnings.warn(
                f"this is not the student that {self.artifact.id} was measured with ({self._decider.other_student}): "
                f"the scores do not apply to it, probabilities do not count as calibrated{abstains}",
                UserWarning,
                stacklevel=2,
            )
        if self.escalate_to is not None:
            self._escalation = self._escalation_to_classifier(self.escalate_to)
            self._budget = EscalationBudget(self.escalate_to)

    @classmethod
    def from_artifact(cls, path: str | Path, *, student: BaseChatModel | str | None = None, **options: Any) -> Self:
        """Load an artifact and set up its student.

        An Ollama server is asked which weights it serves, which blocks for five seconds at most. A student other than
        the one in the artifact's fingerprint gives a warning, and no probabilities count as calibrated.

        Args:
            path: The `*.pld.json` file.
            student: A chat model, or `provider:name`; by default the one in the fingerprint.
            **options: Other fields of the classifier.

        Raises:
            ArtifactError: The file cannot be used.
            ModelSetupError: The student cannot be set up.
        """
        artifact = DistilledPrompt.load(path)
        artifact.require_usable()  # checked here, because pydantic would wrap the error
        model = resolve_chat_model(artifact.student.spec if student is None else student)
        # Known before the comparison: a model under another name may have the weights of the fingerprint.
        token = _known.set((model, fingerprint_of(model)))
        try:
            return cls(artifact=artifact, student=model, **options)
        finally:
            _known.reset(token)

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
        """A student with the bare task as its prompt, for a first look: not distilled, measured or calibrated.

        Asks no server, so it can be called inside an event loop.

        Args:
            task: What to decide.
            student: A chat model, or `provider:name`.
            answer: What the student answers with; by default the label names.
            scorer: How to read its answers; `structured` or `text` for a student without log-probabilities.
            **options: Other fields of the classifier.

        Raises:
            ModelSetupError: The student cannot be set up.
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
        """A new classifier with some fields changed."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        kept = copy.deepcopy(kept) if deep else kept
        token = _known.set((kept["student"], self._fingerprint))
        try:
            return type(self)(**{**kept, **(update or {})})
        finally:
            _known.reset(token)

    def for_model(self, model: BaseChatModel | str, *, timeout_s: float = 60.0) -> PLDClassifier:
        """The same prompt for another chat model, with answers read as text and nothing calibrated.

        Args:
            model: A chat model, or `provider:name`.
            timeout_s: Time limit of one call, in seconds.

        Raises:
            ModelSetupError: The model cannot be set up.
        """
        model = resolve_chat_model(model)
        changes = {
            "scorer": "text",
            "calibration": Calibration.identity(self.artifact.task.label_names),
            "gate": None,
            "student": fingerprint_of(model, ask_server=False),
        }
        artifact = self.artifact.model_copy(update=changes)
        return PLDClassifier(artifact=artifact, student=model, timeout_s=timeout_s, retry=self.retry)

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """A tool that an agent calls with a text or the task's fields.

        By default its name is `classify_` and the task's name, its description the task's instructions and labels.
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

    # The student's own repr may show a password, and the artifact's the whole prompt.
    def __repr__(self) -> str:
        return f"{type(self).__name__}(artifact={self._decider.artifact_id!r}, student={self.spec!r})"

    __str__ = __repr__

    @property
    def InputType(self) -> Any:  # noqa: N802
        """The type of an input."""
        return ClassifierInput

    @property
    def OutputType(self) -> type[Verdict]:  # noqa: N802
        """The type of a result."""
        return Verdict

    @cached_property
    def spec(self) -> str:
        """The student as `provider:name`."""
        return model_spec(self.student)

    @property
    def in_process(self) -> bool:
        """Whether the student runs inside this process, one call at a time."""
        return profile_of(self.student).in_process

    @cached_property
    def prompt_tokens(self) -> int | None:
        """Length of the system prompt in the student's tokens; `None` if no tokenizer is available."""
        tokenizer = profile_of(self.student).tokenizer
        return None if tokenizer is None else len(tokenizer(self.artifact.system_prompt))

    @property
    def calibrated(self) -> bool:
        """Whether this student's probabilities were calibrated on labelled rows."""
        return self._decider.calibrated

    def invoke(self, input: ClassifierInput, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:  # noqa: A002, ARG002
        """Classify one input.

        Args:
            input: A text, messages, a prompt value, the task's fields, or a mapping with text, input or messages.
            config: Passed on to the student.
            **kwargs: Ignored; part of the Runnable interface.
        """
        silent = _config_without_run(config)
        if silent is not None:
            return self._invoke(input, None, silent)
        return self._call_with_config(self._invoke, input, config)

    async def ainvoke(self, input: ClassifierInput, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:  # noqa: A002, ARG002
        """Async form of `invoke`."""
        silent = _config_without_run(config)
        if silent is not None:
            return await self._ainvoke(input, None, silent)
        return await self._acall_with_config(self._ainvoke, input, config)

    # LangChain passes the config with this run as parent only to a function of three arguments.
    def _invoke(
        self,
        value: ClassifierInput,
        run_manager: CallbackManagerForChainRun | None,  # noqa: ARG002
        config: RunnableConfig,
    ) -> Verdict:
        return run_steps(self._steps(value, config))

    async def _ainvoke(
        self,
        value: ClassifierInput,
        run_manager: AsyncCallbackManagerForChainRun | None,  # noqa: ARG002
        config: RunnableConfig,
    ) -> Verdict:
        return await arun_steps(self._steps(value, config))

    @cached_property  # faster to look up than a private attribute of pydantic
    def _decider(self) -> Decider:
        return Decider(
            self.artifact,
            profile_of(self.student),
            self._fingerprint,
            select=self.select,
            long_input=self.long_input,
            timeout_s=self.timeout_s,
            retry=self.retry,
        )

    def _steps(self, value: ClassifierInput, config: RunnableConfig) -> Steps[Verdict]:
        # The student's answer is a code, not a message for a graph to stream.
        config = {**config, "tags": [*(config.get("tags") or ()), "nostream"]}  # langgraph.constants.TAG_NOSTREAM
        verdict = yield from self._decider.steps(value, config)
        if self.escalate_to is not None and self.escalate_to.applies_to(verdict) and self._budget.take():
            other = yield from ask_other(self._escalation, value, config, self.artifact.task.label_names)
            verdict = merge_verdicts(verdict, other, decider=self.spec)
        if verdict.failure is not None and self.on_failure == "raise":
            raise StudentError(verdict.failure)
        return verdict

    def _escalation_to_classifier(self, escalation: Escalation) -> Escalation:
        """Wrap a chat model in a classifier with the same prompt, and check a classifier's labels."""
        inner: Any = escalation.to
        while isinstance(inner, RunnableBindingBase):
            inner = inner.bound
        labels = self.artifact.task.label_names
        if not isinstance(inner, BaseChatModel):
            theirs = inner.artifact.task.label_names if isinstance(inner, PLDClassifier) else labels
            if set(theirs) != set(labels):
                msg = (
                    f"escalate_to decides between {', '.join(theirs)}, this classifier between {', '.join(labels)}; "
                    "both need the same labels"
                )
                raise InputError(msg)
            return escalation
        other = self.for_model(cast("BaseChatModel", escalation.to), timeout_s=escalation.timeout_s)
        return escalation.model_copy(update={"to": other})


def _config_without_run(config: RunnableConfig | None) -> RunnableConfig | None:
    """The config to pass on if no callback, tracer or listener would see a run of the classifier; else `None`.

    Opening an unobserved run costs more than everything else around a model call.
    """
    config = ensure_config(config)
    if get_callback_manager_for_config(config).handlers:
        return None
    # These two belong to this run, not to the student's.
    config.pop("run_id", None)
    config.pop("run_name", None)
    return config
