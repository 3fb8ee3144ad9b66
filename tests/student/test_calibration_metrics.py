"""Calibration metrics against numbers worked out by hand."""

import math

import numpy as np
import pytest

from langchain_pld.student.calibration_metrics import brier_score, expected_calibration_error, log_loss

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
