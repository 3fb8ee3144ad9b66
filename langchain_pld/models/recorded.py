"""A teacher with recorded answers: the same questions get the same answers, anywhere, without a model.

A recording is a JSON lines file. The first line says where the answers come from, each other line has a question's
subject and the answer:

```
{"recording": 2, "about": "answers written …", "questions": 72}
{"form": "Explanation", "labels": ["sales"], "texts": ["…"], "answer": {…}}
```

An answer is found by the name of its schema, the labels quoted in the question and the delimited texts. The wording of
the prompt does not matter, so a recording survives better templates; another text, label, or set of texts does not
match. The error then shows how the question differs from the nearest recorded one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from langchain_pld.errors import InputError, ModelSetupError
from langchain_pld.models.batch import BatchFolder
from langchain_pld.models.batch_rows import Answer, Question, json_object
from langchain_pld.models.file_backed import FileBackedChatModel

__all__ = ["RECORDINGS", "RecordedChatModel", "Recording", "UnknownPromptError", "record"]

RECORDINGS = Path(str(files("langchain_pld"))) / "recordings"
"""Folder of the shipped recordings; a recording's name is its file name without `.jsonl`."""

_MOST_DIFF_LINES = 40
_DELIMITED = re.compile(r"<<<\n(.*?)\n>>>", re.DOTALL)
_QUOTED = re.compile(r'"([^\s"]+)"')


class UnknownPromptError(ModelSetupError):
    """A question that was not recorded; the message shows how it differs from the nearest recorded one."""


@dataclass(frozen=True)
class Subject:
    """What a question is about, whatever its wording."""

    form: str
    """Name of the answer's schema."""
    labels: tuple[str, ...]
    """The single words quoted outside the texts: the labels in question."""
    texts: tuple[str, ...]
    """The delimited texts in order, or the whole message if there are none."""

    @classmethod
    def of(cls, question: Question) -> Subject:
        """The subject of a question."""
        shown = "\n".join(str(one["content"]) for one in question.messages if one["role"] != "system")
        instructions = [str(one["content"]) for one in question.messages if one["role"] == "system"]
        labels = _QUOTED.findall("\n".join([*instructions, _DELIMITED.sub("", shown)]))
        return cls(question.form, tuple(sorted(set(labels))), tuple(_DELIMITED.findall(shown)) or (shown.strip(),))

    def __str__(self) -> str:
        return "\n".join([" ".join([f"[{self.form}]", *self.labels]), *self.texts])


@dataclass(frozen=True)
class Recording:
    """The answers of one file."""

    about: str
    """Where they come from."""
    answers: Mapping[Subject, str]
    """The answer to each question."""

    @classmethod
    def read(cls, file: Path) -> Recording:
        """Read a recording.

        Raises:
            InputError: The file is missing, or a row cannot be read.
        """
        try:
            about, *lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the recording {file} cannot be read: {error}") from error
        answers: dict[Subject, str] = {}
        number = 1
        try:
            recording = cls(str(json.loads(about)["about"]), answers)
            for number, line in enumerate(lines, 2):
                row = json.loads(line)
                subject = Subject(str(row["form"]), tuple(map(str, row["labels"])), tuple(map(str, row["texts"])))
                answer = row["answer"] if isinstance(row["answer"], str) else json.dumps(row["answer"])
                if answers.setdefault(subject, answer) != answer:
                    raise InputError(f"{file}:{number}: another answer to a question that an earlier row answers")
        except (KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
            raise InputError(f"{file}:{number}: no row of a recording ({type(error).__name__})") from error
        return recording

    def answer_to(self, question: Question) -> str:
        """The recorded answer.

        Raises:
            UnknownPromptError: The question was not recorded.
        """
        subject = Subject.of(question)
        found = self.answers.get(subject)
        if found is None:
            raise UnknownPromptError(self._difference(subject))
        return found

    def _difference(self, subject: Subject) -> str:
        words = set(str(subject).split())
        nearest = max(map(str, self.answers), key=lambda known: len(words & set(known.split())), default="")
        names = "the nearest recorded question", "this question"
        lines = list(difflib.unified_diff(nearest.splitlines(), str(subject).splitlines(), *names, lineterm="", n=1))
        if len(lines) > _MOST_DIFF_LINES:
            lines[_MOST_DIFF_LINES:] = [f"… and {len(lines) - _MOST_DIFF_LINES} more lines"]
        return "\n".join(
            ["this question was not recorded; task, data, plan and seed must be those of the recording:", *lines]
        )


class RecordedChatModel(FileBackedChatModel):
    """A chat model that returns only recorded answers; its path may be the name of a shipped recording."""

    def model_post_init(self, context: Any, /) -> None:
        """Read the file.

        Raises:
            ModelSetupError: There is no such recording, or it cannot be read.
        """
        super().model_post_init(context)
        shipped = {file.stem: file for file in RECORDINGS.glob("*.jsonl")}
        if not self.path.is_file():
            if str(self.path) not in shipped:
                msg = f"there is no recording {self.path}; give a file, or one of those shipped: "
                raise ModelSetupError(msg + ", ".join(sorted(shipped)))
            self.path = shipped[str(self.path)]
        try:
            _recording(self.path)
        except InputError as error:  # pydantic would turn a ValueError into its own
            raise ModelSetupError(str(error)) from error

    @property
    def about(self) -> str:
        """Where the answers come from."""
        return _recording(self.path).about

    @property
    def _llm_type(self) -> str:
        return "recorded"

    def answer_to(self, question: Question) -> Answer:
        """The recorded answer.

        Raises:
            UnknownPromptError: The question was not recorded.
        """
        return Answer(question.id, _recording(self.path).answer_to(question))


def record(folder: BatchFolder, file: Path, *, about: str) -> int:
    """Record all answered questions of an offline teacher.

    Args:
        folder: The folder of questions and answers.
        file: The recording to write.
        about: Where the answers come from, in one sentence.

    Returns:
        The number of answers.

    Raises:
        InputError: A question has no answer yet.
    """
    questions, responses = folder.questions(), folder.read_responses()
    waiting = responses.open(questions)
    if waiting or not questions:
        msg = f"{len(waiting)} of {len(questions)} questions in {folder.path} have no answer yet; a recording needs all"
        raise InputError(msg)
    rows = [
        # Only the JSON object of an answer's text is ever read.
        {**asdict(Subject.of(question)), "answer": json_object(responses.answers[question.id].text)}
        for question in questions.values()
        if question.id in responses.answers
    ]
    head = {"recording": 2, "about": about, "questions": len(rows)}
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (head, *rows)), encoding="utf-8")
    return len(rows)


@lru_cache(maxsize=8)
def _recording(file: Path) -> Recording:
    return Recording.read(file)
