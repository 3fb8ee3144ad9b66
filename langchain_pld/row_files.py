"""Rows of a file as mappings, whatever its kind: JSON lines, JSON, CSV and its kin, Parquet, Excel."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langchain_pld.errors import ExampleError, MissingExtraError

__all__ = ["KINDS", "NumberedRow", "read_rows"]

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
"""Endings of the files that can be read."""

NumberedRow = tuple[int, dict[str, Any] | str]
"""Line of the file (JSON and Parquet: number of the row), from 1, and the row; a string says what is wrong with it."""

_SEPARATORS = ",;\t|"
"""Of a CSV file; the first where the header has none."""


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """Read the rows of a file.

    A `.csv` file may separate its cells with a comma, semicolon, tab or bar: the one that the header has most of. A
    Parquet file needs the extra `parquet`, an Excel file `excel`, of which the first sheet is read.

    Raises:
        ExampleError: The file is missing, of an unknown kind, not UTF-8, or broken; the message says where.
        MissingExtraError: The package that reads this kind is not installed.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        msg = f"{path}: unknown kind of file {path.suffix!r}; use {', '.join(KINDS)}"
        raise ExampleError(msg)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        msg = f"no example file at {path}"
        raise ExampleError(msg) from None
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise ExampleError(msg) from error
    if kind == ".parquet":
        return _parquet(content, path.name)
    if kind == ".xlsx":
        return _excel(content, path.name)
    text = _decoded(content, path.name)
    if kind in {".csv", ".tsv"}:
        return _csv(text, path.name, separator="\t" if kind == ".tsv" else _separator(text))
    return _json(text) if kind == ".json" else _json_lines(text)


def _decoded(content: bytes, source: str) -> str:
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        msg = f"{source} is UTF-16; save it as UTF-8, in Excel as «CSV UTF-8»"
        raise ExampleError(msg)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        msg = (
            f"{source}, line {line}: byte {error.start} is not UTF-8 (Windows-1252?); save the file as UTF-8, in Excel "
            "as «CSV UTF-8»"
        )
        raise ExampleError(msg) from error


def _json_lines(text: str) -> Iterator[NumberedRow]:
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


def _json(text: str) -> Iterator[NumberedRow]:
    """The rows of an array; lines of objects where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        yield from _json_lines(text)
        return
    for number, row in enumerate(value, start=1):
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _separator(text: str) -> str:
    header = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    return max(_SEPARATORS, key=header.count)


def _csv(text: str, source: str, *, separator: str) -> Iterator[NumberedRow]:
    # strict: a broken quote is an error of that file, not a row that silently swallows the next ones.
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            if None in row:
                yield reader.line_num, "has more cells than the header"
            else:
                yield reader.line_num, {key: value for key, value in row.items() if value is not None}
    except csv.Error as error:
        msg = f"{source}, line {reader.line_num}: not CSV: {error}"
        raise ExampleError(msg) from error


def _parquet(content: bytes, source: str) -> Iterator[NumberedRow]:
    try:
        from pyarrow import ArrowException, BufferReader
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtraError.of("pyarrow", "parquet") from error
    number = 0
    try:
        for batch in ParquetFile(BufferReader(content)).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowException, OSError) as error:
        msg = f"{source}: not a Parquet file that can be read: {error}"
        raise ExampleError(msg) from error


def _excel(content: bytes, source: str) -> Iterator[NumberedRow]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingExtraError.of("openpyxl", "excel") from error
    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        cells = list(book.worksheets[0].iter_rows(values_only=True))
    except Exception as error:  # a broken workbook raises whatever the parser of that part does
        msg = f"{source}: not an Excel workbook that can be read ({type(error).__name__})"
        raise ExampleError(msg) from error
    yield from _sheet(cells)


def _sheet(cells: Iterable[tuple[Any, ...]]) -> Iterator[NumberedRow]:
    """The rows below the first one that is not empty, which is the header."""
    header: list[str] | None = None
    for number, row in enumerate(cells, start=1):
        if all(cell is None for cell in row):
            continue
        if header is None:
            header = ["" if cell is None else str(cell) for cell in row]
            continue
        values = zip(header, map(_cell, row), strict=False)
        yield number, {name: value for name, value in values if name and value is not None}


def _cell(value: Any) -> Any:
    # A sheet keeps each number as a float.
    return int(value) if isinstance(value, float) and value.is_integer() else value
