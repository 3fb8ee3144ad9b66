"""An offline teacher: questions are collected in files, answers are read from files.

```
DIR/
  requests/0001-generate.jsonl    the questions of one node that had no answer, written by the run
  responses/*.jsonl               answers, from a provider's batch interface, a person or a script
```

The first usable answer to a question counts; `batch_rows` says what is usable. After an unusable answer the question is
asked once more with what was wrong; after a second one it has failed, as with an online teacher.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from langchain_pld.errors import AnswersPendingError, InputError, ModelSetupError
from langchain_pld.models.batch_rows import Answer, BadRow, Question, misfit, read_rows
from langchain_pld.models.file_backed import FileBackedChatModel

__all__ = ["BatchChatModel", "BatchFolder", "Responses"]

_TRIES = 2
_MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Responses:
    """The content of the response files."""

    answers: dict[str, Answer] = field(default_factory=dict)
    """Question id to its first usable answer."""
    bad: list[BadRow] = field(default_factory=list)
    """Unusable rows, in the order of files and rows."""
    misfits: dict[str, list[tuple[Answer, str]]] = field(default_factory=dict)
    """Question id to unusable answers, each with what is wrong with its text; an empty string if the service failed."""

    def failed(self, question: str) -> bool:
        """Whether a question has used up its tries."""
        return question not in self.answers and len(self.misfits.get(question, ())) >= _TRIES

    def open(self, questions: Iterable[str]) -> list[str]:
        """The questions still waiting for an answer."""
        return [one for one in questions if one not in self.answers and not self.failed(one)]

    def repair(self, question: Question) -> Question:
        """The question, with what was wrong with its last answer, if any."""
        tries = self.misfits.get(question.id)
        problem = tries[-1][1] if tries else ""
        return question.with_repair(problem) if problem else question


class BatchFolder:
    """The folder of request and response files, created with the first question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests = path / "requests"
        self.responses = path / "responses"

    def request_files(self) -> dict[Path, tuple[Question, ...]]:
        """The questions of each request file, oldest file first.

        Raises:
            InputError: A request file has other content.
        """
        return {file: _questions(file) for file in _files(self.requests)}

    def questions(self) -> dict[str, Question]:
        """Id to question, as first asked."""
        found: dict[str, Question] = {}
        for questions in self.request_files().values():
            for question in questions:
                found.setdefault(question.id, question)
        return found

    def open_questions(self) -> list[Question]:
        """The questions without an answer, with what was wrong with an earlier one."""
        questions, responses = self.questions(), self.read_responses()
        return [responses.repair(questions[one]) for one in responses.open(questions)]

    def read_responses(self) -> Responses:
        """Read all response files of the folder."""
        return _read(_files(self.responses), self.questions(), known=())

    def check_file(self, file: Path) -> Responses:
        """Read a response file from elsewhere as if it were added to those in the folder.

        Raises:
            InputError: There is no such file, or nothing was asked in this folder.
        """
        if not file.is_file():
            raise InputError(f"no file at {file}")
        questions = self.questions()
        if not questions:
            raise InputError(f"nothing was asked in {self.path}: there is no question in {self.requests}")
        return _read([file], questions, known=self.read_responses().answers)

    def import_file(self, file: Path) -> tuple[Responses, Path | None]:
        """Copy the usable answers of a file into the folder.

        Returns:
            The content of the file, and the path of the copy, if there are answers.

        Raises:
            InputError: There is no such file, or nothing was asked in this folder.
        """
        with self._lock():
            found = self.check_file(file)
            if not found.answers:
                return found, None
            rows = [answer.row() for answer in found.answers.values()]
            return found, _write(self.responses, file.stem.lstrip("0123456789-") or "answers", map(json.dumps, rows))

    def add_responses(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write all rows of a service, usable or not, into a new response file.

        Args:
            name: Their origin, for the file name.
            rows: Rows in one of the forms of `batch_rows`.
        """
        with self._lock():
            return _write(self.responses, name, map(json.dumps, rows))

    def ask(self, questions: Sequence[Question], *, node: str) -> Path:
        """Write the open questions of a node into one request file, unless the newest file has them already.

        Args:
            questions: The questions, without duplicates.
            node: The name of the node, for the file name.
        """
        with self._lock():
            responses = self.read_responses()
            lines = [responses.repair(question).line() for question in questions]
            newest = _files(self.requests)[-1:]
            if newest and newest[0].read_bytes().decode().splitlines() == lines:
                return newest[0]
            self.responses.mkdir(exist_ok=True)
            return _write(self.requests, node, lines)

    def _lock(self) -> FileLock:
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / ".lock", timeout=60)


class BatchChatModel(FileBackedChatModel):
    """A chat model that collects its questions for a provider's batch interface, a person or a script.

    It raises `AnswersPendingError` until there is an answer. The distillation graph then writes all questions of a node
    into one file and waits.
    """

    def model_post_init(self, context: Any, /) -> None:
        """Make the path absolute.

        Raises:
            ModelSetupError: The path is a file.
        """
        super().model_post_init(context)
        self.path = self.path.absolute()
        if self.path.exists() and not self.path.is_dir():
            raise ModelSetupError(f"batch:{self.path} is not a folder; name one for request and response files")

    @property
    def _llm_type(self) -> str:
        return "batch"

    def answer_to(self, question: Question) -> Answer:
        """The answer to a question, or the last unusable one.

        Raises:
            AnswersPendingError: There is none yet.
            InputError: A request file is damaged.
        """
        folder = BatchFolder(self.path)
        files = [(file, file.stat()) for file in (*_files(folder.requests), *_files(folder.responses))]
        with _reading:
            responses = _responses(self.path, tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in files))
        if question.id in responses.answers:
            return responses.answers[question.id]
        if responses.failed(question.id):
            return responses.misfits[question.id][-1][0]
        raise AnswersPendingError(f"no answer yet to the question {question.id} in {self.path}", [question])

    def request(self, questions: Sequence[Question], *, node: str) -> dict[str, Any]:
        """Write the open questions of a node into a request file.

        Returns:
            What to do next, as the value of an interrupt.
        """
        folder = BatchFolder(self.path)
        file = folder.ask(questions, node=node)
        ids = {question.id for question in questions}
        problems = [str(row) for row in folder.read_responses().bad if row.id is None or row.id in ids]
        return {
            "waits_for": "answers",
            "node": node,
            "questions": len(ids),
            "request_file": str(file),
            "responses_folder": str(folder.responses),
            "problems": problems[:_MOST_PROBLEMS],
            "what_to_do": (
                f"the run waits for answers to the questions of {node}, {len(ids)} of them, in {file}. "
                f"Import the answers with: pld batch import {self.path} FILE. Then resume the run"
            ),
        }


_reading = threading.Lock()


@lru_cache(maxsize=4)
def _responses(folder: Path, _state: tuple[tuple[Path, int, int], ...]) -> Responses:
    """The responses in a folder, read again if a file is new or changed."""
    return BatchFolder(folder).read_responses()


def _read(files: Iterable[Path], questions: Mapping[str, Question], *, known: Iterable[str]) -> Responses:
    """Read response files and match them with the questions; the `known` ones already have an answer."""
    known, found = set(known), Responses()
    for file in files:
        for number, row in read_rows(file):
            if row.id is not None and row.id not in questions:
                row = BadRow(file, number, None, f"names {row.id}, which was not asked")
            elif isinstance(row, BadRow):
                if row.id is not None:
                    found.misfits.setdefault(row.id, []).append((Answer(row.id, ""), ""))
            elif row.id in known or row.id in found.answers:
                row = BadRow(file, number, row.id, "is already answered; the first usable answer counts")
            elif problem := misfit(row.text, questions[row.id]):
                found.misfits.setdefault(row.id, []).append((row, problem))
                row = BadRow(file, number, row.id, f"does not fit: {problem}")
            else:
                found.answers[row.id] = row
            if isinstance(row, BadRow):
                found.bad.append(row)
    return found


def _questions(file: Path) -> tuple[Question, ...]:
    found = []
    for number, raw in enumerate(file.read_bytes().splitlines(), 1):
        try:
            found.append(Question.read(raw))
        except ValueError as error:
            msg = f"{file}:{number}: the row {error}; restore it, or remove the file and resume the run"
            raise InputError(msg) from error
    return tuple(found)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _write(folder: Path, name: str, lines: Iterable[str]) -> Path:
    """Write a new numbered file atomically."""
    folder.mkdir(exist_ok=True)
    numbers = [int(file.name[:4]) for file in _files(folder) if file.name[:4].isdecimal()]
    path = folder / f"{max(numbers, default=0) + 1:04}-{name}.jsonl"
    partial = path.with_suffix(".part")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    partial.replace(path)
    return path
