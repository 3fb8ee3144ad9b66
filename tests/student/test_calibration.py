"""Calibration chooses sensibly, out of fold."""

import math
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from langchain_pld import Label, Task
from langchain_pld.errors import InputError
from langchain_pld.student.calibration import CalibrationFit, content_free_inputs, fit_calibration
from langchain_pld.student.calibration_metrics import brier_score, expected_calibration_error

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
    fit = fit_calibration(scores, gold, LABELS, content_free=[dict(zip(LABELS, shift, strict=True))])
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


def test_few_rows_and_many_labels_get_one_scale_and_a_bias_each() -> None:
    labels, rng = [f"l{i}" for i in range(9)], np.random.default_rng(0)
    logits = rng.normal(scale=1.7, size=(60, 9))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = [int(rng.choice(9, p=row)) for row in true]
    raw = logits * 2.5 + rng.normal(scale=2, size=9)
    raw -= np.log(np.exp(raw).sum(axis=1, keepdims=True))
    fit = fit_calibration(
        [dict(zip(labels, map(float, row), strict=True)) for row in raw], [labels[i] for i in gold], labels
    )
    weights = np.array(fit.calibration.weights)
    assert np.allclose(weights, weights[0, 0] * np.eye(9))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrix = cross_val_predict(LogisticRegression(C=0.1), raw, gold, cv=folds, method="predict_proba")
    full_matrix = -np.log(matrix[np.arange(60), gold]).mean()
    assert fit.log_loss["affine"] < full_matrix - 0.1
    assert fit.log_loss["affine"] < fit.log_loss["none"] - 0.5


def test_the_fit_says_what_it_gained_out_of_fold() -> None:
    scores, gold = drawn((4.0, 0, 0), scale=3.0)
    fit = fit_calibration(scores, gold, LABELS)
    truth = np.array([LABELS.index(label) for label in gold])
    raw = np.exp([[row[label] for label in LABELS] for row in scores])
    after = np.array([[row[label] for label in LABELS] for row in fit.out_of_fold])
    assert fit.before.ece == pytest.approx(expected_calibration_error(raw, truth))
    assert fit.after.ece == pytest.approx(expected_calibration_error(after, truth))
    assert fit.before.brier == pytest.approx(brier_score(raw, truth))
    assert fit.after.brier == pytest.approx(brier_score(after, truth))
    assert (fit.before.log_loss, fit.after.log_loss) == (fit.log_loss["none"], min(fit.log_loss.values()))
    assert fit.after.ece < fit.before.ece / 2
    assert fit.after.brier < fit.before.brier
    assert f"log loss {fit.before.log_loss:.3f} to {fit.after.log_loss:.3f}" in fit.describe()


def test_contextual_calibration_needs_content_free_scores() -> None:
    scores, gold = drawn(rows=60)
    with pytest.raises(InputError, match=r"scores of content_free_inputs\(task\)"):
        fit_calibration(scores, gold, LABELS, methods=("contextual",))


def test_scores_of_content_free_inputs_are_averaged_as_probabilities() -> None:
    scores, gold = drawn(rows=60)
    free = [{"a": math.log(p), "b": math.log(q), "c": math.log(1 - p - q)} for p, q in ((0.8, 0.1), (0.4, 0.3))]
    fit = fit_calibration(scores, gold, LABELS, methods=("contextual",), content_free=free)
    assert np.exp(fit.calibration.bias or ()) == pytest.approx([1 / 0.6, 1 / 0.2, 1 / 0.2])


def test_content_free_inputs_fit_the_task() -> None:
    labels = [Label(name="a"), Label(name="b")]
    for task in (
        Task(name="plain", instructions="Decide.", labels=labels),
        Task(name="parts", instructions="Decide.", labels=labels, fields=["premise", "claim"]),
    ):
        inputs = content_free_inputs(task)
        assert len({task.render(value) for value in inputs}) == 3


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_few_groups_are_never_split(count: int) -> None:
    scores, gold = drawn(rows=120)
    groups = [f"g{i % count}" for i in range(120)]
    fit = fit_calibration(scores, gold, LABELS, methods=("batch",), groups=groups)
    # A row's batch calibration is the mean of the other groups: the same shift for all rows of its group.
    shifts = {
        (group, round(math.log(row["a"] / row["b"]) - raw["a"] + raw["b"], 9))
        for row, raw, group in zip(fit.out_of_fold, scores, groups, strict=True)
    }
    assert len(shifts) == count
    assert fit.warnings == ()


def test_one_group_alone_warns() -> None:
    scores, gold = drawn(rows=60)
    fit = fit_calibration(scores, gold, LABELS, groups=["g"] * 60)
    assert any("all calibration rows belong to one group" in note for note in fit.warnings)
