"""Labelled examples, and reading them from files and data frames."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from langchain_pld.errors import ExampleError, InputError
from langchain_pld.row_files import RowFile, read_rows
from langchain_pld.task import Task

__all__ = ["BadRow", "Columns", "Example", "ExampleSet", "Rows", "examples_from", "read_examples"]


class Example(BaseModel, frozen=True, extra="forbid"):
    """One input with its gold label."""

    id: str
    """Unique in its set."""
    input: str | dict[str, str]
    """A text, or the task's named fields."""
    label: str | None = None
    """The gold label; `None` for an unlabelled row."""
    group: str | None = None
    """Rows of a group stay together in splits and resampling. Never shown to a model."""


class BadRow(BaseModel, frozen=True):
    """A row that could not be used."""

    source: str
    """The file, or another name for the source of the rows."""
    line: int
    """Number of the line or row, from 1."""
    reason: str
    """What is wrong with it."""
    unit: str = "line"
    """What `line` counts: lines of a file, or rows."""

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.line}: {self.reason}"


class ExampleSet(BaseModel, frozen=True):
    """Checked examples of one task, in file order."""

    source: str
    """Where the rows come from."""
    examples: tuple[Example, ...]
    """The usable rows."""
    skipped: tuple[BadRow, ...] = ()
    """The rows left out on request."""
    notes: tuple[str, ...] = ()
    """Assumptions about the file, e.g. its separator."""

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
                raise ExampleError(f"{source}, example {row.id!r}: {problem}")
            seen.add(row.id)
        return cls(source=source, examples=rows)

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:  # type: ignore[override]  # rows, not pydantic's field pairs
        return iter(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    @property
    def sha256(self) -> str:
        """Hash of the rows' content, independent of the file format."""
        rows = [row.model_dump(mode="json") for row in self.examples]
        canonical = json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def label_counts(self) -> dict[str, int]:
        """Number of rows per gold label, without unlabelled rows."""
        return dict(Counter(row.label for row in self.examples if row.label is not None))


class Columns(BaseModel):
    """Names of the columns."""

    text: str = "text"
    """The text; not for a task with fields, whose names are the columns."""
    label: str = "label"
    """The gold label; may be empty or missing."""
    id: str = "id"
    """The id of a row; by default `row-N`, after its line."""
    group: str = "group"
    """The group of a row."""


Rows = Any
"""Rows in any form that `examples_from` accepts."""


def read_examples(
    path: str | Path,
    task: Task,
    *,
    columns: Columns | None = None,
    labelled: bool = False,
    skip_bad_rows: bool = False,
) -> ExampleSet:
    """Read labelled rows from a file: JSON lines, JSON, CSV, TSV, Parquet or Excel, see `row_files`.

    Column names are matched without case and surrounding white space; other columns are ignored. A label may have
    spaces where its name in the task has `_` or `-`.

    Args:
        path: The file, in UTF-8.
        task: The task; labels and lengths are checked against it.
        columns: Names of the columns.
        labelled: Require a label column.
        skip_bad_rows: Leave out unusable rows and list them in `skipped`, instead of raising.

    Raises:
        ExampleError: The file is missing, not UTF-8, of an unknown kind, lacks a column or has no rows; or rows are
            wrong and `skip_bad_rows` is off. The message gives file, line and reason of the first ten.
        MissingExtraError: The package that reads this kind of file is not installed.
    """
    path = Path(path)
    return _checked(
        read_rows(path), task, columns or Columns(), source=path.name, labelled=labelled, skip_bad_rows=skip_bad_rows
    )


def examples_from(
    rows: Rows, task: Task, *, columns: Columns | None = None, labelled: bool = False, source: str = "rows"
) -> ExampleSet:
    """Check rows in any common form.

    Args:
        rows: A path, a pandas or polars data frame, an Arrow table, a `datasets.Dataset`, or a list of mappings,
            `(text, label)` pairs or `Example`s. An `ExampleSet` is returned as it is.
        task: The task of the rows.
        columns: Names of the columns.
        labelled: Require a label column.
        source: The name of the rows in messages.

    Raises:
        ExampleError: As in `read_examples`.
    """
    if isinstance(rows, ExampleSet):
        return rows
    if isinstance(rows, str | Path):
        return read_examples(rows, task, columns=columns, labelled=labelled)
    if isinstance(rows, Mapping):
        raise ExampleError(f"{source} are several, {', '.join(map(repr, rows))}; give one of them, or a list of rows")
    if hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "to_pylist"):  # Arrow
        rows = rows.to_pylist()
    elif hasattr(rows, "features"):  # Hugging Face
        rows = _named_labels(rows)
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        rows = rows.to_dict("records")
    if not isinstance(rows, Iterable):
        raise ExampleError(f"{source}: rows must be a path, a data frame or a list, not {type(rows).__name__}")
    names = columns or Columns()
    found = RowFile(enumerate((_row(row, names) for row in rows), start=1), unit="row")
    return _checked(found, task, names, source=source, labelled=labelled)


def _named_labels(split: Any) -> list[dict[str, Any]]:
    """The rows of a Hugging Face split, with label names in place of its numbers (-1: no label)."""
    names = {column: kind.int2str for column, kind in (split.features or {}).items() if hasattr(kind, "int2str")}

    def cell(column: str, value: Any) -> Any:
        if not isinstance(value, int) or column not in names:
            return value
        return names[column](value) if value >= 0 else None

    return [{column: cell(column, value) for column, value in row.items()} for row in split]


def _row(row: Any, columns: Columns) -> dict[str, Any] | str:
    if isinstance(row, Example):
        parts = row.input if isinstance(row.input, dict) else {columns.text: row.input}
        return {**parts, columns.id: row.id, columns.label: row.label, columns.group: row.group}
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, tuple | list) and len(row) == 2:
        return {columns.text: row[0], columns.label: row[1]}
    return f"not a mapping, a pair of text and label, or an Example, but {type(row).__name__}"


_MOST_REPORTED = 10


def _checked(
    file: RowFile, task: Task, columns: Columns, *, source: str, labelled: bool = False, skip_bad_rows: bool = False
) -> ExampleSet:
    """Turn numbered rows into examples; a string in place of a row says what is wrong with it."""
    if task.fields and columns.text != "text":
        msg = f"task {task.name!r} has the fields {', '.join(task.fields)}, each a column; leave out the text column"
        raise ExampleError(msg)
    examples: list[Example] = []
    bad: list[BadRow] = []
    seen: set[str] = set()
    header: dict[str, None] = {}
    for line, row in file.rows:
        header |= {} if isinstance(row, str) else dict.fromkeys(map(str, row))
        example = row if isinstance(row, str) else _example(row, line, task, columns, seen)
        if isinstance(example, Example):
            seen.add(example.id)
            examples.append(example)
        else:
            bad.append(BadRow(source=source, line=line, reason=example, unit=file.unit))
    if bad and not skip_bad_rows:
        raise ExampleError(_explain(bad))
    _check_columns(list(header), columns, source, labelled=labelled)
    if not examples:
        raise ExampleError(f"{source} holds no usable row" + (f"; the first: {bad[0]}" if bad else ""))
    _warn_of_contradictions(examples, source)
    return ExampleSet(source=source, examples=tuple(examples), skipped=tuple(bad), notes=file.notes)


def _explain(bad: Sequence[BadRow]) -> str:
    """The bad rows in one message; one line if all have the same reason, e.g. a missing column."""
    first, more = bad[0], len(bad) - 1
    if more and len({row.reason for row in bad}) == 1:
        lines = [f"{first.source}, {first.unit} {first.line} and {more} more: {first.reason}"]
    else:
        lines = list(map(str, bad[:_MOST_REPORTED]))
        lines += [f"… and {len(bad) - _MOST_REPORTED} more"] if len(bad) > _MOST_REPORTED else []
    way = f"Fix {'them' if more else 'it'}, or leave out bad rows with --skip-bad-rows (skip_bad_rows=True)."
    return "\n".join([*lines, way])


def _check_columns(header: Sequence[str], columns: Columns, source: str, *, labelled: bool) -> None:
    """Check that every named or required column exists: without it, rows would look unlabelled."""
    there = {name.strip().casefold() for name in header}
    for role, name in columns.model_dump(exclude={"text"}).items():
        needed = name != role or (role == "label" and labelled)
        if header and needed and name.strip().casefold() not in there:
            hint = f"name it with --{role}-column, or Columns({role}=…)"
            raise ExampleError(f"{source}: no column {name!r}; found: {', '.join(header)}; {hint}")


def _warn_of_contradictions(examples: Iterable[Example], source: str) -> None:
    """Warn of texts with two labels: one is wrong, or the task is ambiguous."""
    first: dict[str, Example] = {}
    pairs = []
    for row in examples:
        if row.label is None:
            continue
        parts = [row.input] if isinstance(row.input, str) else row.input.values()
        text = "\0".join(" ".join(part.split()).casefold() for part in parts)
        other = first.setdefault(text, row)
        if other.label != row.label:
            pairs.append(f"{other.id!r} ({other.label}) and {row.id!r} ({row.label})")
    if pairs:
        more = f", and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        msg = f"{source}: the same text has two labels: rows {'; '.join(pairs[:3])}{more}; correct one of each"
        warnings.warn(msg, UserWarning, stacklevel=4)


def _example(row: Mapping[str, Any], line: int, task: Task, columns: Columns, seen: set[str]) -> Example | str:
    """The example of a row, or what is wrong with it."""
    # The exact name wins; of two that differ in case, the first.
    found = {str(name).strip().casefold(): value for name, value in reversed(list(row.items()))} | dict(row)
    inputs = task.fields or (columns.text,)
    cells: dict[str, Any] = {}
    for name in (*inputs, columns.label, columns.id, columns.group):
        key = name if name in found else name.strip().casefold()
        if name in inputs and key not in found:
            hint = "" if task.fields else "; name it with --text-column, or Columns(text=…)"
            return f"no column {name!r}; found: {', '.join(map(str, row)) or 'none'}{hint}"
        cell = found.get(key)
        cells[name] = _as_name(cell)
        if name in inputs:
            if cells[name] is None:
                return f"column {name!r} is null, not a text"
            cells[name] = cell  # a number would be a mistake here
        if not isinstance(cells[name], str | None):
            return f"column {name!r} holds {type(cell).__name__}, not a text"
    example = Example(
        id=cells[columns.id] or f"row-{line}",
        input={name: cells[name] for name in inputs} if task.fields else cells[columns.text],
        label=_as_label(cells[columns.label], task.label_names),
        group=cells[columns.group] or None,
    )
    return _problem(example, task, seen) or example


def _as_name(value: Any) -> Any:
    """A number as text; `None` for NaN, which marks an empty cell of a data frame and turns its column into floats."""
    if isinstance(value, bool):
        return str(value).lower()
    if type(value).__name__ == "NAType":  # pandas, which is not imported
        return None
    if not isinstance(value, Real):
        return value
    number = float(value)
    if math.isnan(number):
        return None
    return str(int(number)) if number.is_integer() else str(value)


def _as_label(label: str | None, names: Sequence[str]) -> str | None:
    """The label name meant by a label with white space; any other label as it is."""
    words = (label or "").split()
    return next((name for joint in "_-" if (name := joint.join(words)) in names), label) if words else None


def _problem(example: Example, task: Task, seen: set[str]) -> str | None:
    if example.id in seen:
        return f"the id {example.id!r} is used twice"
    parts = (example.input,) if isinstance(example.input, str) else example.input.values()
    # JSON can spell half a surrogate pair, which cannot be written to a file or sent.
    if any("\ud800" <= char <= "\udfff" for part in (example.id, example.group or "", *parts) for char in part):
        return "holds half a surrogate pair, which is not valid Unicode"
    if example.label is not None and example.label not in task.label_names:
        return f"unknown label {example.label!r}; the task has {', '.join(task.label_names)}"
    try:
        task.render(example.input)
    except InputError as error:
        return str(error)
    return None
