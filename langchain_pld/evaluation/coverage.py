"""How much of a set of rows can be decided at a given error rate: selective classification's risk and coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langchain_pld.errors import InputError

__all__ = ["coverage_at_risk"]


def coverage_at_risk(probabilities: Sequence[Mapping[str, float] | None], gold: Sequence[str], risk: float) -> float:
    """The largest share of rows, most confident first, whose error rate is at most `risk`.

    A description of these very rows (El-Yaniv & Wiener 2010), chosen with their labels in view: for a promise about
    new rows, fit a gate.

    Args:
        probabilities: Label to probability of each row, n; a failed row, `None`, is never decided but counts in n.
        gold: Gold labels, n.
        risk: Highest share of wrong labels among the decided rows, 0 to 1.

    Returns:
        Share of the n rows, 0 to 1. Rows with the same confidence are decided together.

    Raises:
        InputError: No rows, or the lengths differ.
    """
    if not gold or len(probabilities) != len(gold):
        msg = f"coverage needs one probability row for each gold label, got {len(probabilities)} for {len(gold)}"
        raise InputError(msg)
    tops = [
        (max(row.values()), max(row, key=row.__getitem__) != label)
        for row, label in zip(probabilities, gold, strict=True)
        if row is not None
    ]
    if not tops:
        return 0.0
    sure, wrong = np.array([p for p, _ in tops]), np.array([error for _, error in tops])
    order = np.argsort(-sure, kind="stable")
    sure, errors = sure[order], np.cumsum(wrong[order])
    ends = np.append(sure[1:] < sure[:-1], True)
    decided = np.arange(1, len(sure) + 1)
    fits = decided[ends & (errors <= risk * decided + 1e-9)]
    return float(fits.max(initial=0)) / len(gold)
