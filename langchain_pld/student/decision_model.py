"""`PLDDecisionModel`: a small student behind LangChain's own interface for typed decisions.

LangChain's decision models take a state and questions and return typed answers with probabilities: `Noul` asks for the
probability of yes, `Choice` for one of several options, `Score` for a level of an ordered scale. With this class a
local student answers them, e.g. in `AutoModeMiddleware` and `ModelRouterMiddleware`.

The interface needs langchain-core 1.8; with an older one, importing this module raises an `ImportError`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import langchain_core
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import UsageMetadata
from langchain_core.runnables.config import ensure_config, get_executor_for_config
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_pld.artifact import Calibration, DistilledPrompt
from langchain_pld.errors import InputError, MissingExtraError, PLDError, StudentError
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.student.providers import fingerprint_of, model_spec
from langchain_pld.student.state_text import is_plain_message, state_text
from langchain_pld.verdict import Failure, Usage, Verdict

# The ignores are for type checking with an older langchain-core; with a newer one the real types are checked.
try:
    from langchain_core.decisions import (  # type: ignore[import-not-found, unused-ignore]
        Answer,
        BaseDecisionModel,
        Choice,
        ClassifierResponse,
        Noul,
        Question,
        State,
    )

    from langchain_pld.student.decision_questions import (
        TypedQuestion,
        artifact_labels,
        read_question,
        typed_answer,
        zero_shot_task,
    )
except ModuleNotFoundError as error:
    _msg = (
        "PLDDecisionModel needs langchain-core 1.8 or newer, which has the interface for decision models; "
        f'{langchain_core.__version__} is installed; run: pip install -U "langchain-core>=1.8"'
    )
    raise MissingExtraError(_msg) from error

__all__ = ["AbstainedError", "PLDDecisionModel"]

_REFERENCE = re.compile(r"\s*artifact:(\S+)\s*")


class AbstainedError(PLDError):
    """The artifact's gate does not let the student decide alone.

    Attributes: verdict: The abstained verdict, with its predicted label and probabilities.
    """

    def __init__(self, name: str, verdict: Verdict) -> None:
        super().__init__(
            f"question {name!r}: the student's confidence is below the gate of {verdict.artifact_id}, so it abstains; "
            "decide it another way, or set on_abstained='answer' to get its probabilities anyway"
        )
        self.verdict = verdict


class PLDDecisionModel(BaseDecisionModel):  # type: ignore[misc, unused-ignore]
    """Answers typed questions with one small student, one forward pass per question.

    A question with the instructions `artifact:NAME` is answered with the distilled prompt registered under that name:

    - `Choice`: its options must be all of the task's labels;
    - `Score`: its levels must be the task's labels, in the order of the scale;
    - `Noul`: its criteria name the label or labels that mean yes, or no, or both; without criteria, yes is any label
      but the task's `none_label`, or the label `yes` of a yes-no task.

    Any other question is answered zero-shot, with a prompt made from its instructions and criteria.

    Probabilities come from the log-probabilities of the answer words, which the student has to return. An artifact's
    are calibrated if the student is the one it was measured with. `confidence` is the probability of the most probable
    option or level; a score is the expected level.

    The interface has no abstention: an unreadable or missing answer, or a verdict below an artifact's gate, raises an
    error, even for one of several questions. LangChain's middleware then runs neither the tool nor the model.

    The state is read as text: texts and messages as they are, anything else as JSON. Media in it is an error.

    Example:
        >>> model = PLDDecisionModel(  # doctest: +SKIP
        ...     student="ollama:gemma3:4b", artifacts={"risk": "tool_risk.pld.json"}
        ... )
        >>> AutoModeMiddleware(tools=["delete_file"], instructions="artifact:risk", classifier=model)  # doctest: +SKIP
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = ""
    """The student's name; always taken from the student."""
    student: BaseChatModel
    """The model that decides, or its `provider:name`."""
    artifacts: dict[str, DistilledPrompt] = Field(default_factory=dict)
    """Name to distilled prompt, or to the path of a `*.pld.json` file, for questions that refer to one."""
    on_abstained: Literal["raise", "answer"] = "raise"
    """For a verdict below an artifact's gate, raise `AbstainedError` or answer with its probabilities."""
    timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Time limit of one model call, in seconds."""
    retry: RetryPolicy = RetryPolicy()
    """When to retry a transient failure."""

    _classifiers: dict[str, PLDClassifier] = PrivateAttr(default_factory=dict)
    _answerer: Callable[[str], _Answerer] = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        student, artifacts = values.get("student"), values.get("artifacts", {})
        if student is not None:
            student = resolve_chat_model(student)
        if isinstance(artifacts, Mapping):
            artifacts = {
                name: DistilledPrompt.load(artifact) if isinstance(artifact, str | Path) else artifact
                for name, artifact in artifacts.items()
            }
        name = model_spec(student).partition(":")[2] if isinstance(student, BaseChatModel) else ""
        return {**values, "student": student, "artifacts": artifacts, "model": name}

    def model_post_init(self, context: Any, /) -> None:
        """Set up the student for each artifact.

        Raises:
            InputError: An artifact's answers carry no probabilities; pydantic wraps it in a `ValidationError`.
        """
        super().model_post_init(context)
        student = fingerprint_of(self.student, ask_server=False)
        for name, artifact in self.artifacts.items():
            if artifact.scorer in {"structured", "text"}:
                msg = (
                    f"the artifact {name!r} ({artifact.id}) reads answers as {artifact.scorer!r}, which gives no "
                    "probabilities; distil it with a student that returns log-probabilities, or use PLDClassifier"
                )
                raise InputError(msg)
            if artifact.student.differs_from(student):
                # An answer cannot say that its probabilities are calibrated for another model.
                plain = Calibration.identity(artifact.task.label_names)
                artifact = artifact.model_copy(update={"calibration": plain})
            self._classifiers[name] = PLDClassifier(
                artifact=artifact, student=self.student, timeout_s=self.timeout_s, retry=self.retry
            )
        # Cached, since a classifier keeps its client and circuit breaker; bounded, since questions are endless.
        self._answerer = lru_cache(maxsize=128)(self._find_answerer)

    @property
    def _provider(self) -> str:
        return model_spec(self.student).partition(":")[0]

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        queries, config = self._ask(state, questions), ensure_config()

        def verdict(query: _Query) -> Verdict | None:
            classifier = query.answerer.classifier
            return None if classifier is None else classifier.invoke(query.input, config)

        if len(queries) == 1:
            return self._response(queries, [verdict(queries[0])])
        with get_executor_for_config(config) as executor:
            return self._response(queries, list(executor.map(verdict, queries)))

    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        # The base class sets the config of the run but does not pass it on.
        queries, config = self._ask(state, questions), ensure_config()
        limit = asyncio.Semaphore(config.get("max_concurrency") or len(queries))

        async def verdict(query: _Query) -> Verdict | None:
            classifier = query.answerer.classifier
            async with limit:
                return None if classifier is None else await classifier.ainvoke(query.input, config)

        return self._response(queries, await asyncio.gather(*map(verdict, queries)))

    def _ask(self, state: State, questions: Mapping[str, Question]) -> list[_Query]:
        if not questions:
            msg = "a request needs at least one question"
            raise InputError(msg)
        queries = []
        for name, value in questions.items():
            try:
                question = read_question(value)
                answerer = self._answerer(question.model_dump_json())
                queries.append(_Query(name, question, answerer, answerer.input(state)))
            except InputError as error:
                msg = f"question {name!r}: {error}"
                raise InputError(msg) from error
        return queries

    def _find_answerer(self, question_json: str) -> _Answerer:
        question = read_question(json.loads(question_json))
        match = _REFERENCE.fullmatch(question.instructions) if isinstance(question.instructions, str) else None
        if match is not None:
            classifier = self._classifiers.get(match[1])
            if classifier is None:
                known = ", ".join(self._classifiers) or "none"
                msg = f"no artifact is registered as {match[1]!r} (known: {known}); pass it in artifacts={{...}}"
                raise InputError(msg)
            return _Answerer(classifier, artifact_labels(question, classifier.artifact.task), distilled=True)
        if isinstance(question, Choice) and len(question.criteria) == 1:
            return _Answerer(None, tuple(question.criteria))
        task, answer = zero_shot_task(question)
        classifier = PLDClassifier.zero_shot(
            task, self.student, answer=answer, timeout_s=self.timeout_s, retry=self.retry
        )
        return _Answerer(classifier, ("yes",) if isinstance(question, Noul) else task.label_names)

    def _response(self, queries: Sequence[_Query], verdicts: Sequence[Verdict | None]) -> ClassifierResponse:
        answers: dict[str, Answer] = {}
        usage = Usage()
        for query, verdict in zip(queries, verdicts, strict=True):
            labels = query.answerer.labels
            probabilities = dict.fromkeys(labels, 1.0) if verdict is None else self._probabilities(query, verdict)
            answers[query.name] = typed_answer(query.question, labels, probabilities)
            usage += Usage() if verdict is None else verdict.usage
        return ClassifierResponse(
            model=self.model,
            answers=answers,
            usage=UsageMetadata(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.input_tokens + usage.output_tokens,
                input_token_details={"cache_read": usage.cached_tokens},
            ),
        )

    def _probabilities(self, query: _Query, verdict: Verdict) -> dict[str, float]:
        failure = verdict.failure
        if failure is None and verdict.probabilities is None:
            failure = Failure(kind="unreadable", message="the student gave a label without probabilities")
        if failure is not None:
            raise StudentError(failure.model_copy(update={"message": f"question {query.name!r}: {failure.message}"}))
        # Two equally likely labels also abstain; without a gate that is no error.
        if verdict.status == "abstained" and self.on_abstained == "raise" and query.answerer.is_gated:
            raise AbstainedError(query.name, verdict)
        return verdict.probabilities or {}


@dataclass(frozen=True)
class _Answerer:
    """What answers a question."""

    classifier: PLDClassifier | None
    """The classifier; `None` if there is only one possible answer."""
    labels: tuple[str, ...]
    """See `artifact_labels`."""
    distilled: bool = False
    """Whether it uses an artifact."""

    @property
    def is_gated(self) -> bool:
        return self.classifier is not None and self.classifier.artifact.gate is not None

    def input(self, state: State) -> ClassifierInput:
        """The state as this question's task takes it."""
        if self.classifier is None or not self.distilled:
            return state_text(state)
        fields = self.classifier.artifact.task.fields
        if fields:
            if not isinstance(state, Mapping) or not set(fields) <= set(state):
                got = ", ".join(map(str, state)) if isinstance(state, Mapping) else f"a {type(state).__name__}"
                msg = f"the artifact's task takes a state with {', '.join(fields)}; got {got}"
                raise InputError(msg)
            return {name: state_text(state[name]) for name in fields}
        # As the classifier reads a conversation, because the prompt was measured that way.
        if isinstance(state, Sequence) and not isinstance(state, str) and all(map(is_plain_message, state)):
            return state
        return state_text(state)


@dataclass(frozen=True)
class _Query:
    """A question about a state."""

    name: str
    question: TypedQuestion
    answerer: _Answerer
    input: ClassifierInput
