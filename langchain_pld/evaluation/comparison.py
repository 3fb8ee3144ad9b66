"""Paired comparison of two prompts on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from langchain_pld.artifact import Interval
from langchain_pld.evaluation.metrics import Array, cluster_bootstrap, confusion_tables, macro_f1, per_label_f1

__all__ = ["Comparison", "compare"]


class Comparison(BaseModel):
    """Whether a challenger is better than an incumbent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: Interval
    """Macro-F1 of the challenger minus the incumbent's, cluster bootstrap over the same draws."""
    per_label: dict[str, Interval]
    """The same difference in the F1 of each label."""
    mcnemar_p: float
    """p-value of the exact McNemar test on rows that exactly one of them gets right; ignores groups."""
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

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if self.better or self.worse:
            return f"detectably {'better' if self.better else 'worse'}"
        return "no detectable difference"

    def figures(self, role: str) -> str:
        """The comparison in figures; `role` names the rows."""
        interval = self.difference
        return (
            f"macro-F1 on {self.rows} {role} rows {interval.value:+.3f}, "
            f"{interval.level:.0%} interval {interval.low:+.3f} to {interval.high:+.3f}, McNemar p {self.mcnemar_p:.2g}"
        )


def compare(
    gold: Sequence[str],
    challenger: Sequence[str | None],
    incumbent: Sequence[str | None],
    labels: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two sets of predictions for the same rows.

    Args:
        gold: Gold labels, n.
        challenger: Its predictions, n; `None` where it failed.
        incumbent: Its predictions, n.
        labels: The declared labels.
        groups: Group of each row; whole groups are resampled.
        confidence: Confidence level of the intervals.
        seed: Seed of the bootstrap.
    """
    tables = [confusion_tables(gold, predicted, labels, groups) for predicted in (challenger, incumbent)]

    def difference(metric: Callable[[Array], Array]) -> Interval:
        return cluster_bootstrap(tables, lambda a, b: metric(a) - metric(b), confidence=confidence, seed=seed)

    def label_difference(place: int) -> Interval:
        return difference(lambda counts: np.asarray(per_label_f1(counts)[..., place]))

    hits = [(new == label, old == label) for label, new, old in zip(gold, challenger, incumbent, strict=True)]
    gained, lost = hits.count((True, False)), hits.count((False, True))
    return Comparison(
        difference=difference(macro_f1),
        per_label={label: label_difference(place) for place, label in enumerate(labels)},
        mcnemar_p=float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        challenger_only=gained,
        incumbent_only=lost,
        rows=len(gold),
    )
