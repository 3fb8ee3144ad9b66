"""`PLDDecisionModel`: a small student behind LangChain's own interface for typed decisions.

LangChain's decision models take a state and questions and give typed answers with probabilities: `Noul` asks for the
probability of yes, `Choice` for one of several options, `Score` for a level of an ordered scale. With this class one
local student answers them, and so fits into `AutoModeMiddleware` and `ModelRouterMiddleware`.

The interface came with langchain-core 1.8; importing this module with an older one raises an `ImportError` that says
so.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import langchain_core
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, UsageMetadata
from langchain_core.messages.content import is_data_content_block
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, get_executor_for_config
from pydantic import ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError, model_validator

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, DistilledPrompt
from langchain_pld.errors import InputError, MissingExtraError, PLDError, StudentError
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.student.providers import fingerprint_of, model_spec
from langchain_pld.student.scoring import first_tokens_differ
from langchain_pld.task import Label, Task
from langchain_pld.verdict import Failure, Usage, Verdict

# The ignores serve a type checker that sees an older langchain-core; with a newer one it checks the real types.
try:
    from langchain_core.decisions import (  # type: ignore[import-not-found, unused-ignore]
        Answer,
        BaseDecisionModel,
        Choice,
        ChoiceAnswer,
        ClassifierResponse,
        Noul,
        NoulAnswer,
        NoulCriteria,
        Question,
        Score,
        ScoreAnswer,
        State,
    )
except ModuleNotFoundError as error:
    _msg = (
        "PLDDecisionModel needs langchain-core 1.8 or newer, which has the interface for decision models; "
        f'installed is {langchain_core.__version__}; run: pip install -U "langchain-core>=1.8"'
    )
    raise MissingExtraError(_msg) from error

__all__ = ["AbstainedError", "PLDDecisionModel"]

_QUESTION: TypeAdapter[Any] = TypeAdapter(Question)
_REFERENCE = re.compile(r"\s*artifact:(\S+)\s*")
_NO_NAME = re.compile(r"[\s{}<>]+")
_LONGEST_NAME = 80
_DIGITS = 10
# LangGraph shows no tokens of a chat model with this tag to the user of a graph.
_NO_STREAM = "nostream"


class AbstainedError(PLDError):
    """The artifact's gate says that the student may not decide this alone.

    Attributes:
        verdict: The abstained verdict, with its predicted_label and probabilities.
    """

    def __init__(self, name: str, verdict: Verdict) -> None:
        super().__init__(
            f"question {name!r}: the student's confidence is below the gate of {verdict.artifact_id}, so it abstains; "
            "decide it another way, or set on_abstained='answer' to get its probabilities all the same"
        )
        self.verdict = verdict


class PLDDecisionModel(BaseDecisionModel):  # type: ignore[misc, unused-ignore]
    """Answers typed questions with one small student; one forward pass a question.

    A question whose instructions are `artifact:NAME` is answered with the distilled prompt registered under that name:

    - `Choice`: its options are the task's labels, all of them;
    - `Score`: its levels are the task's labels, in the order of the scale;
    - `Noul`: its criteria name the label, or the list of labels, that means yes, or no, or both; without criteria, yes
      is any label but the task's `none_label`, or the label `yes` of a task of yes and no.

    Any other question is answered zero-shot, with a prompt made from its instructions and criteria.

    Probabilities come from the log-probabilities of the answer words, so the student has to give them. Those of an
    artifact are calibrated where the student is the one that it was measured with. `confidence` is the probability of
    the most probable option or level; a score is the expected level.

    The interface knows no abstention: an answer that cannot be read or had, and a verdict below an artifact's gate,
    are raised, and of several questions one is enough. LangChain's middleware then runs neither the tool nor the model.

    The state is read as text: a text or message as it stands, anything else as JSON. An image or other media in it is
    an error.

    Example:
        >>> model = PLDDecisionModel(  # doctest: +SKIP
        ...     student="ollama:gemma3:4b", artifacts={"risk": "tool_risk.pld.json"}
        ... )
        >>> AutoModeMiddleware(tools=["delete_file"], instructions="artifact:risk", classifier=model)  # doctest: +SKIP
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = ""
    """The student's name; always filled in from the student."""
    student: BaseChatModel
    """The model that decides; also taken as `provider:name`."""
    artifacts: dict[str, DistilledPrompt] = Field(default_factory=dict)
    """Name to distilled prompt, for questions that carry one; also taken as paths of `*.pld.json` files."""
    on_abstained: Literal["raise", "answer"] = "raise"
    """What a verdict below an artifact's gate does: raise `AbstainedError`, or answer with its probabilities."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that one model call may take."""
    retry: RetryPolicy = RetryPolicy()
    """When a transient failure is tried again."""

    _distilled: dict[str, PLDClassifier] = PrivateAttr(default_factory=dict)
    _asked: Callable[[str], _Asked] = PrivateAttr()

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
        """Put the student behind each artifact.

        Raises:
            InputError: An artifact's answers carry no probabilities; pydantic wraps it in its `ValidationError`.
        """
        super().model_post_init(context)
        student = fingerprint_of(self.student, ask_server=False)
        for name, artifact in self.artifacts.items():
            if artifact.scorer in {"structured", "text"}:
                msg = (
                    f"the artifact {name!r} ({artifact.id}) reads answers as {artifact.scorer!r}, which gives no "
                    "probabilities; distil it with a student that gives log-probabilities, or use PLDClassifier"
                )
                raise InputError(msg)
            if artifact.student.differs_from(student):
                # An answer has no place to say that its probabilities are calibrated for another model.
                plain = Calibration.identity(artifact.task.label_names)
                artifact = artifact.model_copy(update={"calibration": plain})
            self._distilled[name] = self._classifier(artifact)
        # A classifier keeps its client and its circuit breaker from call to call; questions may come without end.
        self._asked = lru_cache(maxsize=128)(self._prepare)

    @property
    def _provider(self) -> str:
        return model_spec(self.student).partition(":")[0]

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        asks, config = self._asks(state, questions), _config()

        def verdict(ask: _Ask) -> Verdict | None:
            classifier = ask.asked.classifier
            return None if classifier is None else classifier.invoke(ask.input, config)

        if len(asks) == 1:
            return self._response(asks, [verdict(asks[0])])
        with get_executor_for_config(config) as executor:
            return self._response(asks, list(executor.map(verdict, asks)))

    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        asks, config = self._asks(state, questions), _config()
        limit = asyncio.Semaphore(config.get("max_concurrency") or len(asks))

        async def verdict(ask: _Ask) -> Verdict | None:
            classifier = ask.asked.classifier
            async with limit:
                return None if classifier is None else await classifier.ainvoke(ask.input, config)

        return self._response(asks, await asyncio.gather(*map(verdict, asks)))

    def _asks(self, state: State, questions: Mapping[str, Question]) -> list[_Ask]:
        if not questions:
            msg = "a request needs at least one question"
            raise InputError(msg)
        asks = []
        for name, value in questions.items():
            try:
                question = _question(value)
                asked = self._asked(question.model_dump_json())
                asks.append(_Ask(name=name, question=question, asked=asked, input=asked.input(state)))
            except InputError as error:
                msg = f"question {name!r}: {error}"
                raise InputError(msg) from error
        return asks

    def _prepare(self, question_json: str) -> _Asked:
        question = _QUESTION.validate_json(question_json)
        match = _REFERENCE.fullmatch(question.instructions) if isinstance(question.instructions, str) else None
        if match is not None:
            classifier = self._distilled.get(match[1])
            if classifier is None:
                known = ", ".join(self._distilled) or "none"
                msg = f"no artifact is registered as {match[1]!r} (known: {known}); hand it in with artifacts={{...}}"
                raise InputError(msg)
            labels = _artifact_labels(question, classifier.artifact.task)
            return _Asked(classifier=classifier, labels=labels, distilled=True)
        if isinstance(question, Choice) and len(question.criteria) == 1:
            return _Asked(classifier=None, labels=tuple(question.criteria), distilled=False)
        task, answer = _zero_shot(question)
        classifier = PLDClassifier.zero_shot(
            task, self.student, answer=answer, timeout_s=self.timeout_s, retry=self.retry
        )
        labels = ("yes",) if isinstance(question, Noul) else task.label_names
        return _Asked(classifier=classifier, labels=labels, distilled=False)

    def _classifier(self, artifact: DistilledPrompt) -> PLDClassifier:
        return PLDClassifier(artifact=artifact, student=self.student, timeout_s=self.timeout_s, retry=self.retry)

    def _response(self, asks: Sequence[_Ask], verdicts: Sequence[Verdict | None]) -> ClassifierResponse:
        answers: dict[str, Answer] = {}
        usage = Usage()
        for ask, verdict in zip(asks, verdicts, strict=True):
            probabilities = _certain(ask.asked.labels) if verdict is None else self._probabilities(ask.name, verdict)
            answers[ask.name] = _answer(ask.question, ask.asked.labels, probabilities)
            usage += Usage() if verdict is None else verdict.usage
        return ClassifierResponse(model=self.model, answers=answers, usage=_usage(usage))

    def _probabilities(self, name: str, verdict: Verdict) -> dict[str, float]:
        failure = verdict.failure
        if failure is None and verdict.probabilities is None:
            failure = Failure(kind="unreadable", message="the student gave a label without probabilities")
        if failure is not None:
            raise StudentError(failure.model_copy(update={"message": f"question {name!r}: {failure.message}"}))
        if verdict.status == "abstained" and self.on_abstained == "raise":
            raise AbstainedError(name, verdict)
        return verdict.probabilities or {}


@dataclass(frozen=True)
class _Asked:
    """A question made ready for its student."""

    classifier: PLDClassifier | None
    """Who answers; `None` where there is only one answer."""
    labels: tuple[str, ...]
    """Of a `Choice` and a `Score` the label of each option or level in order; of a `Noul` those that mean yes."""
    distilled: bool
    """Whether an artifact answers."""

    def input(self, state: State) -> ClassifierInput:
        """The state as this question's task takes it."""
        if self.classifier is None or not self.distilled:
            return _text(state)
        fields = self.classifier.artifact.task.fields
        if fields:
            if not isinstance(state, Mapping) or not set(fields) <= set(state):
                got = ", ".join(map(str, state)) if isinstance(state, Mapping) else f"a {type(state).__name__}"
                msg = f"the artifact's task takes a state with {', '.join(fields)}; got {got}"
                raise InputError(msg)
            return {name: _text(state[name]) for name in fields}
        # As the classifier reads a conversation, which is what the prompt was measured with.
        if isinstance(state, Sequence) and not isinstance(state, str) and all(map(_is_plain, state)):
            return state
        return _text(state)


@dataclass(frozen=True)
class _Ask:
    """A question about a state."""

    name: str
    question: Any
    asked: _Asked
    input: ClassifierInput


def _config() -> RunnableConfig:
    """The config of the run that asks: the base class sets it but does not hand it over."""
    config = ensure_config()
    config["tags"] = [*(config.get("tags") or []), _NO_STREAM]
    return config


def _question(value: Any) -> Noul | Choice | Score:
    try:
        question = _QUESTION.validate_python(value)
    except ValidationError as error:
        msg = f"this is no question: {error.errors()[0]['msg']}"
        raise InputError(msg) from error
    if not isinstance(question, Noul | Choice | Score):
        msg = f"a student that reads text cannot answer a {type(question).__name__}; ask a Noul, Choice or Score"
        raise InputError(msg)
    return question


def _zero_shot(question: Noul | Choice | Score) -> tuple[Task, AnswerFormat]:
    """The task that a question poses, and the words to answer it with."""
    instructions = _text(question.instructions)
    if not instructions.strip():
        msg = "the instructions are empty"
        raise InputError(msg)
    if isinstance(question, Noul):
        criteria = question.criteria or NoulCriteria()
        task = Task(
            name="noul",
            instructions=instructions,
            labels=(
                Label(name="yes", description=_described(criteria.true)),
                Label(name="no", description=_described(criteria.false)),
            ),
        )
        return task, AnswerFormat.words(task)
    if isinstance(question, Score):
        top = len(question.criteria) - 1
        task = Task(
            name="score",
            instructions=f"{instructions}\nThe labels are the levels of a scale, 0 the lowest and {top} the highest.",
            labels=tuple(
                Label(name=str(n), description=_described(level)) for n, level in enumerate(question.criteria)
            ),
        )
        # A number of two digits begins like one of a single digit.
        return task, AnswerFormat.words(task) if top < _DIGITS else _letters(task)
    names = _label_names(question.criteria)
    task = Task(
        name="choice",
        instructions=instructions,
        labels=tuple(
            Label(name=name, description=_described(description))
            for name, description in zip(names, question.criteria.values(), strict=True)
        ),
    )
    words = {name: " ".join(option.split()) for name, option in zip(names, question.criteria, strict=True)}
    try:
        answer = AnswerFormat(codes=words)
    except ValidationError:  # these words cannot be answers: two are the same but for case, one ends in a bracket, ...
        return task, _letters(task)
    return task, answer if first_tokens_differ(answer) else _letters(task)


def _letters(task: Task) -> AnswerFormat:
    if len(task.labels) > len(string.ascii_uppercase):
        msg = (
            f"{len(task.labels)} options or levels cannot be told apart by one letter; ask with at most "
            f"{len(string.ascii_uppercase)}, or with words that begin differently"
        )
        raise InputError(msg)
    return AnswerFormat.letters(task)


def _label_names(options: Mapping[str, Any]) -> list[str]:
    """A label name for each option: the option itself where it can be one."""
    names: list[str] = []
    for number, option in enumerate(options, 1):
        name = _NO_NAME.sub("_", option.strip())[:_LONGEST_NAME]
        names.append(name if name and name not in names else f"option_{number}")
    return names


def _artifact_labels(question: Noul | Choice | Score, task: Task) -> tuple[str, ...]:
    """The labels behind a question's options or levels, or those that mean yes."""
    if isinstance(question, Noul):
        return _yes_labels(question.criteria or NoulCriteria(), task)
    labels = tuple(map(str, question.criteria))
    if sorted(labels) != sorted(task.label_names):
        what = "levels" if isinstance(question, Score) else "options"
        msg = f"its {what} must be the labels of task {task.name!r}: {', '.join(task.label_names)}"
        raise InputError(msg)
    return labels


def _yes_labels(criteria: NoulCriteria, task: Task) -> tuple[str, ...]:
    names = task.label_names
    yes, no = (
        tuple(value) if isinstance(value, list) else (value,) if value is not None else None
        for value in (criteria.true, criteria.false)
    )
    if yes is None and no is None:
        if task.none_label is not None:
            no = (task.none_label,)
        elif set(names) == {"yes", "no"}:
            no = ("no",)
    if yes is None and no is not None:
        yes = tuple(name for name in names if name not in no)
    if yes is not None and no is None:
        no = tuple(name for name in names if name not in yes)
    # Each label on one side: a misspelt one would otherwise count as the other answer.
    if not yes or not no or sorted(map(str, (*yes, *no))) != sorted(names):
        msg = (
            f"its criteria must name the labels of task {task.name!r} ({', '.join(names)}) that mean yes or no, e.g. "
            f"NoulCriteria(true=[{names[0]!r}])"
        )
        raise InputError(msg)
    return tuple(map(str, yes))


def _certain(labels: tuple[str, ...]) -> dict[str, float]:
    return dict.fromkeys(labels, 1.0)


def _answer(question: Any, labels: tuple[str, ...], probabilities: Mapping[str, float]) -> Answer:
    values = [probabilities[label] for label in labels]
    if isinstance(question, Noul):
        return NoulAnswer(type="noul", noul=min(1.0, math.fsum(values)))
    if isinstance(question, Choice):
        options = dict(zip(question.criteria, values, strict=True))
        top = max(options, key=options.__getitem__)
        return ChoiceAnswer(type="choice", choice=top, probabilities=options, confidence=min(1.0, options[top]))
    return ScoreAnswer(
        type="score",
        score=math.fsum(level * value for level, value in enumerate(values)),
        legend=dict(enumerate(question.criteria)),
        probabilities=dict(enumerate(values)),
        confidence=min(1.0, max(values)),
    )


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
    )


def _described(value: Any) -> str:
    return "" if value is None else _text(value)


def _text(value: Any) -> str:
    """A state or an instruction as text; nothing of it is left out but a model's reasoning."""
    if isinstance(value, str):
        return value
    if isinstance(value, BaseMessage) and _is_plain(value):
        return str(value.text)
    try:
        # As JSON, which a text inside cannot break out of to pass for another message.
        return json.dumps(_plain(value), ensure_ascii=False)
    except RecursionError as error:
        msg = "the state is nested too deeply"
        raise InputError(msg) from error


def _is_plain(value: Any) -> bool:
    return isinstance(value, BaseMessage) and all(
        block["type"] in {"text", "reasoning"} for block in value.content_blocks
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, BaseMessage):
        return _message(value)
    if isinstance(value, Mapping):
        _refuse_media(value)
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    msg = f"a state holds texts, numbers, lists, mappings and messages; got a {type(value).__name__}"
    raise InputError(msg)


def _message(message: BaseMessage) -> dict[str, Any]:
    kind = message.type.removesuffix("MessageChunk").lower()
    record: dict[str, Any] = {"role": {"human": "user", "ai": "assistant"}.get(kind, kind)}
    if message.name:
        record["name"] = message.name
    record["content"] = str(message.text)
    calls, others = [], []
    for block in message.content_blocks:
        if block["type"] == "tool_call":
            calls.append({"name": block["name"], "args": _plain(block["args"])})
        elif block["type"] not in {"text", "reasoning"}:
            others.append(_plain(block))
    if calls:
        record["tool_calls"] = calls
    if others:
        record["other_content"] = others
    return record


def _refuse_media(value: Mapping[Any, Any]) -> None:
    # A document that comes as text is text; is_data_content_block counts it among the media.
    if is_data_content_block(dict(value)) and not ("text" in value and not {"url", "base64", "file_id"} & set(value)):
        msg = f"the student reads text only, and there is media of type {value['type']!r}; take it out or describe it"
        raise InputError(msg)
