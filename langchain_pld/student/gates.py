"""Gates: the confidence from which on the student may decide alone.

A gate keeps the risk, the share of wrong labels among decided inputs, at or below `alpha`, with a stated confidence.
Picking the lowest threshold whose observed risk or own confidence bound looks good enough tests many thresholds on the
same rows and breaks its promise far too often. Here thresholds are tested in a fixed order, from the most confident
down.

Each threshold is tested with the exact binomial tail: if the risk is above `alpha`, so few errors among m decided rows
have probability at most `Binomial(m, alpha).cdf(errors)`. That this is at most `1 - confidence` is equivalent to the
one-sided Clopper-Pearson bound (1934) being at most `alpha`.

The sequence is the fallback procedure (Wiens 2003, *A fixed sequence Bonferroni procedure*), a fixed sequence with
several starts as in Learn then Test (Angelopoulos et al. 2021, section 2.3): the starting points share the allowed
error probability; a threshold that passes hands its share to the next, one that fails loses it. A wrong threshold can
pass only if it is the first wrong one or at a later start, and the shares add up to `1 - confidence`.

The thresholds are the ranks of the rows: the most confident m rows, for growing m. Given the number of rows above the
last good threshold, the errors among the first m beyond it are at least Binomial(m, alpha), provided that errors do not
become rarer as confidence falls below it. All rows are used.

Rows must be drawn independently from what the student will see, and probabilities must be out of fold: from a
calibration that did not see the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_pld.artifact import Gate
from langchain_pld.errors import InputError, MissingExtraError

try:
    import numpy as np
    import numpy.typing as npt
    from scipy import stats
except ImportError as error:
    raise MissingExtraError.of("scipy", "distill") from error

__all__ = ["LABEL_ROWS", "MINIMUM_ROWS", "fit_gate"]

MINIMUM_ROWS = 50
"""Fewer independent labelled rows than this are refused."""

LABEL_ROWS = 100
"""A label predicted for at least this many rows gets a threshold of its own."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def fit_gate(
    probabilities: Sequence[Mapping[str, float] | None],
    gold: Sequence[str],
    labels: Sequence[str],
    *,
    alpha: float,
    confidence: float = 0.9,
    groups: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Gate:
    """Fit the lowest threshold that keeps the risk.

    If at least two labels are predicted for `LABEL_ROWS` rows each, they get thresholds of their own and the others
    share one. The allowed error probability is then divided, so that all hold together, each for its label.

    Args:
        probabilities: Out-of-fold probabilities of each row, n; `None` if the answer failed.
        gold: Gold labels, n.
        labels: The declared labels.
        alpha: Highest share of wrong labels among decided inputs, between 0 and 1.
        confidence: Probability, over the draw of the rows, that the risk is kept.
        groups: Group of each row. Rows of a group are not independent, so only one, drawn at random, is used.
        seed: Seed of that draw.

    Returns:
        The gate; its threshold is `None`, and it always abstains, if no threshold passes.

    Raises:
        InputError: There are fewer than `MINIMUM_ROWS` independent rows.
    """
    kept = _independent(groups, len(gold), np.random.default_rng(seed))
    if len(kept) < MINIMUM_ROWS:
        what = "labelled rows" if len(kept) == len(gold) else f"groups of labelled rows ({len(gold)} rows)"
        msg = f"a gate needs at least {MINIMUM_ROWS} {what}, got {len(kept)}; add validation rows, or go without a gate"
        raise InputError(msg)
    read = [index for index in kept if probabilities[index] is not None]
    rows = [row for row in (probabilities[index] for index in read) if row is not None]
    predicted = [max(row, key=row.__getitem__) for row in rows]
    # Saturated probabilities differ only by rounding noise, so they are tied.
    sure = np.floor(np.array([max(row.values()) for row in rows], dtype=float) * 1e6) / 1e6
    wrong = np.array([label != gold[index] for label, index in zip(predicted, read, strict=True)], dtype=bool)

    own = [label for label in labels if predicted.count(label) >= LABEL_ROWS]
    others = np.array([label not in own for label in predicted], dtype=bool)
    # Labels too rare for a threshold of their own must still get one together with the others.
    if len(own) < 2 or (len(own) < len(labels) and others.sum() < LABEL_ROWS):
        own, others = [], np.ones(len(predicted), dtype=bool)
    strata = len(own) + (len(own) < len(labels))
    delta = (1 - confidence) / strata

    def lowest(rows: Mask) -> float | None:
        return _lowest_threshold(sure[rows], wrong[rows], alpha, delta)

    own_thresholds = {label: lowest(np.array([one == label for one in predicted], dtype=bool)) for label in own}
    if len(own) < len(labels):
        threshold = lowest(others)
    else:
        threshold = max((value for value in own_thresholds.values() if value is not None), default=None)
    gate = Gate(
        alpha=alpha,
        confidence=confidence,
        threshold=threshold,
        label_thresholds=own_thresholds,
        rows=len(kept),
    )
    decided = np.array([gate.admits(label, float(p)) for label, p in zip(predicted, sure, strict=True)], dtype=bool)
    return gate.model_copy(
        update={
            "coverage": float(decided.sum()) / len(kept),
            "observed_risk": float(wrong[decided].mean()) if decided.any() else None,
        }
    )


def _lowest_threshold(sure: Array, wrong: Mask, alpha: float, delta: float) -> float | None:
    if not len(sure):
        return None
    order = np.argsort(-sure, kind="stable")
    thresholds = sure[order]
    # Rows at or above each threshold, and errors among them; tied rows are decided together.
    decided = np.searchsorted(-thresholds, -thresholds, side="right")
    errors = np.concatenate([[0], np.cumsum(wrong[order])])[decided]
    passed = _passed(np.asarray(stats.binom.cdf(errors, decided, alpha)), _shares(len(thresholds), alpha, delta))
    return float(thresholds[passed]) if passed is not None else None


def _passed(tails: Array, shares: Array) -> int | None:
    """Index of the last threshold that the fallback procedure passes."""
    last, level = None, 0.0
    for index, (tail, share) in enumerate(zip(tails, shares, strict=True)):
        level += share
        if level > 0 and tail <= level:
            last = index
        else:
            level = 0.0
    return last


def _shares(ranks: int, alpha: float, delta: float) -> Array:
    """The error probability that each rank starts with: equal parts at up to three ranks, each twice the one before.

    The first start is the lowest rank that passes with one error, so that one early error is not the end; with too few
    rows, the lowest that passes with none. More starts forgive more early errors but need more rows, so the last must
    lie in the first half. All this depends only on the number of rows.
    """
    shares = np.zeros(ranks)
    candidates = np.arange(1, ranks + 1)
    for starts, errors in ((3, 1), (2, 1), (1, 1), (1, 0)):
        passing = np.flatnonzero(stats.binom.cdf(errors, candidates, alpha) <= delta / starts)
        if not len(passing):
            continue
        positions = [int(candidates[passing[0]]) * 2**step for step in range(starts)]
        if starts == 1 or 2 * positions[-1] <= ranks:
            shares[np.array(positions) - 1] = delta / starts
            break
    return shares


def _independent(groups: Sequence[str | None] | None, rows: int, rng: np.random.Generator) -> list[int]:
    """One row of each group, drawn at random; a row without a group stands for itself."""
    if groups is None:
        return list(range(rows))
    chosen: dict[object, int] = {}
    for index in map(int, rng.permutation(rows)):
        group = groups[index]
        chosen.setdefault(index if group is None else group, index)
    return sorted(chosen.values())
