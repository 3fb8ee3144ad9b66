"""How trustworthy probabilities are: log loss, Brier score and expected calibration error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "brier_score", "expected_calibration_error", "log_loss"]

BINS = 10
"""Number of equal-sized bins of the expected calibration error."""

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def log_loss(probabilities: Array, gold: Indices) -> float:
    """Mean negative log-probability of the gold label in nats; probabilities are n x k, gold holds n label indices."""
    picked = probabilities[np.arange(len(gold)), gold]
    return float(-np.log(np.clip(picked, 1e-12, 1.0)).mean())


def brier_score(probabilities: Array, gold: Indices) -> float:
    """Mean squared distance to the one-hot gold label, 0 to 2 (Brier 1950, several categories)."""
    target = np.eye(probabilities.shape[1])[gold]
    return float(((probabilities - target) ** 2).sum(axis=1).mean())


def expected_calibration_error(probabilities: Array, gold: Indices, *, bins: int = BINS) -> float:
    """Expected calibration error of the top label with adaptive binning (Nixon et al. 2019), 0 to 1.

    Rows are sorted by top probability and cut into `bins` groups of nearly equal size; the error is the mean over rows
    of the distance between their bin's mean confidence and its accuracy.
    """
    confidence = probabilities.max(axis=1)
    hits = (probabilities.argmax(axis=1) == gold).astype(float)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(abs(confidence[part].mean() - hits[part].mean()) * len(part) for part in parts) / len(order))
