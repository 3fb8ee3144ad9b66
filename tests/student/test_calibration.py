"""Calibration chooses sensibly, out of fold."""

import math

import numpy as np
import pytest

from langchain_pld.errors import InputError
from langchain_pld.student.calibration import CalibrationFit, fit_calibration

LABELS = ("a", "b", "c")


def drawn(shift: tuple[float, ...] = (0, 0, 0), *, scale: float = 1.0, rows: int = 240, seed: int = 0):  # type: ignore[no-untyped-def]
    """Rows whose gold label is drawn from their true probabilities; the scores are those, shifted and scaled."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(rows, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = [LABELS[rng.choice(3, p=row)] for row in true]
    raw = logits * scale + np.array(shift)
    raw -= np.log(np.exp(raw).sum(axis=1, keepdims=True))
    return [dict(zip(LABELS, map(float, row), strict=True)) for row in raw], gold


def check(fit: CalibrationFit) -> None:
    for row in fit.out_of_fold:
        assert sum(row.values()) == pytest.approx(1)
    assert fit.log_loss[fit.calibration.method] == min(fit.log_loss.values())


def test_true_probabilities_are_left_nearly_alone() -> None:
    scores, gold = drawn()
    fit = fit_calibration(scores, gold, LABELS)
    check(fit)
    assert fit.log_loss[fit.calibration.method] == pytest.approx(fit.log_loss["none"], abs=0.02)


@pytest.mark.parametrize("shift", [(6.0, 0.0, 0.0), (0.0, -5.0, 3.0)])
def test_a_leaning_is_taken_out(shift: tuple[float, ...]) -> None:
    scores, gold = drawn(shift)
    fit = fit_calibration(scores, gold, LABELS, content_free=dict(zip(LABELS, shift, strict=True)))
    check(fit)
    assert fit.calibration.method != "none"
    assert set(fit.log_loss) == {"none", "contextual", "batch", "affine"}
    assert fit.log_loss[fit.calibration.method] < fit.log_loss["none"] - 0.5


def test_overconfident_scores_need_the_affine_map() -> None:
    scores, gold = drawn(scale=6.0)
    fit = fit_calibration(scores, gold, LABELS)
    check(fit)
    assert fit.calibration.method == "affine"
    assert fit.calibration.rows == 240
    in_sample = [fit.calibration.apply(row) for row in scores]
    assert list(fit.out_of_fold) != in_sample
    loss = -np.mean([math.log(row[label]) for row, label in zip(in_sample, gold, strict=True)])
    assert loss < fit.log_loss["affine"]


def test_fewer_than_fifty_rows_are_refused() -> None:
    scores, gold = drawn(rows=50)
    assert fit_calibration(scores, gold, LABELS).calibration.rows == 50
    with pytest.raises(InputError, match="at least 50 labelled rows with a readable answer, got 49"):
        fit_calibration(scores[:49], gold[:49], LABELS)


def test_a_skewed_prior_warns() -> None:
    scores, _ = drawn(rows=100)
    fit = fit_calibration(scores, ["a"] * 90 + ["b"] * 10, LABELS)
    assert any("90% of the calibration rows have label 'a'" in note for note in fit.warnings)
    assert any("label 'c' has 0 of 100" in note for note in fit.warnings)


@pytest.mark.parametrize("gold", [["a"] * 60, ["a", "b"] * 30])
def test_a_label_without_rows_is_unlikely_but_possible(gold: list[str]) -> None:
    scores, _ = drawn(rows=60)
    fit = fit_calibration(scores, gold, LABELS, methods=("affine",))
    check(fit)
    assert all(0 < fit.calibration.apply(row)["c"] < 0.01 for row in scores)


def test_many_labels_with_few_rows_each_can_be_fitted() -> None:
    labels = [f"l{i}" for i in range(15)]
    rng = np.random.default_rng(0)
    scores = [dict(zip(labels, map(float, row), strict=True)) for row in rng.normal(size=(60, 15))]
    check(fit_calibration(scores, labels * 4, labels))
    groups = [f"g{i // 2}" for i in range(60)]
    check(fit_calibration(scores, labels * 4, labels, groups=groups, methods=("none", "batch")))


def test_rows_of_a_group_share_a_fold() -> None:
    scores, gold = drawn((3.0, 0, 0), rows=100)
    alone = fit_calibration(scores, gold, LABELS, methods=("batch",))
    grouped = fit_calibration(scores, gold, LABELS, methods=("batch",), groups=[f"g{i // 10}" for i in range(100)])
    check(grouped)
    assert grouped.out_of_fold != alone.out_of_fold
    assert fit_calibration(scores, gold, LABELS, methods=("batch",)) == alone
