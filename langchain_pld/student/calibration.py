"""Calibration: from the student's label scores to probabilities that can be believed.

A small student leans on some answer words whatever the text says. All methods here are affine maps of its label
log-probabilities; the one with the lowest cross-validated log loss is kept:

- none: the scores as they are;
- contextual: subtract the scores of a content-free input (Zhao et al. 2021, Calibrate Before Use);
- batch: subtract the mean scores of the rows, which needs no labels (Zhou et al. 2024, Batch Calibration);
- affine: multinomial logistic regression on the scores, L2-regularised (Platt scaling for several classes; matrix
  scaling in Guo et al. 2017).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from langchain_pld.artifact import Calibration, CalibrationMethod
from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MINIMUM_ROWS", "CalibrationFit", "fit_calibration"]

MINIMUM_ROWS = 50
"""Fewer labelled rows than this are refused: their fit would be noise."""

_FOLDS = 5
_STRENGTHS = (0.02, 0.1, 0.5)
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class CalibrationFit(BaseModel):
    """The chosen calibration and what the choice rests on; all figures are out of fold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: Calibration
    """Fitted on all rows."""
    log_loss: dict[str, float]
    """Method to cross-validated log loss, nats."""
    out_of_fold: tuple[dict[str, float], ...]
    """Probabilities of each row by a fit that did not see it, in row order."""
    warnings: tuple[str, ...] = ()
    """What a user should know, e.g. a skewed prior."""


def fit_calibration(
    scores: Sequence[Mapping[str, float]],
    gold: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Sequence[str | None] | None = None,
    content_free: Mapping[str, float] | None = None,
    methods: Sequence[CalibrationMethod] | None = None,
    seed: int = 0,
) -> CalibrationFit:
    """Choose and fit a calibration.

    Args:
        scores: Label log-probabilities of each row, n.
        gold: Gold labels, n.
        labels: The declared labels, k.
        groups: Group of each row; a group is never in two folds.
        content_free: Scores of an input without content; without them `contextual` is no candidate.
        methods: The candidates; all that can be fitted when absent.
        seed: Seed of the folds.

    Raises:
        InputError: Fewer than `MINIMUM_ROWS` rows.
    """
    if len(scores) < MINIMUM_ROWS:
        msg = (
            f"calibration needs at least {MINIMUM_ROWS} labelled rows with a readable answer, got {len(scores)}; "
            "add validation rows, or use the raw scores"
        )
        raise InputError(msg)
    names = tuple(labels)
    x = np.array([[row[name] for name in names] for row in scores], dtype=float)
    y = np.array([names.index(label) for label in gold])
    free = None if content_free is None else np.array([content_free[name] for name in names])
    fitters = _fitters(len(names), free)
    candidates = [method for method in methods or tuple(fitters) if method in fitters]
    folds = _folds(y, groups, seed)
    held_out = {method: _cross_validated(fitters[method], x, y, folds) for method in candidates}
    losses = {method: _log_loss(out, y) for method, out in held_out.items()}
    best = min(candidates, key=lambda method: losses[method])
    weights, bias = fitters[best](x, y)
    return CalibrationFit(
        calibration=Calibration(
            method=best,
            labels=names,
            weights=None if best != "affine" else tuple(tuple(map(float, row)) for row in weights),
            bias=None if best == "none" else tuple(map(float, bias)),
            rows=len(y),
        ),
        log_loss=losses,
        out_of_fold=tuple(dict(zip(names, map(float, row), strict=True)) for row in held_out[best]),
        warnings=_prior_warnings(y, names),
    )


def _fitters(size: int, free: Array | None) -> dict[CalibrationMethod, Callable[[Array, Indices], tuple[Array, Array]]]:
    """Method to a function from rows and gold to (W, b)."""
    same = np.eye(size)
    fitters: dict[CalibrationMethod, Callable[[Array, Indices], tuple[Array, Array]]] = {
        "none": lambda _x, _y: (same, np.zeros(size)),
        "batch": lambda x, _y: (same, -x.mean(axis=0)),
        "affine": _fit_affine,
    }
    if free is not None:
        fitters["contextual"] = lambda _x, _y: (same, -free)
    return fitters


def _fit_affine(x: Array, y: Indices) -> tuple[Array, Array]:
    """Multinomial logistic regression; its strength of regularisation by an inner cross-validation."""
    size = x.shape[1]
    folds = _folds(y, None, 0)
    losses = []
    for strength in _STRENGTHS:
        out = np.zeros((len(y), size))
        for train, test in folds:
            out[test] = _probabilities(*_regression(x[train], y[train], strength), x[test])
        losses.append(_log_loss(out, y))
    return _regression(x, y, _STRENGTHS[int(np.argmin(losses))])


def _regression(x: Array, y: Indices, strength: float) -> tuple[Array, Array]:
    size = x.shape[1]
    present = np.unique(y)
    weights, bias = (
        np.zeros((size, size)),
        np.full(size, -10.0),
    )  # a label without rows: very unlikely, never impossible
    if len(present) == 1:
        bias[present[0]] = 0.0
        return weights, bias
    # Centred, so that the penalty does not pull on the student's habitual leaning: the intercept absorbs that.
    centre = x.mean(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=strength, max_iter=1000).fit(x - centre, y)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # sklearn gives one row for two classes
        coefficients = np.vstack([-coefficients[0] / 2, coefficients[0] / 2])
        intercepts = np.array([-intercepts[0] / 2, intercepts[0] / 2])
    weights[present] = coefficients
    bias[present] = intercepts - coefficients @ centre
    return weights, bias


def _probabilities(weights: Array, bias: Array, x: Array) -> Array:
    scores = x @ weights.T + bias
    scores -= scores.max(axis=1, keepdims=True)
    exps = np.exp(scores)
    return np.asarray(exps / exps.sum(axis=1, keepdims=True))


def _cross_validated(
    fit: Callable[[Array, Indices], tuple[Array, Array]], x: Array, y: Indices, folds: list[tuple[Indices, Indices]]
) -> Array:
    out = np.zeros_like(x)
    for train, test in folds:
        out[test] = _probabilities(*fit(x[train], y[train]), x[test])
    return out


def _folds(y: Indices, groups: Sequence[str | None] | None, seed: int) -> list[tuple[Indices, Indices]]:
    keys = [f"row {i}" if groups is None or groups[i] is None else f"group {groups[i]}" for i in range(len(y))]
    distinct = len(set(keys))
    grouped = _FOLDS <= distinct < len(y)
    # Stratifying needs one label at least with a row for each fold.
    stratified = np.bincount(y).max() >= _FOLDS
    kind = {
        (True, True): StratifiedGroupKFold,
        (False, True): StratifiedKFold,
        (True, False): GroupKFold,
        (False, False): KFold,
    }[grouped, stratified]
    splitter = kind(n_splits=_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label with fewer rows than folds is warned about: it cannot be in each fold, which is fine here.
        warnings.simplefilter("ignore")
        return list(splitter.split(np.zeros(len(y)), y, keys))


def _log_loss(probabilities: Array, y: Indices) -> float:
    return float(-np.log(np.clip(probabilities[np.arange(len(y)), y], 1e-12, 1.0)).mean())


def _prior_warnings(y: Indices, names: tuple[str, ...]) -> tuple[str, ...]:
    counts = np.bincount(y, minlength=len(names))
    notes = [
        f"label {name!r} has {count} of {len(y)} calibration rows: its probabilities are hardly supported"
        for name, count in zip(names, counts, strict=True)
        if count < 5
    ]
    if counts.max() > 0.8 * len(y):
        notes.append(
            f"{counts.max() / len(y):.0%} of the calibration rows have label {names[int(counts.argmax())]!r}: "
            "calibrated probabilities follow that prior"
        )
    return tuple(notes)
