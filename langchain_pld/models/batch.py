"""A teacher that answers later: questions are collected into files, answers are read from files.

```
DIR/
  requests/0001-generate.jsonl    the questions of one node that had no answer, written by the run
  responses/*.jsonl               answers, from a provider's batch interface, a person or a script
```

What a usable answer is, `batch_rows` says. The first usable answer to a question counts. A question whose answer cannot
be used is asked once more, with what was wrong; if that answer is of no use either, the question has failed, as it has
with a teacher that answers at once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field, PrivateAttr

from langchain_pld.errors import AnswersPendingError, InputError, ModelSetupError
from langchain_pld.models.batch_rows import Answer, BadRow, Question, misfit, read_rows
from langchain_pld.models.filed import FiledChatModel

__all__ = ["BatchChatModel", "BatchFolder", "Reading"]

_TRIES = 2
_SHOWN = 20


@dataclass(frozen=True)
class Reading:
    """What response files hold."""

    answers: dict[str, Answer] = field(default_factory=dict)
    """Question id to its first usable answer."""
    lines: dict[str, bytes] = field(default_factory=dict)
    """Question id to the row of that answer, as it stands in the file."""
    bad: tuple[BadRow, ...] = ()
    """Rows that are of no use, in the order of files and rows."""
    misfits: dict[str, tuple[tuple[Answer, str], ...]] = field(default_factory=dict)
    """Question id to the answers that cannot be used, each with what is wrong with its text; nothing is where the
    service failed."""

    def failed(self, question: str) -> bool:
        """Whether a question has had all its tries."""
        return question not in self.answers and len(self.misfits.get(question, ())) >= _TRIES

    def again(self, question: Question) -> Question:
        """The question as it is to be asked now: with what was wrong with its last answer, if there was one."""
        tried = self.misfits.get(question.id)
        problem = tried[-1][1] if tried else ""
        return question.after(problem) if problem else question

    def open(self, questions: Iterable[str]) -> list[str]:
        """Those of the questions that still wait for an answer."""
        return [one for one in questions if one not in self.answers and not self.failed(one)]


class BatchFolder:
    """The folder of request and response files.

    Args:
        path: Where it is, or will be once there is a question.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests = path / "requests"
        self.responses = path / "responses"

    def asked(self) -> dict[Path, tuple[Question, ...]]:
        """The questions of each request file, in the order in which the files were written.

        Raises:
            InputError: A request file holds something else.
        """
        return {file: _questions(file) for file in _files(self.requests)}

    def questions(self) -> dict[str, Question]:
        """Each question under its id, as it was asked first."""
        found: dict[str, Question] = {}
        for questions in self.asked().values():
            for question in questions:
                found.setdefault(question.id, question)
        return found

    def waiting(self) -> list[Question]:
        """The questions without an answer, with what was wrong with an earlier one."""
        questions, reading = self.questions(), self.reading()
        return [reading.again(questions[one]) for one in reading.open(questions)]

    def reading(self) -> Reading:
        """All response files of the folder."""
        return _read(_files(self.responses), self.questions(), known=())

    def check(self, file: Path) -> Reading:
        """A response file that is not in the folder yet, as it would count beside those that are.

        Raises:
            InputError: There is no such file, or nothing was asked in this folder.
        """
        if not file.is_file():
            msg = f"no file at {file}"
            raise InputError(msg)
        return _read([file], self._required(), known=self.reading().answers)

    def take(self, file: Path) -> tuple[Reading, Path | None]:
        """Copy the usable rows of a file into the folder; the file stays as it is.

        Returns:
            What the file holds, and where the rows went, if there are any.

        Raises:
            InputError: There is no such file, or nothing was asked in this folder.
        """
        with self._held():
            found = self.check(file)
            if not found.lines:
                return found, None
            rows = b"".join(line.strip() + b"\n" for line in found.lines.values())
            return found, _write(self.responses, file.stem.lstrip("0123456789-") or "answers", rows)

    def keep(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write rows of a service into a response file of their own, good or bad.

        Args:
            name: Where they come from, for the file's name.
            rows: Rows in one of the forms of `batch_rows`.
        """
        with self._held():
            return _write(self.responses, name, "".join(f"{json.dumps(row)}\n" for row in rows).encode())

    def ask(self, questions: Sequence[Question], *, node: str) -> Path:
        """Write the questions that wait for an answer into one request file; those of the newest are not written again.

        Args:
            questions: The questions of a node, each once.
            node: The node's name, for the file's.
        """
        with self._held():
            reading = self.reading()
            content = "".join(f"{reading.again(question).line()}\n" for question in questions).encode()
            newest = _files(self.requests)[-1:]
            if newest and newest[0].read_bytes() == content:
                return newest[0]
            self.responses.mkdir(exist_ok=True)
            return _write(self.requests, node, content)

    def _required(self) -> dict[str, Question]:
        found = self.questions()
        if not found:
            msg = f"nothing was asked in {self.path}: there is no question in {self.requests}"
            raise InputError(msg)
        return found

    def _held(self) -> FileLock:
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / ".lock", timeout=60)


class BatchChatModel(FiledChatModel):
    """A chat model that collects its questions for a provider's batch interface, a person or a script.

    It raises `AnswersPendingError` as long as there is no answer. The distillation graph then writes all questions of a
    node into one file and waits.
    """

    folder: Path = Field(description="where request and response files lie")
    _held: tuple[Any, Reading] = PrivateAttr(default=(None, Reading()))
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def model_post_init(self, context: Any, /) -> None:
        """Make the folder's path good in any working directory; refuse one that cannot be a folder.

        Raises:
            ModelSetupError: A file stands in its place.
        """
        super().model_post_init(context)
        self.folder = self.folder.absolute()
        if self.folder.exists() and not self.folder.is_dir():
            msg = f"batch:{self.folder} is no folder; give one for request and response files"
            raise ModelSetupError(msg)

    @property
    def model(self) -> str:
        """The folder's name: an artifact that names its teacher shall not tell where it was made."""
        return self.folder.name

    @property
    def _llm_type(self) -> str:
        return "batch"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"folder": str(self.folder)}

    def answer_to(self, question: Question) -> Answer:
        """The answer to a question; the last of no use where all tries were.

        Raises:
            AnswersPendingError: There is none yet.
            InputError: A request file was damaged.
        """
        reading = self._reading()
        if question.id in reading.answers:
            return reading.answers[question.id]
        if reading.failed(question.id):
            return reading.misfits[question.id][-1][0]
        msg = f"no answer yet to the question {question.id} in {self.folder}"
        raise AnswersPendingError(msg, [question])

    def request(self, questions: Sequence[Question], *, node: str) -> dict[str, Any]:
        """Write the questions into a request file, and tell what is to be done.

        Args:
            questions: All questions of a node that have no answer.
            node: The node's name.

        Returns:
            What a person has to know, as the value of an interrupt.
        """
        folder = BatchFolder(self.folder)
        file = folder.ask(questions, node=node)
        ids = {question.id for question in questions}
        problems = [str(row) for row in folder.reading().bad if row.id is None or row.id in ids]
        return {
            "waits_for": "answers",
            "node": node,
            "questions": len(ids),
            "request_file": str(file),
            "responses_folder": str(folder.responses),
            "problems": problems[:_SHOWN],
            "what_to_do": (
                f"the run waits for answers to the questions of {node}, {len(ids)} of them, in {file}. "
                f"Bring the answers in with: pld batch import {self.folder} FILE. Then resume the run"
            ),
        }

    def _reading(self) -> Reading:
        folder = BatchFolder(self.folder)
        with self._lock:
            files = [*_files(folder.requests), *_files(folder.responses)]
            state = [(file, found.st_mtime_ns, found.st_size) for file in files for found in [file.stat()]]
            if self._held[0] != state:
                self._held = (state, folder.reading())
            return self._held[1]


def _read(files: Iterable[Path], questions: Mapping[str, Question], *, known: Iterable[str]) -> Reading:
    """Read response files against the questions that were asked; those that are `known` have an answer already."""
    known = set(known)
    answers: dict[str, Answer] = {}
    lines: dict[str, bytes] = {}
    bad: list[BadRow] = []
    misfits: dict[str, list[tuple[Answer, str]]] = {}
    for file in files:
        for number, raw, row in read_rows(file):
            if row.id is not None and row.id not in questions:
                bad.append(BadRow(file, number, None, f"names {row.id}, which was not asked"))
            elif isinstance(row, BadRow):
                bad.append(row)
                if row.id is not None:
                    misfits.setdefault(row.id, []).append((Answer(row.id, ""), ""))
            elif row.id in known or row.id in answers:
                bad.append(BadRow(file, number, row.id, "is answered already; the first usable answer counts"))
            elif problem := misfit(row.text, questions[row.id]):
                bad.append(BadRow(file, number, row.id, f"does not fit: {problem}"))
                misfits.setdefault(row.id, []).append((row, problem))
            else:
                answers[row.id] = row
                lines[row.id] = raw
    return Reading(answers, lines, tuple(bad), {one: tuple(tried) for one, tried in misfits.items()})


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


def _write(folder: Path, name: str, content: bytes) -> Path:
    """A new numbered file, whole or not at all."""
    folder.mkdir(exist_ok=True)
    numbers = [int(file.name[:4]) for file in _files(folder) if file.name[:4].isdecimal()]
    path = folder / f"{max(numbers, default=0) + 1:04}-{name}.jsonl"
    begun = path.with_suffix(".part")
    begun.write_bytes(content)
    begun.replace(path)
    return path
