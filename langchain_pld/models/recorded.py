"""A teacher whose answers were recorded: the same prompts get the same answers, anywhere, without a model.

A recording is a file of JSON lines. The first says where the answers come from, each other one holds a prompt and its
answer:

```
{"recording": 1, "about": "answers written …", "questions": 72}
{"messages": [{"role": "system", "content": "…"}, …], "form": "Explanation", "answer": {…}}
```

An answer is found by a hash of its prompt: the messages and the name of the answer's form. A prompt that was not
recorded is an error that shows what differs from the nearest one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from langchain_pld.errors import InputError, ModelSetupError
from langchain_pld.models.batch import BatchFolder
from langchain_pld.models.batch_rows import Answer, Question, json_object
from langchain_pld.models.filed import FiledChatModel

__all__ = ["RECORDINGS", "RecordedChatModel", "Recording", "UnknownPromptError", "record"]

RECORDINGS = Path(str(files("langchain_pld"))) / "recordings"
"""Where the shipped recordings lie; the name of one is its file's without `.jsonl`."""

_MOST_DIFF_LINES = 40


class UnknownPromptError(ModelSetupError):
    """A prompt that was not recorded; the message shows what differs from the nearest one that was."""


@dataclass(frozen=True)
class Recording:
    """The answers of one file."""

    about: str
    """Where they come from."""
    prompts: Mapping[str, str]
    """Hash of a prompt to the prompt as one text."""
    answers: Mapping[str, str]
    """Hash of a prompt to its answer."""

    @classmethod
    def read(cls, file: Path) -> Recording:
        """Read a file.

        Raises:
            InputError: There is none, or a row of it cannot be read.
        """
        try:
            lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"the recording {file} cannot be read: {error}"
            raise InputError(msg) from error
        prompts: dict[str, str] = {}
        answers: dict[str, str] = {}
        about = ""
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if number == 1:
                    about = str(row["about"])
                    continue
                key = _key(row["messages"], row["form"])
                prompts[key] = _prompt(row["messages"], row["form"])
                answers[key] = row["answer"] if isinstance(row["answer"], str) else json.dumps(row["answer"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                msg = f"{file}:{number}: no row of a recording ({type(error).__name__})"
                raise InputError(msg) from error
        return cls(about, prompts, answers)

    def answer_to(self, question: Question) -> str:
        """The recorded answer.

        Raises:
            UnknownPromptError: The prompt was not recorded.
        """
        form = str(question.schema.get("title", "answer"))
        found = self.answers.get(_key(question.messages, form))
        if found is None:
            raise UnknownPromptError(self._unknown(_prompt(question.messages, form)))
        return found

    def _unknown(self, prompt: str) -> str:
        words = set(prompt.split())
        # Words in common find the nearest one in no time; a matcher over all prompts would take minutes.
        nearest = max(self.prompts.values(), key=lambda known: len(words & set(known.split())), default="")
        lines = difflib.unified_diff(
            nearest.splitlines(), prompt.splitlines(), "the nearest recorded prompt", "this prompt", lineterm="", n=1
        )
        shown = list(lines)
        more = [f"… and {len(shown) - _MOST_DIFF_LINES} more lines"] if len(shown) > _MOST_DIFF_LINES else []
        return "\n".join(
            [
                "this prompt was not recorded; task, data, plan and seed have to be those of the recording:",
                *shown[:_MOST_DIFF_LINES],
                *more,
            ]
        )


class RecordedChatModel(FiledChatModel):
    """A chat model that gives recorded answers and no others."""

    file: Path = Field(description="the recording, or the name of a shipped one")

    def model_post_init(self, context: Any, /) -> None:
        """Read the file.

        Raises:
            ModelSetupError: There is no such recording, or it cannot be read.
        """
        super().model_post_init(context)
        if not self._path.is_file():
            shipped = ", ".join(sorted(found.stem for found in RECORDINGS.glob("*.jsonl")))
            msg = f"there is no recording {self.file}; give a file, or one of those shipped: {shipped}"
            raise ModelSetupError(msg)
        try:
            _recording(self._path)
        except InputError as error:  # as a ValueError it would become one of pydantic's own
            raise ModelSetupError(str(error)) from error

    @property
    def model(self) -> str:
        """The recording's name."""
        return self.file.stem

    @property
    def about(self) -> str:
        """Where the answers come from."""
        return _recording(self._path).about

    @property
    def _path(self) -> Path:
        shipped = RECORDINGS / f"{self.file}.jsonl"
        return self.file if self.file.is_file() or not shipped.is_file() else shipped

    @property
    def _llm_type(self) -> str:
        return "recorded"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"file": str(self.file)}

    def answer_to(self, question: Question) -> Answer:
        """The recorded answer.

        Raises:
            UnknownPromptError: The prompt was not recorded.
        """
        return Answer(question.id, _recording(self._path).answer_to(question))


def record(folder: BatchFolder, file: Path, *, about: str) -> int:
    """Make a recording of all answered questions of an offline teacher.

    Args:
        folder: Where questions and answers lie.
        file: The recording to write.
        about: Where the answers come from, in one sentence.

    Returns:
        How many answers it holds.

    Raises:
        InputError: A question has no answer yet.
    """
    questions, reading = folder.questions(), folder.reading()
    waiting = reading.open(questions)
    if waiting or not questions:
        msg = f"{len(waiting)} of {len(questions)} questions in {folder.path} have no answer yet; a recording needs all"
        raise InputError(msg)
    rows = list(_rows(questions.values(), reading.answers))
    head = {"recording": 1, "about": about, "questions": len(rows)}
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (head, *rows)), encoding="utf-8")
    return len(rows)


def _rows(questions: Iterable[Question], answers: Mapping[str, Answer]) -> Iterator[dict[str, Any]]:
    for question in questions:
        if question.id in answers:
            form = str(question.schema.get("title", "answer"))
            # It was read as the JSON object in the text, so nothing else of the text counts.
            answer = json_object(answers[question.id].text)
            yield {"messages": list(question.messages), "form": form, "answer": answer}


@lru_cache(maxsize=8)
def _recording(file: Path) -> Recording:
    return Recording.read(file)


def _key(messages: Sequence[Mapping[str, Any]], form: str) -> str:
    return hashlib.sha256(_prompt(messages, form).encode()).hexdigest()


def _prompt(messages: Sequence[Mapping[str, Any]], form: str) -> str:
    """A prompt as one text; the answer's form is told by name, since its schema is spelled differently elsewhere."""
    return "\n\n".join([*(f"[{one['role']}]\n{one['content']}" for one in messages), f"[answer]\n{form}"])
