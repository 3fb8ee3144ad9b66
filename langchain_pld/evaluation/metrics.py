"""Classification metrics with confidence intervals that respect groups.

Macro-F1 is the mean of the labels' F1 over the *declared* labels: one that neither occurs nor is predicted counts 0.
A row without a readable answer is wrong, never left out. Intervals are percentile intervals of a cluster bootstrap:
whole groups are drawn with replacement (Davison & Hinkley 1997, section 3.8; Field & Welsh 2007), so that the many
rows about one template or one contract do not count as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from langchain_pld.artifact import Interval
from langchain_pld.student.calibration_metrics import brier_score, expected_calibration_error, log_loss

__all__ = [
    "Confusion",
    "accuracy",
    "brier_score",
    "cluster_bootstrap",
    "expected_calibration_error",
    "log_loss",
    "macro_f1",
    "per_label_f1",
]

RESAMPLES = 2000
"""Bootstrap resamples."""

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Confusion:
    """Counts of gold label by predicted label, one table a group.

    Args:
        gold: Gold labels, n.
        predicted: Predicted labels, n; `None` where there was no readable answer.
        labels: The declared labels, k.
        groups: Group of each row, n; `None` puts a row in a group of its own.
    """

    def __init__(
        self,
        gold: Sequence[str],
        predicted: Sequence[str | None],
        labels: Sequence[str],
        groups: Sequence[str | None] | None = None,
    ) -> None:
        if not len(gold) == len(predicted) == len(groups if groups is not None else gold):
            msg = f"gold, predicted and groups differ in length: {len(gold)}, {len(predicted)}"
            raise ValueError(msg)
        self.labels = tuple(labels)
        position = {label: index for index, label in enumerate(self.labels)}
        keys = cluster_keys(groups, len(gold))
        order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        # The last column collects failed and undeclared answers.
        self.tables = np.zeros((len(order), len(self.labels), len(self.labels) + 1))
        for key, true, answer in zip(keys, gold, predicted, strict=True):
            column = position.get(answer, len(self.labels)) if answer is not None else len(self.labels)
            self.tables[order[key], position[true], column] += 1

    @property
    def total(self) -> Array:
        """Counts over all groups, k x (k + 1); the last column holds failed answers."""
        return np.asarray(self.tables.sum(axis=0))

    def interval(self, metric: Callable[[Array], Array], *, level: float = 0.95, seed: int = 0) -> Interval:
        """Estimate and cluster-bootstrap percentile interval of a metric of the counts."""
        return cluster_bootstrap([self.tables], metric, level=level, seed=seed)


def cluster_bootstrap(
    tables: Sequence[Array], statistic: Callable[..., Array], *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate and cluster-bootstrap percentile interval of a statistic of counts.

    Args:
        tables: One or more arrays of count tables of the same groups, each groups x k x (k + 1).
        statistic: From the summed counts of each array to the figure; leading axes are draws.
        level: Confidence level.
        seed: Seed of the draws.
    """
    value = float(statistic(*(counts.sum(axis=0) for counts in tables)))
    count = len(tables[0])
    if count < 2:
        return Interval(value=value, low=value, high=value, level=level)

    def of_draws(drawn: Indices, axis: int) -> Array:
        # scipy asks for the last axis: draws x groups, or groups alone for the sample itself.
        return np.asarray(statistic(*(counts[drawn].sum(axis=axis % drawn.ndim) for counts in tables)))

    result = stats.bootstrap(
        (np.arange(count),),
        of_draws,
        n_resamples=RESAMPLES,
        batch=200,
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = map(float, result.confidence_interval)
    return Interval(value=value, low=low, high=high, level=level)


def cluster_keys(groups: Sequence[str | None] | None, rows: int) -> list[str]:
    """One resampling key a row: its group, or a key of its own."""
    if groups is None:
        return [f"row {index}" for index in range(rows)]
    return [f"row {index}" if group is None else f"group {group}" for index, group in enumerate(groups)]


def macro_f1(counts: Array) -> Array:
    """Macro-F1 of count tables, ... x k x (k + 1) to ...."""
    return np.asarray(per_label_f1(counts).mean(axis=-1))


def per_label_f1(counts: Array) -> Array:
    """F1 of each label, ... x k x (k + 1) to ... x k; 0 for a label that neither occurs nor is predicted."""
    square = counts[..., :, :-1]
    hits = np.diagonal(square, axis1=-2, axis2=-1)
    sums = counts.sum(axis=-1) + square.sum(axis=-2)
    return np.asarray(np.divide(2 * hits, sums, out=np.zeros_like(hits), where=sums > 0))


def accuracy(counts: Array) -> Array:
    """Share of rows with the gold label, ... x k x (k + 1) to ...."""
    hits = np.trace(counts[..., :, :-1], axis1=-2, axis2=-1)
    return np.asarray(hits / counts.sum(axis=(-2, -1)))
