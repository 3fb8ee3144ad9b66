"""Calibration: from the student's label scores to trustworthy probabilities.

A small student favours some answer words whatever the text says. All methods are affine maps of its label
log-probabilities; the one with the lowest cross-validated log loss wins:

- none: the scores as they are;
- contextual: subtract the scores of content-free inputs (Zhao et al. 2021, Calibrate Before Use);
- batch: subtract the mean scores of the rows, which needs no labels (Zhou et al. 2024, Batch Calibration);
- affine: fitted to the labels with L2 regularisation, in the form that an inner cross-validation prefers: one scale for
  all labels and a bias for each (bias-corrected temperature scaling, Alexandari et al. 2020), which is all that a few
  rows per label can support, or a full matrix (matrix scaling in Guo et al. 2017).

A group is never split over two folds, inner folds included. With two to four groups there is one fold per group; with
one group, rows are split as if independent, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pydantic import BaseModel, ConfigDict

from langchain_pld.artifact import Calibration, CalibrationMethod
from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.task import Task, TaskInput

try:
    import numpy as np
    import numpy.typing as npt
    from scipy import optimize
    from scipy.special import log_softmax
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from langchain_pld.student.calibration_metrics import brier_score, expected_calibration_error, log_loss
except ImportError as error:
    raise MissingExtraError.of("scikit-learn", "distill") from error

__all__ = ["MINIMUM_ROWS", "CalibrationFit", "content_free_inputs", "fit_calibration"]

MINIMUM_ROWS = 50
"""Fewer labelled rows than this are refused: their fit would be noise."""

_FOLDS = 5
_INNER_FOLDS = 3
_MATRIX_STRENGTHS = (0.02, 0.1, 0.5)
_BIAS_PENALTIES = (0.3, 3.0)
# Zhao et al. use "N/A", "[MASK]" and the empty text, but no task accepts an empty text.
_CONTENT_FREE = ("N/A", "[MASK]", "...")
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Groups = Sequence[str | None] | None
Fitter = Callable[[Array, Indices, Groups], tuple[Array, Array]]


class Reliability(BaseModel):
    """How trustworthy probabilities are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_loss: float
    """Nats."""
    brier: float
    """Brier score, 0 to 2."""
    ece: float
    """Expected calibration error of the top label in 10 bins of equal size, 0 to 1."""


class CalibrationFit(BaseModel):
    """The chosen calibration and the figures behind the choice, all out of fold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: Calibration
    """Fitted on all rows."""
    log_loss: dict[str, float]
    """Method to cross-validated log loss, nats."""
    out_of_fold: tuple[dict[str, float], ...]
    """Probabilities of each row from a fit that did not see it, in row order."""
    before: Reliability
    """Of the raw scores."""
    after: Reliability
    """Of the calibrated probabilities."""
    warnings: tuple[str, ...] = ()
    """Warnings for the user, e.g. about a skewed prior."""

    def describe(self) -> str:
        """The choice and its effect, in one line."""
        before, after = self.before, self.after
        return (
            f"calibration {self.calibration.method}, out of fold on {len(self.out_of_fold)} rows: "
            f"log loss {before.log_loss:.3f} to {after.log_loss:.3f}, Brier score {before.brier:.3f} to "
            f"{after.brier:.3f}, ECE {before.ece:.3f} to {after.ece:.3f}"
        )


def content_free_inputs(task: Task) -> tuple[TaskInput, ...]:
    """Inputs without content, whose scores `contextual` subtracts; a task with fields gets the same filler in each."""
    if task.fields:
        return tuple(dict.fromkeys(task.fields, filler) for filler in _CONTENT_FREE)
    return _CONTENT_FREE


def fit_calibration(
    scores: Sequence[Mapping[str, float]],
    gold: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Groups = None,
    content_free: Sequence[Mapping[str, float]] | None = None,
    methods: Sequence[CalibrationMethod] | None = None,
    seed: int = 0,
) -> CalibrationFit:
    """Choose and fit a calibration.

    Args:
        scores: Label log-probabilities of each row, n.
        gold: Gold labels, n.
        labels: The declared labels, k.
        groups: Group of each row; a group is never in two folds.
        content_free: Label log-probabilities of `content_free_inputs`, which `contextual` needs; their probabilities
            are averaged.
        methods: The candidates; by default all that can be fitted.
        seed: Seed of the folds.

    Raises:
        InputError: There are fewer than `MINIMUM_ROWS` rows, or `contextual` is requested without `content_free`.
    """
    if len(scores) < MINIMUM_ROWS:
        msg = (
            f"calibration needs at least {MINIMUM_ROWS} labelled rows with a readable answer, got {len(scores)}; "
            "add validation rows, or use the raw scores"
        )
        raise InputError(msg)
    if methods is not None and "contextual" in methods and not content_free:
        msg = (
            "contextual calibration needs content_free, the student's scores of content_free_inputs(task); "
            "pass them, or leave 'contextual' out of methods"
        )
        raise InputError(msg)
    names = tuple(labels)
    x = np.array([[row[name] for name in names] for row in scores], dtype=float)
    y = np.array([names.index(label) for label in gold])
    fitters = _fitters(len(names), _mean_scores(content_free, names) if content_free else None)
    candidates = tuple(methods or fitters)
    folds = _folds(y, groups, seed)
    # Matrices this small gain nothing from threads; on busy cores, waiting for them takes twenty times longer.
    with threadpool_limits(limits=1):
        held_out = {method: _cross_validated(fitters[method], x, y, groups, folds) for method in candidates}
        losses = {method: log_loss(out, y) for method, out in held_out.items()}
        best = min(candidates, key=lambda method: losses[method])
        weights, bias = fitters[best](x, y, groups)
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
        before=_reliability(_softmax(x), y),
        after=_reliability(held_out[best], y),
        warnings=(*_group_warnings(groups), *_prior_warnings(y, names)),
    )


def _reliability(probabilities: Array, y: Indices) -> Reliability:
    return Reliability(
        log_loss=log_loss(probabilities, y),
        brier=brier_score(probabilities, y),
        ece=expected_calibration_error(probabilities, y),
    )


def _fitters(size: int, free: Array | None) -> dict[CalibrationMethod, Fitter]:
    """Method to a function from rows, gold and groups to (W, b)."""
    same = np.eye(size)
    fitters: dict[CalibrationMethod, Fitter] = {
        "none": lambda _x, _y, _groups: (same, np.zeros(size)),
        "batch": lambda x, _y, _groups: (same, -x.mean(axis=0)),
        "affine": _fit_affine,
    }
    if free is not None:
        fitters["contextual"] = lambda _x, _y, _groups: (same, -free)
    return fitters


def _mean_scores(content_free: Sequence[Mapping[str, float]], names: tuple[str, ...]) -> Array:
    shares = _softmax(np.array([[row[name] for name in names] for row in content_free], dtype=float))
    return np.asarray(np.log(np.clip(shares.mean(axis=0), 1e-12, 1.0)))


def _fit_affine(x: Array, y: Indices, groups: Groups) -> tuple[Array, Array]:
    """Choose scale and biases or a full matrix, and the regularisation, by an inner cross-validation."""
    fits: list[Callable[[Array, Indices], tuple[Array, Array]]] = [
        partial(_scale_and_bias, penalty=penalty) for penalty in _BIAS_PENALTIES
    ]
    # With fewer rows than twice its entries, a matrix only costs time.
    if len(y) >= 2 * x.shape[1] ** 2:
        fits += [partial(_matrix, strength=strength) for strength in _MATRIX_STRENGTHS]
    folds = _folds(y, groups, 0, count=_INNER_FOLDS)
    losses = []
    for fit in fits:
        out = np.zeros_like(x)
        for train, test in folds:
            out[test] = _probabilities(*fit(x[train], y[train]), x[test])
        losses.append(log_loss(out, y))
    return fits[int(np.argmin(losses))](x, y)


def _scale_and_bias(x: Array, y: Indices, *, penalty: float) -> tuple[Array, Array]:
    """Minimise the summed log loss of softmax(s * x + b) plus penalty / 2 * (|c|^2 + s^2 / 10), s >= 0.

    The biases are b = c - s * mean(x): as in `_matrix`, the student's bias is removed before the penalty. Convex; the
    gradient is exact. The penalty keeps the scale finite on perfectly separable rows. A label without rows becomes very
    unlikely, never impossible.
    """
    size = x.shape[1]
    present = np.unique(y)
    centre = x.mean(axis=0)
    centred = (x - centre)[:, present]
    target = (y[:, None] == present).astype(float)

    def loss(parameters: Array) -> tuple[float, Array]:
        scale, offsets = parameters[0], parameters[1:]
        logs = log_softmax(scale * centred + offsets, axis=1)
        residual = np.exp(logs) - target
        value = -(logs * target).sum() + penalty / 2 * ((offsets**2).sum() + scale**2 / 10)
        gradient = np.concatenate(
            [[(residual * centred).sum() + penalty * scale / 10], residual.sum(axis=0) + penalty * offsets]
        )
        return float(value), gradient

    start = np.concatenate([[0.5], np.zeros(len(present))])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, 20), *[(-30, 30)] * len(present)])
    scale, offsets = found.x[0], found.x[1:]
    weights, bias = np.zeros((size, size)), np.zeros(size)
    weights[present, present] = scale
    bias[present] = offsets - scale * centre[present]
    absent = np.setdiff1d(np.arange(size), present)
    # Ten nats below the lowest score of a most probable label.
    bias[absent] = (scale * x[:, present] + bias[present]).max(axis=1).min() - 10.0
    return weights, bias


def _matrix(x: Array, y: Indices, *, strength: float) -> tuple[Array, Array]:
    """Multinomial logistic regression on the scores."""
    size = x.shape[1]
    present = np.unique(y)
    weights = np.zeros((size, size))
    bias = np.full(size, -10.0)  # a label without rows: very unlikely, never impossible
    if len(present) == 1:
        bias[present[0]] = 0.0
        return weights, bias
    # Centred so that the penalty leaves the student's bias alone: the intercept absorbs it.
    centre = x.mean(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(x - centre, y)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # sklearn returns one row for two classes
        coefficients = np.vstack([-coefficients[0] / 2, coefficients[0] / 2])
        intercepts = np.array([-intercepts[0] / 2, intercepts[0] / 2])
    weights[present] = coefficients
    bias[present] = intercepts - coefficients @ centre
    return weights, bias


def _probabilities(weights: Array, bias: Array, x: Array) -> Array:
    return _softmax(x @ weights.T + bias)


def _softmax(scores: Array) -> Array:
    return np.asarray(np.exp(log_softmax(scores, axis=1)))


def _cross_validated(fit: Fitter, x: Array, y: Indices, groups: Groups, folds: list[tuple[Indices, Indices]]) -> Array:
    out = np.zeros_like(x)
    for train, test in folds:
        inner = None if groups is None else [groups[index] for index in train]
        out[test] = _probabilities(*fit(x[train], y[train], inner), x[test])
    return out


def _folds(y: Indices, groups: Groups, seed: int, *, count: int = _FOLDS) -> list[tuple[Indices, Indices]]:
    keys = _keys(groups, len(y))
    distinct = len(set(keys))
    grouped = 2 <= distinct < len(y)
    count = min(count, distinct) if grouped else count
    # Stratifying needs at least one label with a row for each fold.
    stratified = np.bincount(y).max() >= count
    kind = {
        (True, True): StratifiedGroupKFold,
        (False, True): StratifiedKFold,
        (True, False): GroupKFold,
        (False, False): KFold,
    }[grouped, stratified]
    splitter = kind(n_splits=count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns about labels with fewer rows than folds, which is fine here.
        warnings.simplefilter("ignore")
        return [(train, test) for train, test in splitter.split(np.zeros(len(y)), y, keys) if len(train) and len(test)]


def _keys(groups: Groups, rows: int) -> list[str]:
    return [f"row {i}" if groups is None or groups[i] is None else f"group {groups[i]}" for i in range(rows)]


def _group_warnings(groups: Groups) -> tuple[str, ...]:
    if groups is None or len(set(_keys(groups, len(groups)))) > 1:
        return ()
    return ("all calibration rows belong to one group: the out-of-fold figures may be too good",)


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
