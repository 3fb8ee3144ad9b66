"""The ledger: what each node spent on each model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from langchain_core.messages import AIMessage

from langchain_pld.artifact import LedgerLine

__all__ = ["merge_ledgers", "outcome", "total"]


def merge_ledgers(left: list[LedgerLine], right: list[LedgerLine]) -> list[LedgerLine]:
    """The newer total of each node and model, in the order of first appearance. Reducer of the graph's state."""
    # A strict checkpointer gives back plain mappings.
    read = ([LedgerLine.model_validate(line) for line in lines] for lines in (left, right))
    newest = {(line.node, line.model): line for lines in read for line in total(lines)}
    return list(newest.values())


def total(lines: Iterable[LedgerLine]) -> list[LedgerLine]:
    """One line for each node and model."""
    sums: dict[tuple[str, str], LedgerLine] = {}
    for line in lines:
        key = (line.node, line.model)
        known = sums.get(key)
        sums[key] = line if known is None else _add(known, line)
    return list(sums.values())


def outcome(node: str, model: str, message: AIMessage | None, *, failed: bool, seconds: float) -> LedgerLine:
    """The tokens and seconds of one call, whose answer was of use or not.

    Calls in flight wait for each other where the model runs in this process; such a wait is left out, or the seconds of
    calls made at one time would add up to a multiple of what they took.
    """
    usage = message.usage_metadata if message is not None else None
    return LedgerLine(
        node=node,
        model=model,
        failures=int(failed),
        input_tokens=usage["input_tokens"] if usage else 0,
        output_tokens=usage["output_tokens"] if usage else 0,
        seconds=max(0.0, seconds - _queued(message)),
    )


def _queued(message: AIMessage | None) -> float:
    """Seconds that the call waited for others, as an embedded model tells."""
    timings = message.response_metadata.get("timings") if message is not None else None
    waited = timings.get("queue_ms") if isinstance(timings, Mapping) else None
    return waited / 1000 if isinstance(waited, int | float) else 0.0


def _add(a: LedgerLine, b: LedgerLine) -> LedgerLine:
    # One part that nobody can price leaves the sum unknown.
    cost = None if a.cost is None or b.cost is None else a.cost + b.cost
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
