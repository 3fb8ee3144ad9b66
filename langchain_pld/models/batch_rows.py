"""Rows of batch files: a question on its way out, an answer on its way in.

A question goes out in the form of OpenAI's batch interface. An answer may come in that form, in that of Gemini's batch
interface, or in a short one that is easily written by hand or by a script:

```
{"custom_id": "…", "answer": {"condition": "If the text …"}}
{"custom_id": "…", "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "…"}}]}}}
{"key": "…", "response": {"candidates": [{"content": {"parts": [{"text": "…"}]}}]}}
```

Answers come from outside: they are parsed as JSON, bounded in size, and never more than data.
"""

from __future__ import annotations

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
"""A longer row is not read."""
MOST_FILE_BYTES = 256_000_000
"""A longer file is not read."""

REPAIR = "An earlier answer did not fit: {problem}. Answer with JSON of the asked form and nothing else."
"""What stands behind a question that is asked once more."""

_MODEL = "MODEL"
_ID_LENGTH = 64
_REASON_LENGTH = 200


@dataclass(frozen=True)
class Question:
    """A question that waits for its answer."""

    id: str
    """Follows from messages, schema and draft: the same question has the same id in every run."""
    messages: tuple[Mapping[str, Any], ...]
    """`role` and `content` of each, as OpenAI has them."""
    schema: Mapping[str, Any]
    """JSON schema of the answer."""

    @classmethod
    def of(cls, messages: Sequence[BaseMessage], schema: Mapping[str, Any], draft: int = 0) -> Question:
        """The question that a chat model is asked.

        Args:
            messages: Its messages, of text.
            schema: JSON schema of the answer.
            draft: Which answer to the same question is wanted.
        """
        plain = tuple(dict(one) for one in convert_to_openai_messages(messages, text_format="string"))
        content = json.dumps([plain, schema, draft], sort_keys=True, ensure_ascii=True)
        name = str(schema.get("title", "answer")).lower()
        return cls(f"{name[:24]}-{hashlib.sha256(content.encode()).hexdigest()[:32]}", plain, schema)

    @classmethod
    def read(cls, raw: bytes) -> Question:
        """The question of a row in a request file.

        Raises:
            ValueError: It is none.
        """
        try:
            row = _json(raw)
            body = row["body"]
            messages = tuple({"role": str(one["role"]), "content": str(one["content"])} for one in body["messages"])
            schema = body["response_format"]["json_schema"]["schema"]
            Draft202012Validator.check_schema(schema)
            return cls(str(row["custom_id"]), messages, schema)
        except Exception as error:  # a file that was changed by hand may hold anything
            msg = f"is no question in the form of a request file ({type(error).__name__})"
            raise ValueError(msg) from error

    def after(self, problem: str) -> Question:
        """The same question, asked once more since an answer did not fit."""
        *before, last = self.messages
        repair = REPAIR.format(problem=problem)
        return replace(self, messages=(*before, {**last, "content": f"{last['content']}\n\n{repair}"}))

    def line(self) -> str:
        """The row in a request file, in OpenAI's batch form; who sends it names the model."""
        schema = {"name": str(self.schema.get("title", "answer")), "schema": self.schema}
        body = {
            "model": _MODEL,
            "messages": self.messages,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
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
    """As the provider counts them; 0 where it does not tell."""
    output_tokens: int = 0
    """As the provider counts them, its thinking included."""


@dataclass(frozen=True)
class BadRow:
    """A row that is no usable answer."""

    file: Path
    """Where it stands."""
    line: int
    """Number of the row, from 1; 0 for the file as a whole."""
    id: str | None
    """The id that it names, as far as it can be read."""
    reason: str
    """What is wrong, as the end of a sentence that begins with the row."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.id or 'row without a known id'} {self.reason}"


def read_rows(file: Path) -> Iterator[tuple[int, bytes, Answer | BadRow]]:
    """Each row of a response file: its number, its bytes, and the answer or what is wrong with it.

    No content makes this raise. Empty lines are passed over.

    Raises:
        OSError: The file cannot be read.
    """
    size = file.stat().st_size
    if size > MOST_FILE_BYTES:
        yield 0, b"", BadRow(file, 0, None, f"is not read: the file has {size} bytes, more than {MOST_FILE_BYTES}")
        return
    for number, raw in _lines(file):
        if raw is None:
            reason = f"is not read: it has more than {MOST_ROW_BYTES} bytes"
            yield number, b"", BadRow(file, number, None, reason)
        elif raw.strip():
            yield number, raw, _answer(file, number, raw)


def json_object(text: str) -> Any:
    """The JSON object of a model's answer, whatever stands around it.

    Raises:
        ValueError: There is no whole one.
    """
    start, end = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[start : end + 1], strict=False)
    except (ValueError, RecursionError) as error:
        msg = "it holds no whole JSON object"
        raise ValueError(msg) from error


def misfit(text: str, question: Question) -> str | None:
    """Why the text is no answer to the question, or `None` when it is one."""
    try:
        found = json_object(text)
        json.dumps(found, ensure_ascii=False).encode()
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


def _lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """The lines with their numbers; `None` for one that is too long."""
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(MOST_ROW_BYTES + 1):
            number += 1
            if len(line) <= MOST_ROW_BYTES:
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                continue
            while not line.endswith(b"\n") and (line := opened.readline(MOST_ROW_BYTES)):
                pass
            yield number, None


def _answer(file: Path, number: int, raw: bytes) -> Answer | BadRow:
    try:
        row = _json(raw)
    except (ValueError, RecursionError):
        return BadRow(file, number, None, "is no JSON object")
    named = row.get("custom_id", row.get("key"))
    if not isinstance(named, str) or not 0 < len(named) <= _ID_LENGTH or not named.isprintable():
        return BadRow(file, number, None, "has no custom_id (or key) of a question")
    if row.get("error"):
        return BadRow(file, number, named, f"is an error of the service: {_short(json.dumps(row['error']))}")
    try:
        text = _text(row)
        text.encode()
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeEncodeError):
        return BadRow(file, number, named, "holds no answer: neither `answer`, nor a `response` of a known form")
    except ValueError as error:
        return BadRow(file, number, named, str(error))
    read, written = _usage(row)
    return Answer(named, text, read, written)


def _text(row: Mapping[str, Any]) -> str:
    """The answer's text.

    Raises:
        ValueError: The service says that there is none.
        KeyError, IndexError, TypeError, AttributeError: It has no known form.
    """
    if "answer" in row:
        return row["answer"] if isinstance(row["answer"], str) else json.dumps(row["answer"])
    response = row["response"]
    if "body" in response:
        status = response.get("status_code", 200)
        if status != 200:
            msg = f"is an error of the service: status {_short(str(status))}"
            raise ValueError(msg)
        content = response["body"]["choices"][0]["message"]["content"]
    else:
        parts = response["candidates"][0]["content"]["parts"]
        content = "".join(part["text"] for part in parts if not part.get("thought"))
    if not isinstance(content, str):
        raise TypeError
    return content


def _usage(row: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens read and written, 0 where the row does not tell."""
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    body = response.get("body")
    for usage, read, written in (
        (row.get("usage"), "prompt_tokens", ("completion_tokens",)),
        (body.get("usage") if isinstance(body, dict) else None, "prompt_tokens", ("completion_tokens",)),
        (response.get("usageMetadata"), "promptTokenCount", ("candidatesTokenCount", "thoughtsTokenCount")),
    ):
        if isinstance(usage, dict):
            return _count(usage.get(read)), sum(_count(usage.get(name)) for name in written)
    return 0, 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else 0


def _json(raw: bytes) -> dict[str, Any]:
    found = json.loads(raw.decode("utf-8"), parse_constant=_refuse)
    if not isinstance(found, dict):
        msg = "no JSON object"
        raise ValueError(msg)
    return found


def _refuse(name: str) -> NoReturn:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def _short(text: str) -> str:
    """A text of unknown origin, cut short, on one line."""
    shown = "".join(char if char.isprintable() else " " for char in text[: _REASON_LENGTH + 1])
    return shown if len(shown) <= _REASON_LENGTH else f"{shown[:_REASON_LENGTH]} …"
