"""The ledger of a run, and whether its budget allows another call."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.plan import Budget, Plan
from langchain_pld.distillation.prices import Price, price_of
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.store import RunStore

__all__ = ["BudgetSpent", "Spending", "remaining_budget", "total"]

_KIND, _KEY = "spending", "total"
_FIGURES = ("calls", "cache_hits", "failures", "input_tokens", "output_tokens", "seconds")


class BudgetSpent(Exception):  # noqa: N818  # not an error: a node catches it and continues with what it has
    """The budget allows no more calls; the message names the limit."""


class Spending:
    """The ledger of a run against its budget.

    Each entry is stored at once, so that a killed run still knows it after resuming. Limits are checked before each
    call, so calls in flight may exceed those on tokens, money and minutes, but not the one on calls.

    Args:
        budget: The limits.
        prices: The user's prices, see `price_of`.
        lines: Earlier entries.
        seconds: Seconds worked before.
        stopped: The limit reached before, if any.
        keep: Stores the state after an entry.
        report: Called with the money spent so far, after each entry with a cost.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        prices: Mapping[str, Price] | None = None,
        lines: Sequence[LedgerLine] = (),
        seconds: float = 0.0,
        stopped: str | None = None,
        keep: Callable[[dict[str, Any]], Awaitable[None]] | None = None,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.budget = budget or Budget()
        self.stopped = stopped
        """The limit reached; `None` while within the budget."""
        self._prices = prices or {}
        self.ledger = total(lines)
        """What the run has spent, one line per node and model."""
        self._started = time.monotonic() - seconds
        self._keep = keep
        self._report = report
        self._keeping = asyncio.Lock()

    @classmethod
    async def of(cls, run: RunStore, plan: Plan, report: Callable[[Progress], None] = lambda _: None) -> Spending:
        """The spending of a run as stored; its clock restarts here."""
        known = await _known(run)
        return cls(
            plan.budget,
            prices=plan.prices,
            lines=_lines(known),
            seconds=known.get("seconds", 0.0),
            # Another budget may allow what the one before did not.
            stopped=known.get("stopped") if known.get("budget") == plan.budget.model_dump() else None,
            keep=lambda state: run.put_many(_KIND, {_KEY: state}),
            report=report,
        )

    @property
    def seconds(self) -> float:
        """Seconds that the run has worked."""
        return time.monotonic() - self._started

    def over(self, model: str) -> str | None:
        """Why the budget does not allow a call to a model, or `None` if it does."""
        reason = self._limit_reached(model)
        self.stopped = self.stopped or reason
        return reason

    def check(self, model: str) -> None:
        """Check that a model may be called.

        Raises:
            BudgetSpent: It may not.
        """
        reason = self.over(model)
        if reason is not None:
            raise BudgetSpent(reason)

    async def add(self, line: LedgerLine, *, cached_tokens: int = 0) -> None:
        """Enter calls, tokens and seconds, and add their cost; `cached_tokens` are input tokens that were cached."""
        price = price_of(line.model, self._prices)
        tokens = {"input_tokens": line.input_tokens, "output_tokens": line.output_tokens}
        if price is not None:
            line = line.model_copy(update={"cost": price.of(**tokens, cached_tokens=cached_tokens)})
        elif not line.calls and not any(tokens.values()):
            line = line.model_copy(update={"cost": 0.0})
        self.ledger = total([*self.ledger, line])
        if line.cost:
            cost = sum(one.cost or 0.0 for one in self.ledger)
            self._report(Progress(node=line.node, step="spending", cost=cost))
        await self.keep()

    async def keep(self) -> None:
        """Store the state, including a limit reached."""
        if self._keep is None:
            return
        async with self._keeping:
            await self._keep(
                {
                    "lines": [line.model_dump() for line in self.ledger],
                    "seconds": self.seconds,
                    "stopped": self.stopped,
                    "budget": self.budget.model_dump(),
                }
            )

    def _limit_reached(self, model: str) -> str | None:
        limits, price = self.budget, price_of(model, self._prices)
        calls = sum(line.calls for line in self.ledger)
        tokens = sum(line.input_tokens + line.output_tokens for line in self.ledger)
        cost = sum(line.cost or 0.0 for line in self.ledger)
        if limits.calls is not None and calls >= limits.calls:
            return f"the budget of {limits.calls} calls is spent"
        if limits.tokens is not None and tokens >= limits.tokens:
            return f"the budget of {limits.tokens} tokens is spent ({tokens} were taken)"
        if limits.minutes is not None and self.seconds >= 60 * limits.minutes:
            return f"the budget of {limits.minutes:g} minutes is spent"
        if limits.usd is None or price == Price(input=0, output=0):
            return None
        if price is None:
            return f"the budget is in US dollars, and the price of {model} is not known"
        if cost >= limits.usd:
            return f"the budget of {limits.usd:g} USD is spent ({cost:.4f} USD were taken)"
        return None


def total(lines: Iterable[LedgerLine]) -> list[LedgerLine]:
    """One line per node and model, in order of first appearance."""
    groups: defaultdict[tuple[str, str], list[LedgerLine]] = defaultdict(list)
    for line in lines:
        groups[line.node, line.model].append(line)
    return [LedgerLine(node=node, model=model, **_sums(group)) for (node, model), group in groups.items()]


async def remaining_budget(budget: Budget, runs: Iterable[RunStore]) -> Budget:
    """What the other runs have left of a shared budget."""
    for run in runs:
        known = await _known(run)
        sums = _sums(_lines(known))
        spent = {
            "calls": sums["calls"],
            "tokens": sums["input_tokens"] + sums["output_tokens"],
            "usd": sum(line.cost or 0.0 for line in _lines(known)),
            "minutes": known.get("seconds", 0.0) / 60,
        }
        limits = {name: limit for name, limit in budget.model_dump().items() if limit is not None}
        budget = Budget(**{name: max(0, limit - spent[name]) for name, limit in limits.items()})
    return budget


def _sums(lines: Sequence[LedgerLine]) -> dict[str, Any]:
    """The sums of some lines; one unknown cost makes the total cost unknown."""
    sums: dict[str, Any] = {name: sum(getattr(line, name) for line in lines) for name in _FIGURES}
    costs = [line.cost for line in lines]
    return {**sums, "cost": None if None in costs else sum(cost or 0.0 for cost in costs)}


async def _known(run: RunStore) -> dict[str, Any]:
    """The stored spending of a run."""
    return (await run.get_many(_KIND, [_KEY])).get(_KEY, {})


def _lines(known: Mapping[str, Any]) -> list[LedgerLine]:
    return [LedgerLine.model_validate(line) for line in known.get("lines", ())]
