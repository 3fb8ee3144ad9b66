"""Labelled examples and the files that they are read from."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

from pydantic import BaseModel, ConfigDict

from langchain_pld.errors import ExampleError, InputError
from langchain_pld.task import Task

__all__ = ["BadRow", "Example", "ExampleSet", "examples_from", "read_examples"]


class Example(BaseModel):
    """One input with its gold label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Unique in its set."""
    input: str | dict[str, str]
    """A text, or the task's named fields."""
    label: str | None = None
    """The gold label; `None` for an unlabelled row."""
    group: str | None = None
    """Rows of one group belong together: one split, one resampling unit. Never shown to a model."""


class BadRow(BaseModel):
    """A row that could not be used."""

    model_config = ConfigDict(frozen=True)

    source: str
    """The file, or what the rows came from."""
    line: int
    """Line in the file, counted from 1."""
    reason: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}: {self.reason}"


class ExampleSet(BaseModel):
    """Checked examples of one task, in file order."""

    model_config = ConfigDict(frozen=True)

    source: str
    """Where the rows come from."""
    examples: tuple[Example, ...]
    """The usable rows."""
    skipped: tuple[BadRow, ...] = ()
    """The rows left out, when leaving out was asked for."""

    @classmethod
    def of(cls, examples: Iterable[Example], task: Task, *, source: str = "examples") -> ExampleSet:
        """Check examples made in code against their task.

        Raises:
            ExampleError: A row is wrong; the message names its id.
        """
        rows = tuple(examples)
        seen: set[str] = set()
        for row in rows:
            problem = _problem(row, task, seen)
            if problem:
                msg = f"{source}, example {row.id!r}: {problem}"
                raise ExampleError(msg)
            seen.add(row.id)
        return cls(source=source, examples=rows)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:  # type: ignore[override]  # rows, not pydantic's field pairs
        return iter(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleSet: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleSet:
        if isinstance(index, slice):
            return ExampleSet(source=self.source, examples=self.examples[index])
        return self.examples[index]

    @property
    def sha256(self) -> str:
        """Hash of the rows' content, independent of the file format."""
        rows = [row.model_dump(mode="json") for row in self.examples]
        canonical = json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def label_counts(self) -> dict[str, int]:
        """Rows per gold label, unlabelled rows left out."""
        return dict(Counter(row.label for row in self.examples if row.label is not None))


def read_examples(path: str | Path, task: Task, *, skip_bad_rows: bool = False) -> ExampleSet:
    """Read labelled rows from a JSON-lines (`.jsonl`) or CSV (`.csv`) file.

    Columns: `text`, or one per field of the task; `label` (may be empty); `id` and `group` are optional, a row
    without an id is called `row-N` after its line. Other columns are ignored.

    Args:
        path: The file, UTF-8.
        task: The task that the rows belong to; labels and lengths are checked against it.
        skip_bad_rows: Leave unusable rows out and list them in `skipped`, instead of raising.

    Raises:
        ExampleError: The file is missing, not UTF-8, of an unknown kind, lacks a column or holds no row; or a row
            is wrong and `skip_bad_rows` is off. The message gives file, line and reason.
    """
    path = Path(path)
    source = path.name
    text = _read_text(path)
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        raw = _json_rows(text)
    elif path.suffix.lower() == ".csv":
        raw = _csv_rows(text, source)
    else:
        msg = f"{path}: unknown kind of file {path.suffix!r}; use .jsonl or .csv"
        raise ExampleError(msg)

    return _checked(raw, task, source=source, place=str(path), skip_bad_rows=skip_bad_rows)


def examples_from(rows: Iterable[Any], task: Task, *, source: str = "rows") -> ExampleSet:
    """Read labelled rows that are at hand as mappings, with the columns of `read_examples`.

    Args:
        rows: The rows; one without an id is called `row-N` after its place.
        task: The task that they belong to.
        source: What they are called in messages.

    Raises:
        ExampleError: A row is wrong, or there is none; the message gives its place and the reason.
    """
    numbered = ((n, row if isinstance(row, dict) else "not a JSON object") for n, row in enumerate(rows, start=1))
    return _checked(numbered, task, source=source, place=source)


def _checked(
    raw: Iterable[tuple[int, dict[str, Any] | str]], task: Task, *, source: str, place: str, skip_bad_rows: bool = False
) -> ExampleSet:
    """The examples of numbered rows; a string in place of a row says what is wrong with it."""
    examples: list[Example] = []
    skipped: list[BadRow] = []
    seen: set[str] = set()
    for line, row in raw:
        made = row if isinstance(row, str) else _example(row, line, task, seen)
        if isinstance(made, Example):
            seen.add(made.id)
            examples.append(made)
            continue
        bad = BadRow(source=source, line=line, reason=made)
        if not skip_bad_rows:
            msg = f"{bad} (fix the row, or skip bad rows)"
            raise ExampleError(msg)
        skipped.append(bad)
    if not examples:
        msg = f"{place} holds no usable row"
        raise ExampleError(msg)
    return ExampleSet(source=source, examples=tuple(examples), skipped=tuple(skipped))


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        msg = f"no example file at {path}"
        raise ExampleError(msg) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        msg = f"{path.name}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8"
        raise ExampleError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ExampleError(msg) from error


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row) pairs; a string in place of the row says what is wrong with it."""
    # Not splitlines(): U+2028 and its kin may stand inside a JSON string.
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON: {error}"
            continue
        yield line, value if isinstance(value, dict) else "not a JSON object"


def _csv_rows(text: str, source: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    # strict: a broken quote is an error of that file, not a row that silently swallows the next ones.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row:
                yield reader.line_num, "has more cells than the header"
            else:
                yield reader.line_num, {key: value for key, value in row.items() if value is not None}
    except csv.Error as error:
        msg = f"{source}, line {reader.line_num}: not CSV: {error}"
        raise ExampleError(msg) from error


def _example(row: dict[str, Any], line: int, task: Task, seen: set[str]) -> Example | str:
    """The example of a row, or what is wrong with it."""
    columns = task.fields or ("text",)
    for column in columns:
        if column not in row:
            return f"no column {column!r}; found: {', '.join(map(str, row)) or 'none'}"
    values = {column: row[column] for column in columns}
    for name, value in values.items():
        if value is None:
            return f"column {name!r} is null, not a text"
    for name, value in {**values, "label": row.get("label"), "group": row.get("group")}.items():
        if value is not None and not isinstance(value, str):
            return f"column {name!r} holds {type(value).__name__}, not a text"
    identity = row.get("id")
    if identity is None or identity == "":
        identity = f"row-{line}"
    if not isinstance(identity, str | int):
        return f"column 'id' holds {type(identity).__name__}, not a text"
    example = Example(
        id=str(identity),
        input=values if task.fields else values["text"],
        label=row.get("label") or None,
        group=row.get("group") or None,
    )
    return _problem(example, task, seen) or example


def _problem(example: Example, task: Task, seen: set[str]) -> str | None:
    if example.id in seen:
        return f"the id {example.id!r} is used twice"
    parts = (example.input,) if isinstance(example.input, str) else example.input.values()
    # JSON can spell half a surrogate pair, which no file and no request can hold.
    if any("\ud800" <= char <= "\udfff" for part in (example.id, example.group or "", *parts) for char in part):
        return "holds half a surrogate pair, which is not valid Unicode"
    if example.label is not None and example.label not in task.label_names:
        return f"unknown label {example.label!r}; the task has {', '.join(task.label_names)}"
    try:
        task.render(example.input)
    except InputError as error:
        return str(error)
    return None
