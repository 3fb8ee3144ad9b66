"""Metrics against scikit-learn and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from langchain_pld.evaluation.metrics import (
    Confusion,
    accuracy,
    brier_score,
    expected_calibration_error,
    log_loss,
    macro_f1,
    per_label_f1,
)
from langchain_pld.student.calibration_metrics import consistent_error

LABELS = ("a", "b", "c")
rows = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None]), st.sampled_from(["g", "h", None])),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(rows)
def test_f1_and_accuracy_equal_scikit_learn(drawn: list[tuple[str, str | None, str | None]]) -> None:
    gold, predicted, groups = (list(column) for column in zip(*drawn, strict=True))
    counts = Confusion([str(label) for label in gold], predicted, LABELS, groups).total
    said = [label or "failed" for label in predicted]
    assert macro_f1(counts) == pytest.approx(
        f1_score(gold, said, labels=list(LABELS), average="macro", zero_division=0)
    )
    assert per_label_f1(counts) == pytest.approx(
        f1_score(gold, said, labels=list(LABELS), average=None, zero_division=0)
    )
    assert accuracy(counts) == pytest.approx(accuracy_score(gold, said))


def test_a_failed_or_undeclared_answer_is_wrong() -> None:
    for answer in (None, "other"):
        counts = Confusion(["a", "a", "b", "b"], ["a", answer, "b", "b"], ("a", "b")).total
        assert accuracy(counts) == 0.75
        assert per_label_f1(counts) == pytest.approx([2 / 3, 1])


def test_a_declared_label_that_never_occurs_counts_zero() -> None:
    assert macro_f1(Confusion(["a", "b"], ["a", "b"], LABELS).total) == pytest.approx(2 / 3)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        Confusion(["a"], [], LABELS)


def test_whole_groups_make_the_interval_wider() -> None:
    gold = ["a"] * 200
    predicted = [["a", "b"][(i // 20) % 2] for i in range(200)]
    alone = Confusion(gold, predicted, LABELS).interval(accuracy)
    grouped = Confusion(gold, predicted, LABELS, [f"g{i // 20}" for i in range(200)]).interval(accuracy)
    assert alone.value == grouped.value == 0.5
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert alone.low < 0.5 < alone.high
    assert Confusion(gold, predicted, LABELS).interval(accuracy) == alone


def test_one_group_gives_no_spread() -> None:
    interval = Confusion(["a", "b"], ["a", "a"], LABELS, ["g", "g"]).interval(accuracy)
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


PROBABILITIES = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
GOLD = np.array([0, 1, 1, 0])


def test_log_loss_by_hand() -> None:
    assert log_loss(PROBABILITIES, GOLD) == pytest.approx(-math.log(0.8 * 0.4 * 0.7 * 0.9) / 4)
    assert log_loss(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-math.log(1e-12))


def test_brier_score_by_hand() -> None:
    assert brier_score(PROBABILITIES, GOLD) == pytest.approx(2 * (0.04 + 0.36 + 0.09 + 0.01) / 4)
    assert brier_score(np.array([[0.0, 1.0]]), np.array([0])) == 2


def test_calibration_error_by_hand() -> None:
    # Two bins: 0.6 (wrong) with 0.7 (right), 0.8 with 0.9 (both right).
    assert expected_calibration_error(PROBABILITIES, GOLD, bins=2) == pytest.approx((0.15 * 2 + 0.15 * 2) / 4)
    # A bin for each row.
    assert expected_calibration_error(PROBABILITIES, GOLD) == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0


def test_exactly_right_probabilities_still_show_an_error_on_few_rows() -> None:
    few, many = (consistent_error(np.tile([0.8, 0.2], (rows, 1))) for rows in (100, 10_000))
    # One bin of n rows errs by sqrt(2 p q / (pi n)) in the mean.
    assert few[0] == pytest.approx(math.sqrt(2 * 0.8 * 0.2 / (math.pi * 10)), rel=0.1)
    assert few[0] < few[1] < 2 * few[0]
    assert many[0] < few[0] / 8
    assert consistent_error(np.eye(3)) == (0, 0)


def test_probabilities_that_are_too_sure_show_more_than_right_ones_would() -> None:
    rng = np.random.default_rng(0)
    too_sure, gold = np.tile([0.95, 0.05], (300, 1)), (rng.random(300) > 0.7).astype(int)
    assert expected_calibration_error(too_sure, gold) > consistent_error(too_sure)[1]
