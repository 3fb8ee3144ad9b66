"""Classification metrics with confidence intervals that respect groups.

Macro-F1 is the mean F1 over the *declared* labels; a label that neither occurs nor is predicted counts 0. A row without
a readable answer is wrong, never left out. Intervals are percentile intervals of a cluster bootstrap: whole groups are
drawn with replacement (Davison & Hinkley 1997, section 3.8; Field & Welsh 2007), so that the many rows of one template
or contract do not count as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from langchain_pld.artifact import Interval

__all__ = ["accuracy", "cluster_bootstrap", "cluster_keys", "confusion_tables", "macro_f1", "per_label_f1"]

RESAMPLES = 2000
"""Bootstrap resamples."""

Array = npt.NDArray[np.float64]


def confusion_tables(
    gold: Sequence[str],
    predicted: Sequence[str | None],
    labels: Sequence[str],
    groups: Sequence[str | None] | None = None,
) -> Array:
    """Counts of gold label by predicted label, one table per group.

    Args:
        gold: Gold labels, n.
        predicted: Predicted labels, n; `None` for no readable answer.
        labels: The declared labels, k.
        groups: Group of each row, n; `None` is a group of its own.

    Returns:
        Groups x k x (k + 1); the last column counts failed and undeclared answers.
    """
    keys = cluster_keys(groups, len(gold))
    table_of = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    index_of = {label: index for index, label in enumerate(labels)}
    tables = np.zeros((len(table_of), len(labels), len(labels) + 1))
    for key, label, answer in zip(keys, gold, predicted, strict=True):
        column = len(labels) if answer is None else index_of.get(answer, len(labels))
        tables[table_of[key], index_of[label], column] += 1
    return tables


def cluster_keys(groups: Sequence[str | None] | None, rows: int) -> list[str]:
    """The resampling key of each row: its group, or a key of its own."""
    return [
        f"row {row}" if group is None else f"group {group}"
        for row, group in enumerate([None] * rows if groups is None else groups)
    ]


def cluster_bootstrap(
    tables: Sequence[Array], statistic: Callable[..., Array], *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate a statistic of counts, with its cluster-bootstrap percentile interval.

    Args:
        tables: One or more results of `confusion_tables` for the same groups.
        statistic: Maps the summed counts of each to the figure; leading axes are draws.
        confidence: Confidence level.
        seed: Seed of the draws.
    """
    value = float(statistic(*(counts.sum(axis=0) for counts in tables)))
    groups = len(tables[0])
    if groups < 2:
        return Interval(value=value, low=value, high=value, level=confidence)

    def of_draws(drawn: npt.NDArray[np.int64], axis: int) -> Array:
        # scipy passes the last axis: of draws x groups, or of groups alone for the sample itself.
        return np.asarray(statistic(*(counts[drawn].sum(axis=axis % drawn.ndim) for counts in tables)))

    result = stats.bootstrap(
        (np.arange(groups),),
        of_draws,
        n_resamples=RESAMPLES,
        batch=200,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = map(float, result.confidence_interval)
    return Interval(value=value, low=low, high=high, level=confidence)


def macro_f1(counts: Array) -> Array:
    """Macro-F1 of count tables, `(..., k, k + 1)` to `(...)`."""
    return np.asarray(per_label_f1(counts).mean(axis=-1))


def per_label_f1(counts: Array) -> Array:
    """F1 of each label, `(..., k, k + 1)` to `(..., k)`; 0 for a label that neither occurs nor is predicted."""
    square = counts[..., :, :-1]
    hits = np.diagonal(square, axis1=-2, axis2=-1)
    sums = counts.sum(axis=-1) + square.sum(axis=-2)
    return np.asarray(np.divide(2 * hits, sums, out=np.zeros_like(hits), where=sums > 0))


def accuracy(counts: Array) -> Array:
    """Share of rows with the gold label, `(..., k, k + 1)` to `(...)`."""
    hits = np.trace(counts[..., :, :-1], axis1=-2, axis2=-1)
    return np.asarray(hits / counts.sum(axis=(-2, -1)))
