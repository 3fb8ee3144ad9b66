"""What all benchmarks print: a progress line, and a table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.table import Table


def progress_line(step: str) -> Callable[[int, int], None]:
    """A callback that shows the units done of a step on standard error."""
    return lambda done, total: print(f"\r{step}: {done}/{total}    ", end="", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], *, text: Sequence[str] = ()) -> Table:
    """An empty table; columns of figures are aligned to the right, those of text to the left."""
    empty = Table(title=title)
    for column in columns:
        empty.add_column(column, justify="left" if column in text else "right")
    return empty
