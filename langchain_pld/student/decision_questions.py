"""LangChain's typed questions as classification tasks, and the probabilities of labels as typed answers."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from typing import Any, TypeAlias

from langchain_core.decisions import (  # type: ignore[import-not-found, unused-ignore]
    Answer,
    Choice,
    ChoiceAnswer,
    Noul,
    NoulAnswer,
    NoulCriteria,
    Question,
    Score,
    ScoreAnswer,
)
from pydantic import TypeAdapter, ValidationError

from langchain_pld.answer import AnswerFormat
from langchain_pld.errors import InputError
from langchain_pld.student.first_tokens import first_tokens_differ
from langchain_pld.student.state_text import state_text
from langchain_pld.task import Label, Task

__all__ = ["TypedQuestion", "artifact_labels", "read_question", "typed_answer", "zero_shot_task"]

TypedQuestion: TypeAlias = Noul | Choice | Score

_QUESTION: TypeAdapter[Any] = TypeAdapter(Question)
_NOT_IN_NAMES = re.compile(r"[\s{}<>]+")
_MAX_NAME_CHARS = 80
_DIGITS = 10


def read_question(value: Any) -> TypedQuestion:
    """Read a question from an object or plain JSON.

    Raises:
        InputError: It is not a question, or of a kind that a text model cannot answer.
    """
    try:
        question = _QUESTION.validate_python(value)
    except ValidationError as error:
        msg = f"this is not a question: {error.errors()[0]['msg']}"
        raise InputError(msg) from error
    if not isinstance(question, Noul | Choice | Score):
        msg = f"a student that reads text cannot answer a {type(question).__name__}; ask a Noul, Choice or Score"
        raise InputError(msg)
    return question


def zero_shot_task(question: TypedQuestion) -> tuple[Task, AnswerFormat]:
    """The task that a question poses, and its answer format: words if they can be told apart, else letters.

    Raises:
        InputError: There are no instructions, or more options than letters.
    """
    instructions = state_text(question.instructions)
    if not instructions.strip():
        msg = "the instructions are empty"
        raise InputError(msg)
    if isinstance(question, Noul):
        criteria = question.criteria or NoulCriteria()
        task = _task("noul", instructions, {"yes": criteria.true, "no": criteria.false})
        return task, AnswerFormat.words(task)
    if isinstance(question, Score):
        top = len(question.criteria) - 1
        instructions += f"\nThe labels are the levels of a scale, 0 the lowest and {top} the highest."
        task = _task("score", instructions, {str(level): text for level, text in enumerate(question.criteria)})
        # Two-digit numbers begin like one-digit ones.
        return task, AnswerFormat.words(task) if top < _DIGITS else _letters(task)
    names = _label_names(question.criteria)
    task = _task("choice", instructions, dict(zip(names, question.criteria.values(), strict=True)))
    words = {name: " ".join(option.split()) for name, option in zip(names, question.criteria, strict=True)}
    try:
        answer = AnswerFormat(codes=words)
    except ValidationError:  # words that cannot be answers: two differ only in case, one ends with a bracket, ...
        return task, _letters(task)
    return task, answer if first_tokens_differ(answer) else _letters(task)


def artifact_labels(question: TypedQuestion, task: Task) -> tuple[str, ...]:
    """The label of each option of a `Choice` or level of a `Score`, in order; for a `Noul`, the labels that mean yes.

    Raises:
        InputError: The question's criteria do not match the task's labels.
    """
    if isinstance(question, Noul):
        return _yes_labels(question.criteria or NoulCriteria(), task)
    labels = tuple(map(str, question.criteria))
    if sorted(labels) != sorted(task.label_names):
        what = "levels" if isinstance(question, Score) else "options"
        msg = f"its {what} must be the labels of task {task.name!r}: {', '.join(task.label_names)}"
        raise InputError(msg)
    return labels


def typed_answer(question: TypedQuestion, labels: tuple[str, ...], probabilities: Mapping[str, float]) -> Answer:
    """The answer to a question."""
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


def _task(name: str, instructions: str, descriptions: Mapping[str, Any]) -> Task:
    labels = tuple(
        Label(name=label, description="" if value is None else state_text(value))
        for label, value in descriptions.items()
    )
    return Task(name=name, instructions=instructions, labels=labels)


def _letters(task: Task) -> AnswerFormat:
    most = len(string.ascii_uppercase)
    if len(task.labels) > most:
        msg = (
            f"{len(task.labels)} options or levels are too many for single letters; use at most {most}, or words that "
            "begin differently"
        )
        raise InputError(msg)
    return AnswerFormat.letters(task)


def _label_names(options: Mapping[str, Any]) -> list[str]:
    """A label name for each option: the option itself if valid."""
    names: list[str] = []
    for number, option in enumerate(options, 1):
        name = _NOT_IN_NAMES.sub("_", option.strip())[:_MAX_NAME_CHARS]
        names.append(name if name and name not in names else f"option_{number}")
    return names


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
    # Each label must be on one side: a misspelt one would count as the other answer.
    if not yes or not no or sorted(map(str, (*yes, *no))) != sorted(names):
        msg = (
            f"its criteria must name the labels of task {task.name!r} ({', '.join(names)}) that mean yes or no, e.g. "
            f"NoulCriteria(true=[{names[0]!r}])"
        )
        raise InputError(msg)
    return tuple(map(str, yes))
