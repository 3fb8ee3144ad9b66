"""Paired comparison of two prompts on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from langchain_pld.artifact import Interval
from langchain_pld.evaluation.metrics import Array, Confusion, cluster_bootstrap, macro_f1, per_label_f1

__all__ = ["Comparison", "compare"]


class Comparison(BaseModel):
    """Whether a challenger is better than an incumbent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: Interval
    """Macro-F1 of the challenger minus the incumbent's, cluster bootstrap over the same draws."""
    per_label: dict[str, Interval]
    """The same difference in the F1 of each label."""
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

    @property
    def worse_labels(self) -> tuple[str, ...]:
        """Labels for which the whole interval of the difference lies below zero."""
        return tuple(label for label, interval in self.per_label.items() if interval.high < 0)


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
    gained = sum(g == n and g != o for g, n, o in zip(gold, challenger, incumbent, strict=True))
    lost = sum(g == o and g != n for g, n, o in zip(gold, challenger, incumbent, strict=True))
    p_value = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Comparison(
        difference=_difference(new, old, macro_f1, level, seed),
        per_label={
            label: _difference(new, old, partial(_label_f1, place), level, seed) for place, label in enumerate(labels)
        },
        mcnemar_p=float(p_value),
        challenger_only=gained,
        incumbent_only=lost,
        rows=len(gold),
    )


def _difference(new: Confusion, old: Confusion, metric: Callable[[Array], Array], level: float, seed: int) -> Interval:
    """Difference of a metric of the counts, over the same draws of groups."""
    return cluster_bootstrap([new.tables, old.tables], lambda a, b: metric(a) - metric(b), level=level, seed=seed)


def _label_f1(place: int, counts: Array) -> Array:
    return np.asarray(per_label_f1(counts)[..., place])
