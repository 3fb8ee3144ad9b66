"""Paired comparison of two prompts on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from langchain_pld.artifact import Interval
from langchain_pld.evaluation.metrics import RESAMPLES, Array, Confusion, Indices, cluster_keys, macro_f1

__all__ = ["Comparison", "compare"]


class Comparison(BaseModel):
    """Whether a challenger is better than an incumbent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: Interval
    """Macro-F1 of the challenger minus the incumbent's, cluster bootstrap over the same draws."""
    mcnemar_p: float
    """Exact McNemar test of the rows on which just one of them is right; ignores groups."""
    challenger_only: int
    """Rows that only the challenger gets right."""
    incumbent_only: int
    """Rows that only the incumbent gets right."""
    rows: int
    """Rows compared."""

    @property
    def better(self) -> bool:
        """The whole interval of the difference lies above zero."""
        return self.difference.low > 0

    @property
    def worse(self) -> bool:
        """The whole interval of the difference lies below zero."""
        return self.difference.high < 0


def compare(
    gold: Sequence[str],
    challenger: Sequence[str | None],
    incumbent: Sequence[str | None],
    labels: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two sets of predictions for the same rows.

    Args:
        gold: Gold labels, n.
        challenger: Its predictions, n; `None` where it failed.
        incumbent: Its predictions, n.
        labels: The declared labels.
        groups: Group of each row; whole groups are resampled.
        level: Confidence level of the interval.
        seed: Seed of the bootstrap.
    """
    new, old = Confusion(gold, challenger, labels, groups), Confusion(gold, incumbent, labels, groups)
    value = float(macro_f1(new.total) - macro_f1(old.total))
    count = len(set(cluster_keys(groups, len(gold))))
    low = high = value
    if count > 1:

        def statistic(drawn: Indices, axis: int) -> Array:
            axis %= drawn.ndim
            return np.asarray(macro_f1(new.tables[drawn].sum(axis=axis)) - macro_f1(old.tables[drawn].sum(axis=axis)))

        result = stats.bootstrap(
            (np.arange(count),),
            statistic,
            n_resamples=RESAMPLES,
            batch=200,
            vectorized=True,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = map(float, result.confidence_interval)
    gained = sum(g == n and g != o for g, n, o in zip(gold, challenger, incumbent, strict=True))
    lost = sum(g == o and g != n for g, n, o in zip(gold, challenger, incumbent, strict=True))
    p_value = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Comparison(
        difference=Interval(value=value, low=low, high=high, level=level),
        mcnemar_p=float(p_value),
        challenger_only=gained,
        incumbent_only=lost,
        rows=len(gold),
    )
