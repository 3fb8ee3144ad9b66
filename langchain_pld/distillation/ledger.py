"""The ledger: what each node spent on each model."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.messages import AIMessage

from langchain_pld.artifact import LedgerLine

__all__ = ["merge_ledgers", "one_call"]


def merge_ledgers(left: list[LedgerLine], right: list[LedgerLine]) -> list[LedgerLine]:
    """Add lines of the same node and model; the order of first appearance is kept. Reducer of the graph's state."""
    return total([*left, *right])


def total(lines: Iterable[LedgerLine]) -> list[LedgerLine]:
    """One line for each node and model."""
    sums: dict[tuple[str, str], LedgerLine] = {}
    for line in lines:
        key = (line.node, line.model)
        known = sums.get(key)
        sums[key] = line if known is None else _add(known, line)
    return list(sums.values())


def one_call(node: str, model: str, message: AIMessage | None, *, seconds: float) -> LedgerLine:
    """The line of one call; without a message it failed."""
    usage = message.usage_metadata if message is not None else None
    return LedgerLine(
        node=node,
        model=model,
        calls=1,
        failures=int(message is None),
        input_tokens=usage["input_tokens"] if usage else 0,
        output_tokens=usage["output_tokens"] if usage else 0,
        seconds=seconds,
    )


def _add(a: LedgerLine, b: LedgerLine) -> LedgerLine:
    cost = None if a.cost is None and b.cost is None else (a.cost or 0.0) + (b.cost or 0.0)
    return LedgerLine(
        node=a.node,
        model=a.model,
        calls=a.calls + b.calls,
        cache_hits=a.cache_hits + b.cache_hits,
        failures=a.failures + b.failures,
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
        seconds=a.seconds + b.seconds,
        cost=cost,
    )
