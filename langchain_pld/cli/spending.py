"""What people read about calls, tokens, money and time: the estimate before a run, the ledger after it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from langchain_pld.artifact import LedgerLine
    from langchain_pld.distillation.estimate import Estimate

__all__ = ["estimate_table", "ledger_table", "money"]


def estimate_table(estimate: Estimate) -> Table:
    """The estimate, a line for each node and model, with how its calls were counted."""
    table = _table("This run asks", ("at least", "at most", "tokens in", "tokens out", "USD", "minutes"))
    table.add_column("counted as", overflow="fold")
    for line in estimate.lines:
        cells = (line.least, line.calls, line.input_tokens, line.output_tokens)
        table.add_row(line.node, line.model, *map(_count, cells), money(line.cost), _minutes(line.seconds), line.how)
    tokens = (sum(line.input_tokens for line in estimate.lines), sum(line.output_tokens for line in estimate.lines))
    table.add_section()
    table.add_row(
        "all",
        "",
        _count(estimate.least),
        _count(estimate.calls),
        *map(_count, tokens),
        money(estimate.cost),
        _minutes(estimate.seconds),
        "",
    )
    return table


def ledger_table(lines: Iterable[LedgerLine]) -> Table:
    """What a run spent, a line for each node and model."""
    lines = list(lines)
    table = _table("Spent", ("calls", "from cache", "failed", "tokens in", "tokens out", "USD", "seconds"))
    for line in lines:
        counts = (line.calls, line.cache_hits, line.failures, line.input_tokens, line.output_tokens)
        table.add_row(line.node, line.model, *map(_count, counts), money(line.cost), f"{line.seconds:.0f}")
    costs = [line.cost for line in lines]
    sums = [
        sum(getattr(line, name) for line in lines)
        for name in ("calls", "cache_hits", "failures", "input_tokens", "output_tokens")
    ]
    table.add_section()
    table.add_row(
        "all",
        "",
        *map(_count, sums),
        money(None if None in costs else sum(cost or 0.0 for cost in costs)),
        f"{sum(line.seconds for line in lines):.0f}",
    )
    return table


def money(usd: float | None) -> str:
    """US dollars, or that they are not known."""
    if usd is None:
        return "unknown"
    return f"{usd:.2f}" if usd >= 0.1 or not usd else f"{usd:.4f}"


def _table(title: str, columns: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("node", no_wrap=True)
    table.add_column("model", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _count(number: int) -> str:
    return f"{number:,}"


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:.0f}" if seconds >= 60 else "< 1"
