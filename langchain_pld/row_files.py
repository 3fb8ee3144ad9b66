"""Reading table files into rows, mappings from column to value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from langchain_pld.errors import ExampleError, MissingExtraError

__all__ = ["KINDS", "NumberedRow", "RowFile", "read_rows"]

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
"""File name suffixes that can be read."""

NumberedRow = tuple[int, dict[str, Any] | str]
"""The row's number, from 1, and the row; a string in place of a row says what is wrong with it."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class RowFile:
    """The content of a file."""

    rows: Iterable[NumberedRow]
    """The rows, in file order."""
    unit: str = "line"
    """What the numbers count: lines of the file, or rows."""
    notes: tuple[str, ...] = ()
    """Assumptions about the file."""


def read_rows(path: Path) -> RowFile:
    """Read a table file; its suffix names the format.

    Raises:
        ExampleError: The file is missing, of an unknown or another format, or not UTF-8.
        MissingExtraError: Its format needs a package that is not installed.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        other = "; save an old Excel file as .xlsx" if kind == ".xls" else ""
        raise ExampleError(f"{path}: unknown kind of file {path.suffix!r}; use {', '.join(KINDS)}{other}")
    try:
        if kind == ".parquet":
            return _parquet(path)
        if kind == ".xlsx":
            return _excel(path)
        text = _text(path)
    except FileNotFoundError:
        raise ExampleError(f"no example file at {path}") from None
    except OSError as error:
        raise ExampleError(f"{path} cannot be read: {error.strerror or error}") from error
    if kind in (".csv", ".tsv"):
        return _separated(text, path.name, "," if kind == ".csv" else "\t")
    if kind == ".json" and not text.lstrip().startswith("{"):
        return _json_array(text, path.name)
    return RowFile(_json_lines(text))


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"  # Excel's "Unicode text", recognised by its byte order mark
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        msg = (
            f"{path.name}, line {line}: byte {error.start} is not UTF-8 (Windows-1252?); save the file as UTF-8, in "
            f"Excel as «CSV UTF-8», or: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        )
        raise ExampleError(msg) from error


def _json_lines(text: str) -> Iterator[NumberedRow]:
    # Not splitlines(): U+2028 and the like may appear inside a JSON string.
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON: {error}"
            continue
        yield line, value if isinstance(value, dict) else "not a JSON object"


def _json_array(text: str, name: str) -> RowFile:
    try:
        values = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise ExampleError(f"{name} is not JSON: {error}") from error
    if not isinstance(values, list):
        raise ExampleError(f"{name} must hold an array of objects, or an object on each line")
    rows = [value if isinstance(value, dict) else "not a JSON object" for value in values]
    return RowFile(list(enumerate(rows, start=1)), unit="row")


def _separated(text: str, name: str, expected: str) -> RowFile:
    separator = _separator(text, expected)
    notes = () if separator == expected else (f"{name}: read as columns separated by {_SEPARATORS[separator]}",)
    return RowFile(_cells(text, name, separator), notes=notes)


def _separator(text: str, expected: str) -> str:
    """The separator that cuts the header into the most columns; in a tie, the expected one."""

    def columns(separator: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator), []))
        except csv.Error:
            return 0

    return max(_SEPARATORS, key=lambda separator: (columns(separator), separator == expected))


def _cells(text: str, name: str, separator: str) -> Iterator[NumberedRow]:
    # strict: a broken quote is an error, not a row that silently swallows the next ones.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), [])
        _different(header, name)
        for row in reader:
            if len(row) > len(header):
                yield reader.line_num, "has more cells than the header"
            elif len(row) == 1 or any(cell.strip() for cell in row):
                yield reader.line_num, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise ExampleError(f"{name}, line {reader.line_num}: not CSV: {error}") from error


def _parquet(path: Path) -> RowFile:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError.of("pyarrow", "parquet") from error
    try:
        # One file, not a folder of parts, because a run keeps the hash of the file.
        table = parquet.ParquetFile(path).read()
    except ArrowException as error:
        raise ExampleError(f"{path.name}: not a Parquet file that can be read: {error}") from error
    _different(table.column_names, path.name)
    return RowFile(list(enumerate(table.to_pylist(), start=1)), unit="row")


def _excel(path: Path) -> RowFile:
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtraError.of("openpyxl", "excel") from error
    import warnings

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validations, which are not read
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            names, sheet = book.sheetnames, book.worksheets[0]
            lines = [(n, list(row)) for n, row in enumerate(sheet.iter_rows(values_only=True), start=1)]
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken workbook may raise anything
        raise ExampleError(f"{path.name}: not an Excel workbook that can be read ({type(error).__name__})") from error
    filled = [(n, row) for n, row in lines if any(cell is not None and str(cell).strip() for cell in row)]
    notes = (f"{path.name}: read the sheet {names[0]!r}, not {', '.join(names[1:])}",) if len(names) > 1 else ()
    if not filled:
        return RowFile([], unit="row", notes=notes)
    header = ["" if name is None else str(name) for name in filled[0][1]]
    _different(header, path.name)
    rows = [
        (n, {name: _written(cell) for name, cell in zip(header, row, strict=False) if name}) for n, row in filled[1:]
    ]
    return RowFile(rows, unit="row", notes=notes)


def _written(cell: Any) -> str | None:
    """A cell as text, because spreadsheets turn texts that look like numbers into numbers."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return None if cell is None else str(cell)


def _different(header: Iterable[str], name: str) -> None:
    twice = next((one for one, other in pairwise(sorted(filter(None, header))) if one == other), None)
    if twice is not None:
        raise ExampleError(f"{name} has two columns named {twice!r}; rename one")
