"""What people read about calls, tokens, money and time: the estimate before a run, the ledger after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from langchain_pld.cli.printing import table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from langchain_pld.artifact import LedgerLine
    from langchain_pld.distillation.estimate import Estimate, EstimateLine

__all__ = ["estimate_table", "ledger_table", "money"]


_NODES = ("generate", "extract", "critique", "consolidate", "validate", "review", "test")


def estimate_table(estimate: Estimate) -> RenderableType:
    """The estimate, a line for each node and model, then how its calls were counted."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    lines = estimate.lines
    rows: list[tuple[int | str, ...]] = [
        (line.least, line.calls, line.input_tokens, line.output_tokens, money(line.cost), _minutes(line.seconds))
        for line in lines
    ]
    total: list[int | str] = [*_sums(rows, 4), money(estimate.cost), _minutes(estimate.seconds)]
    columns = ("at least", "at most", "tokens in", "tokens out", "USD", "minutes")
    asked = _table("This run asks", lines, rows, total, columns)
    how = [Padding(Text(f"{line.node}: {line.how}"), (0, 0, 0, 2), expand=False) for line in lines]
    return Group(asked, Text("How the calls were counted:"), *how)


def ledger_table(lines: Iterable[LedgerLine]) -> Table:
    """What a run spent, a line for each node and model, in the order of the run."""
    lines = sorted(lines, key=lambda line: _NODES.index(line.node) if line.node in _NODES else -1)
    rows: list[tuple[int | str, ...]] = [
        (
            *(line.calls, line.cache_hits, line.failures, line.input_tokens, line.output_tokens),
            *(money(line.cost), f"{line.seconds:.0f}"),
        )
        for line in lines
    ]
    costs = [line.cost for line in lines]
    cost = money(None if None in costs else sum(cost or 0.0 for cost in costs))
    total: list[int | str] = [*_sums(rows, 5), cost, f"{sum(line.seconds for line in lines):.0f}"]
    columns = ("calls", "from cache", "failed", "tokens in", "tokens out", "USD", "seconds")
    return _table("This run asked", lines, rows, total, columns)


def money(usd: float | None) -> str:
    """US dollars, or that they are not known."""
    if usd is None:
        return "unknown"
    return f"{usd:.2f}" if usd >= 0.1 or not usd else f"{usd:.4f}"


def _table(
    title: str,
    lines: Sequence[LedgerLine | EstimateLine],
    rows: Sequence[tuple[int | str, ...]],
    total: Sequence[int | str],
    columns: Sequence[str],
) -> Table:
    """A row a line; a single model is in the title, several have a column."""
    models = list(dict.fromkeys(line.model for line in lines))
    several = len(models) > 1
    filled = table(title if several else " ".join([title, *models]), ["node", *(["model"] if several else [])], columns)
    for line, cells in zip(lines, rows, strict=True):
        filled.add_row(line.node, *([line.model] if several else []), *map(_cell, cells))
    filled.add_section()
    filled.add_row("all", *([""] if several else []), *map(_cell, total))
    return filled


def _sums(rows: Sequence[tuple[int | str, ...]], columns: int) -> list[int]:
    return [sum(int(row[column]) for row in rows) for column in range(columns)]


def _cell(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:.0f}" if seconds >= 60 else "< 1"
