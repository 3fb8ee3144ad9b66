"""Finding the texts behind the hashes of an audit log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from langchain_pld.examples import Columns
    from langchain_pld.task import Task

__all__ = ["KeyVariable", "TextFile", "inputs_by_hash"]

TextFile = Annotated[
    Path | None, typer.Option("--texts", metavar="FILE", help="Texts behind the log's hashes: rows, or a text a line.")
]
KeyVariable = Annotated[
    str | None, typer.Option("--key-env", metavar="NAME", help="Environment variable with the key of the log's hashes.")
]


def inputs_by_hash(task: Task, path: Path | None, columns: Columns, key_variable: str | None) -> dict[str, Any]:
    """The inputs in a file by the hash that an audit log has of them.

    Raises:
        InputError: The variable of the key is not set.
        ExampleError: The file cannot be read.
    """
    from langchain_pld.examples import Columns, read_examples
    from langchain_pld.guardrail.audit import input_hash
    from langchain_pld.row_files import KINDS
    from langchain_pld.student.inputs import input_text

    key = None if key_variable is None else os.environ.get(key_variable, "").encode()
    if key == b"":
        raise InputError(f"--key-env: the environment variable {key_variable} is not set")
    if path is None:
        return {}
    inputs: list[Any]
    if path.suffix.lower() in KINDS:
        # Only the texts count, and there may be no labels beside them.
        inputs = [
            row.input for row in read_examples(path, task, columns=Columns(text=columns.text), skip_bad_rows=True)
        ]
    else:
        inputs = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return {input_hash(input_text(task, value), key=key): value for value in inputs}
