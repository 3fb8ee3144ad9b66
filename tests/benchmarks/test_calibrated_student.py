"""The figures of the benchmark of calibration."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_pld.student.calibration_metrics import expected_calibration_error
from tests.benchmarks.calibrated_student import consistent_error, coverage, measure
from tests.distillation.scenarios import TASK, rows
from tests.fakes import FakeChatModel, scored, text_of
from tests.teams import jsonl


def test_coverage_at_a_risk_by_hand() -> None:
    probabilities: list[dict[str, float] | None] = [{"no": 1 - p, "yes": p} for p in (0.99, 0.9, 0.8, 0.7, 0.6)]
    gold = ["yes", "yes", "no", "yes", "no"]
    assert coverage(probabilities, gold, 0.0) == pytest.approx(2 / 5)
    assert coverage(probabilities, gold, 0.25) == pytest.approx(4 / 5)
    assert coverage(probabilities, gold, 0.4) == 1
    assert coverage([*probabilities, None], [*gold, "no"], 1.0) == pytest.approx(5 / 6)
    assert coverage([None], ["yes"], 0.5) == 0
    tied: list[dict[str, float] | None] = [{"no": 0.1, "yes": 0.9}] * 4
    assert coverage(tied, ["yes", "yes", "yes", "no"], 0.1) == 0


def test_exactly_right_probabilities_still_show_an_error_on_few_rows() -> None:
    few, many = (consistent_error(np.tile([0.8, 0.2], (rows, 1))) for rows in (100, 10_000))
    # One bin of n rows errs by sqrt(2 p q / (pi n)) in the mean.
    assert few[0] == pytest.approx(math.sqrt(2 * 0.8 * 0.2 / (math.pi * 10)), rel=0.1)
    assert few[0] < few[1] < 2 * few[0]
    assert many[0] < few[0] / 8
    assert consistent_error(np.eye(3)) == (0, 0)


def test_overconfident_probabilities_show_more_than_right_ones_would() -> None:
    rng = np.random.default_rng(0)
    overconfident, gold = np.tile([0.95, 0.05], (300, 1)), (rng.random(300) > 0.7).astype(int)
    assert expected_calibration_error(overconfident, gold) > consistent_error(overconfident)[1]


async def test_a_set_is_measured_raw_and_calibrated(tmp_path: Path) -> None:
    def biased(messages: list[Any]) -> Any:
        return scored(
            {"amber": 0.9, "violet": 0.1} if "invoice" in text_of(messages) else {"amber": 0.6, "violet": 0.4}
        )

    (tmp_path / "notes").mkdir()
    for role in ("validation", "test"):
        (tmp_path / "notes" / f"{role}.jsonl").write_text(jsonl(rows(role, 60)), encoding="utf-8")
    definition = {"instructions": TASK.instructions, "labels": dict.fromkeys(TASK.label_names, "")}
    model: Any = FakeChatModel(script=biased)
    raw, calibrated = await measure("notes", definition, tmp_path, model, argparse.Namespace(rows=60, seed=0))
    assert (raw["scores"], raw["method"], calibrated["scores"]) == ("raw", "none", "calibrated")
    assert raw["macro_f1"] < 0.5
    assert calibrated["macro_f1"] == calibrated["coverage_at_5%_risk"] == 1.0
