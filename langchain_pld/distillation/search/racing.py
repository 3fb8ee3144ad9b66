"""Racing (Maron & Moore 1994): stop scoring a candidate that is clearly worse than the best so far.

The two are compared on growing shares of the validation rows by the same cross-validated losses as at the end: a
one-sided paired t test of the mean loss per group, at a level divided by the number of interim comparisons.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence

from scipy import stats

from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.evaluation.metrics import cluster_keys
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.student.calibration import MINIMUM_ROWS

__all__ = ["interim_sizes", "p_value_worse", "race", "stratified_order"]

_SHARES = (0.5, 0.75)
_MIN_GROUPS = 10


async def race(
    scorer: StudentScorer, candidate: Candidate, best: ScoredCandidate, rows: ExampleSet, name: str
) -> ScoredCandidate | None:
    """Score a candidate for as long as it may still beat the best so far, and announce the outcome.

    Args:
        scorer: Scores rows; its plan sets the level of the test.
        candidate: The challenger.
        best: The best so far, scored on all rows.
        rows: The validation rows in `stratified_order`.
        name: What the run's log calls the challenger.

    Returns:
        The candidate scored on all rows; `None` if it was clearly worse or the budget ran out.
    """
    run = scorer.run
    progress = run.progress(f"student tries {name}")
    sizes = interim_sizes(len(rows))
    try:
        for size in sizes:
            part = ExampleSet(source=rows.source, examples=rows.examples[:size])
            challenger = await scorer.validate(candidate, part, lambda done, _: progress(done, len(rows)))
            incumbent = await scorer.validate(best.candidate, part)
            p_value = p_value_worse(challenger.losses, incumbent.losses, [row.group for row in part])
            if p_value <= run.plan.race_level / len(sizes):
                run.announce(
                    f"{name}: stopped after {size} of {len(rows)} rows: log loss {challenger.loss:.3f} against "
                    f"{incumbent.loss:.3f}, p = {p_value:.1g}"
                )
                return None
        scored = await scorer.validate(candidate, rows, progress)
    except BudgetSpent as spent:
        run.announce(f"{name}: not scored, {spent}")
        return None
    outcome = "taken" if scored.loss < best.loss else "not taken"
    run.announce(f"{name}: {outcome}, log loss {best.loss:.3f} to {scored.loss:.3f}")
    return scored


def interim_sizes(rows: int) -> tuple[int, ...]:
    """Numbers of rows after which the two are compared; none with too few rows to calibrate."""
    return tuple(size for size in (round(share * rows) for share in _SHARES) if MINIMUM_ROWS <= size < rows)


def p_value_worse(challenger: Sequence[float], best: Sequence[float], groups: Sequence[str | None]) -> float:
    """One-sided p-value that the challenger's mean loss is higher; 1 with too few or identical differences.

    Args:
        challenger: The challenger's loss on each row, n.
        best: The loss of the best so far, n.
        groups: Group of each row, n; `None` is a group of its own. Rows of one group count as one.
    """
    differences: dict[str, list[float]] = defaultdict(list)
    for key, new, old in zip(cluster_keys(groups, len(groups)), challenger, best, strict=True):
        differences[key].append(new - old)
    means = list(map(statistics.fmean, differences.values()))
    if len(means) < _MIN_GROUPS or len(set(means)) < 2:
        return 1.0
    return float(stats.ttest_1samp(means, 0.0, alternative="greater").pvalue)


def stratified_order(rows: ExampleSet, seed: int) -> ExampleSet:
    """The rows shuffled so that every prefix has about the label shares of the whole."""
    by_label: dict[str | None, list[Example]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    shuffler = random.Random(seed)
    placed: list[tuple[float, str, Example]] = []
    for label, members in by_label.items():
        shuffler.shuffle(members)
        placed += [((number + 0.5) / len(members), str(label), row) for number, row in enumerate(members)]
    ordered = sorted(placed, key=lambda entry: entry[:2])
    return ExampleSet(source=rows.source, examples=tuple(row for _, _, row in ordered))
