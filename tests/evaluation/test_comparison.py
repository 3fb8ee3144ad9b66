"""Paired comparison of two sets of predictions."""

import pytest

from langchain_pld.evaluation.comparison import compare

LABELS = ("a", "b")
GOLD = ["a", "b"] * 50
HALF = ["a"] * 100


def test_identical_predictions_differ_by_nothing() -> None:
    result = compare(GOLD, HALF, HALF, LABELS)
    assert (result.difference.low, result.difference.value, result.difference.high) == (0, 0, 0)
    assert (result.challenger_only, result.incumbent_only, result.mcnemar_p) == (0, 0, 1)
    assert not result.better
    assert not result.worse


def test_a_clear_gain_is_better_and_its_mirror_worse() -> None:
    gain = compare(GOLD, GOLD, HALF, LABELS)
    assert gain.better
    assert not gain.worse
    assert gain.difference.value == pytest.approx(1 - (2 / 3) / 2)
    assert (gain.challenger_only, gain.incumbent_only, gain.rows) == (50, 0, 100)
    assert gain.mcnemar_p == pytest.approx(2 * 0.5**50)
    loss = compare(GOLD, HALF, GOLD, LABELS)
    assert loss.worse
    assert not loss.better
    assert loss.difference.value == -gain.difference.value


def test_a_gain_on_one_row_is_not_called_better() -> None:
    result = compare(GOLD, ["a", "b", *GOLD[:98]], [None, *GOLD[1:]], LABELS)
    assert result.challenger_only == 1
    assert not result.better


def test_a_gain_within_one_of_few_groups_is_not_called_better() -> None:
    challenger = [*GOLD[:20], *HALF[20:]]
    assert compare(GOLD, challenger, HALF, LABELS).better
    assert not compare(GOLD, challenger, HALF, LABELS, [f"g{i // 20}" for i in range(100)]).better
