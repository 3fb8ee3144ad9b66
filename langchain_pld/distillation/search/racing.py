"""Racing: a candidate that is clearly behind is not scored to the end.

The candidate and the best so far are compared on growing shares of the validation rows, by the same cross-validated
losses as at the end. A one-sided paired t test of the mean loss a group (`scipy.stats.ttest_1samp`), at a level that
is divided by the number of looks, decides whether it is behind (Maron & Moore 1994 call such a comparison a race).
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence

from scipy import stats

from langchain_pld.examples import Example, ExampleSet
from langchain_pld.student.calibration import MINIMUM_ROWS

__all__ = ["behind", "looks", "stratified_order"]

_SHARES = (0.5, 0.75)
_LEAST_GROUPS = 10


def looks(rows: int) -> tuple[int, ...]:
    """After how many rows a race is looked at; none where the first look could not calibrate."""
    return tuple(seen for seen in (round(share * rows) for share in _SHARES) if MINIMUM_ROWS <= seen < rows)


def behind(
    challenger: Sequence[float], best: Sequence[float], groups: Sequence[str | None], *, level: float
) -> float | None:
    """The p-value that says that the challenger is behind, or `None` when it may still win.

    Args:
        challenger: Its loss of each row, n.
        best: The loss of the best so far, n.
        groups: Group of each row, n; `None` is a group of its own. Rows of one group count as one.
        level: Highest p-value that ends the race.
    """
    by_group: dict[str, list[float]] = defaultdict(list)
    for number, (new, old, group) in enumerate(zip(challenger, best, groups, strict=True)):
        by_group[f"row {number}" if group is None else f"group {group}"].append(new - old)
    means = [statistics.fmean(differences) for differences in by_group.values()]
    if len(means) < _LEAST_GROUPS or len(set(means)) < 2:
        return None
    p_value = float(stats.ttest_1samp(means, 0.0, alternative="greater").pvalue)
    return p_value if p_value <= level else None


def stratified_order(rows: ExampleSet, seed: int) -> ExampleSet:
    """The rows in an order in which each beginning has the labels in about their shares of the whole."""
    by_label: dict[str | None, list[Example]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    shuffler = random.Random(seed)
    placed: list[tuple[float, str, Example]] = []
    for label, members in by_label.items():
        shuffler.shuffle(members)
        placed += [((number + 0.5) / len(members), str(label), row) for number, row in enumerate(members)]
    ordered = sorted(placed, key=lambda entry: (entry[0], entry[1]))
    return ExampleSet(source=rows.source, examples=tuple(row for _, _, row in ordered))
