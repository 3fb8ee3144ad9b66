"""Rows of batch files: questions going out, answers coming in.

Questions have the form of OpenAI's batch API. Answers may have that form, the form of Gemini's batch API, or a short
one that is easy to write by hand or with a script:

```
{"custom_id": "…", "answer": {"condition": "If the text …"}}
{"custom_id": "…", "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "…"}}]}}}
{"key": "…", "response": {"candidates": [{"content": {"parts": [{"text": "…"}]}}]}}
```

Answers are untrusted: they are parsed as JSON, limited in size, and treated as data only.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from langchain_core.messages import BaseMessage, convert_to_openai_messages

from langchain_pld.errors import MissingExtraError

try:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
except ImportError as error:
    raise MissingExtraError.of("jsonschema", "distill") from error

__all__ = [
    "MOST_FILE_BYTES",
    "MOST_ROW_BYTES",
    "REPAIR",
    "Answer",
    "BadRow",
    "Question",
    "json_object",
    "misfit",
    "read_rows",
]

MOST_ROW_BYTES = 1_000_000
"""Longer rows are not read."""
MOST_FILE_BYTES = 256_000_000
"""Longer files are not read."""

REPAIR = "An earlier answer did not fit: {problem}. Answer with JSON of the asked form and nothing else."
"""Appended to a question that is asked once more."""

_ID_LENGTH = 64
_REASON_LENGTH = 200


@dataclass(frozen=True)
class Question:
    """A question waiting for its answer."""

    id: str
    """A hash of messages, schema and draft: the same question has the same id in every run."""
    messages: tuple[Mapping[str, Any], ...]
    """`role` and `content` of each, in OpenAI's format."""
    schema: Mapping[str, Any]
    """JSON schema of the answer."""

    @classmethod
    def of(cls, messages: Sequence[BaseMessage], schema: Mapping[str, Any], draft: int = 0) -> Question:
        """The question for a chat model.

        Args:
            messages: Its text messages.
            schema: JSON schema of the answer.
            draft: Number of the wanted answer, if the same question is asked several times.
        """
        plain = tuple(dict(one) for one in convert_to_openai_messages(messages, text_format="string"))
        content = json.dumps([plain, schema, draft], sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:32]
        question = cls("", plain, schema)
        return replace(question, id=f"{question.form.lower()[:24]}-{digest}")

    @property
    def form(self) -> str:
        """Name of the answer's schema."""
        return str(self.schema.get("title", "answer"))

    @classmethod
    def read(cls, raw: bytes) -> Question:
        """Read a row of a request file.

        Raises:
            ValueError: It is not a question.
        """
        try:
            row = _json(raw)
            body = row["body"]
            messages = tuple({"role": str(one["role"]), "content": str(one["content"])} for one in body["messages"])
            schema = body["response_format"]["json_schema"]["schema"]
            Draft202012Validator.check_schema(schema)
            return cls(str(row["custom_id"]), messages, schema)
        except Exception as error:  # a file edited by hand may hold anything
            raise ValueError(f"is not a question in the form of a request file ({type(error).__name__})") from error

    def with_repair(self, problem: str) -> Question:
        """The question, with the problem of its last answer appended."""
        *before, last = self.messages
        repair = REPAIR.format(problem=problem)
        return replace(self, messages=(*before, {**last, "content": f"{last['content']}\n\n{repair}"}))

    def line(self) -> str:
        """The row of a request file, in OpenAI's batch form; the sender adds the model."""
        schema = {"name": self.form, "schema": self.schema}
        answer_form = {"type": "json_schema", "json_schema": schema}
        body = {"model": "MODEL", "messages": self.messages, "response_format": answer_form}
        row = {"custom_id": self.id, "method": "POST", "url": "/v1/chat/completions", "body": body}
        # ASCII, so that no character of a text can break a line.
        return json.dumps(row)


@dataclass(frozen=True)
class Answer:
    """The answer to a question."""

    id: str
    """Id of the question."""
    text: str
    """What the model wrote."""
    input_tokens: int = 0
    """As counted by the provider; 0 if it does not tell."""
    output_tokens: int = 0
    """As counted by the provider, including thinking."""

    def row(self) -> dict[str, Any]:
        """The row of a response file, in the short form."""
        usage = {"prompt_tokens": self.input_tokens, "completion_tokens": self.output_tokens}
        return {"custom_id": self.id, "answer": self.text, "usage": usage}


@dataclass(frozen=True)
class BadRow:
    """A row that is not a usable answer."""

    file: Path
    """Its file."""
    line: int
    """Number of the row, from 1; 0 for the whole file."""
    id: str | None
    """The id it names, if readable."""
    reason: str
    """What is wrong, as the end of a sentence that begins with the row."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.id or 'row without a known id'} {self.reason}"


def read_rows(file: Path) -> Iterator[tuple[int, Answer | BadRow]]:
    """Each row of a response file: its number, and the answer or what is wrong with it.

    No content raises an error. Empty lines are skipped.

    Raises:
        OSError: The file cannot be read.
    """
    size = file.stat().st_size
    if size > MOST_FILE_BYTES:
        yield 0, BadRow(file, 0, None, f"is not read: the file has {size} bytes, more than {MOST_FILE_BYTES}")
        return
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if len(raw) > MOST_ROW_BYTES:
                yield number, BadRow(file, number, None, f"is not read: it has more than {MOST_ROW_BYTES} bytes")
            elif row := raw.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip():
                yield number, _answer(file, number, row)


def json_object(text: str) -> Any:
    """The JSON object in a model's answer, whatever surrounds it.

    Raises:
        ValueError: There is no complete one.
    """
    start, end = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[start : end + 1], strict=False)
    except (ValueError, RecursionError) as error:
        raise ValueError("it holds no whole JSON object") from error


def misfit(text: str, question: Question) -> str | None:
    """Why the text does not answer the question, or `None` if it does."""
    try:
        found = json_object(text)
        (text + json.dumps(found, ensure_ascii=False)).encode()
        error = best_match(_validator(json.dumps(question.schema, sort_keys=True)).iter_errors(found))
    except UnicodeEncodeError:
        return "it holds half a character"
    except (ValueError, RecursionError) as wrong:
        return str(wrong) if isinstance(wrong, ValueError) else "it is nested too deeply"
    if error is None:
        return None
    return _short(": ".join(part for part in (".".join(map(str, error.absolute_path)), error.message) if part))


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return Draft202012Validator(json.loads(schema))


def _answer(file: Path, number: int, raw: bytes) -> Answer | BadRow:
    def bad(reason: str, name: str | None = None) -> BadRow:
        return BadRow(file, number, name, reason)

    try:
        row = _json(raw)
    except (ValueError, RecursionError):
        return bad("is no JSON object")
    name = row.get("custom_id", row.get("key"))
    if not isinstance(name, str) or not 0 < len(name) <= _ID_LENGTH or not name.isprintable():
        return bad("has no custom_id (or key) of a question")
    match row:
        case {"error": error} if error:
            return bad(f"is an error of the service: {_short(json.dumps(error))}", name)
        case {"answer": found}:
            text = found if isinstance(found, str) else json.dumps(found)
        case {"response": {"status_code": status}} if status != 200:
            return bad(f"is an error of the service: status {_short(str(status))}", name)
        case {"response": {"body": {"choices": [{"message": {"content": str(text)}}, *_]}}}:
            pass
        case {"response": {"candidates": [{"content": {"parts": [*parts]}}, *_]}}:
            texts = [part.get("text") for part in parts if isinstance(part, dict) and not part.get("thought")]
            text = "".join(piece for piece in texts if isinstance(piece, str))
        case _:
            return bad("holds no answer: neither `answer`, nor a `response` of a known form", name)
    return Answer(name, text, *_usage(row))


def _usage(row: Mapping[str, Any]) -> tuple[int, int]:
    """Input and output tokens, 0 if the row does not tell."""
    match row:
        case (
            {"usage": dict(usage)}
            | {"response": {"body": {"usage": dict(usage)}}}
            | {"response": {"usageMetadata": dict(usage)}}
        ):
            counts = {name: count for name, count in usage.items() if type(count) is int and 0 <= count < 10**9}
            return sum(counts.get(name, 0) for name in _READ), sum(counts.get(name, 0) for name in _WRITTEN)
    return 0, 0


_READ = ("prompt_tokens", "promptTokenCount")
_WRITTEN = ("completion_tokens", "candidatesTokenCount", "thoughtsTokenCount")


def _json(raw: bytes) -> dict[str, Any]:
    found = json.loads(raw.decode("utf-8"), parse_constant=_refuse)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _short(text: str) -> str:
    """An untrusted text, shortened, on one line."""
    shown = "".join(char if char.isprintable() else " " for char in text[: _REASON_LENGTH + 1])
    return shown if len(shown) <= _REASON_LENGTH else f"{shown[:_REASON_LENGTH]} …"
