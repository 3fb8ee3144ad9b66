"""How commands print: tables and JSON on standard output, complaints and notes on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from langchain_pld.examples import ExampleSet

__all__ = ["PIPE_WIDTH", "complain", "count", "output", "print_json", "print_notes", "printable", "table"]

PIPE_WIDTH = 110
"""Columns of what is no terminal."""


def complain(message: str) -> None:
    """Say on standard error what is wrong."""
    typer.echo(f"pld: {message}", err=True)


def print_notes(sets: Iterable[ExampleSet]) -> None:
    """Say on standard error how files were read and which rows were left out: how many, and the first reasons."""
    for rows in sets:
        for note in rows.notes:
            complain(f"note: {note}")
        if rows.skipped:
            more = f"; and {len(rows.skipped) - 3} more" if len(rows.skipped) > 3 else ""
            complain(f"skipped {count(len(rows.skipped), 'bad row')}: {'; '.join(map(str, rows.skipped[:3]))}{more}")


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object, in ASCII, so that no character of a text can steer a terminal or fail to be encoded."""
    typer.echo(json.dumps(content))


def output() -> Console:
    """Standard output; in a pipe, as wide as the widest table needs."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    """An empty table: columns of texts, which are folded where they are too long, then columns of numbers."""
    from rich import box
    from rich.table import Table

    empty = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in texts:
        empty.add_column(name, overflow="fold")
    for name in numbers:
        empty.add_column(name, justify="right", no_wrap=True)
    return empty


def count(number: int, noun: str) -> str:
    """A number with its noun, e.g. "1 rule", "2 rules"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def printable(text: str) -> str:
    """A text of unknown origin as one line that cannot steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
