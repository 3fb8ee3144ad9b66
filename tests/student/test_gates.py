"""Gates: the risk that is promised is kept, over many draws of the rows that a gate is fitted on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from langchain_pld.artifact import Gate
from langchain_pld.errors import InputError
from langchain_pld.student.gates import fit_gate

LABELS = ("no", "yes")
ALPHA, CONFIDENCE, DRAWS = 0.1, 0.9, 200
Curve = Callable[[Any], Any]

# Confidence to error probability: calibrated, everywhere a little too high, and a sudden fall.
CURVES: dict[str, Curve] = {
    "calibrated": lambda sure: 1 - sure,
    "hopeless": lambda sure: 0.12 + 0 * sure,
    "steep": lambda sure: np.where(sure > 0.8, 0.04, 0.4),
}


def drawn(curve: Curve, rows: int, rng: np.random.Generator) -> tuple[list[dict[str, float]], list[str]]:
    """Rows with confidence spread evenly over 0.5 to 1, wrong as often as the curve says."""
    sure = rng.uniform(0.5, 1, rows)
    wrong = rng.random(rows) < curve(sure)
    return [{"no": float(1 - p), "yes": float(p)} for p in sure], ["no" if error else "yes" for error in wrong]


def true_risk(threshold: float, curve: Curve) -> float:
    return float(curve(np.linspace(threshold, 1, 2001)).mean())


def violations(fit: Callable[[list[dict[str, float]], list[str]], float | None], curve: Curve, rows: int) -> float:
    """Share of draws whose threshold does not keep the risk."""
    rng = np.random.default_rng(7)
    thresholds = [fit(*drawn(curve, rows, rng)) for _ in range(DRAWS)]
    return float(np.mean([t is not None and true_risk(t, curve) > ALPHA for t in thresholds]))


def gated(probabilities: list[dict[str, float]], gold: list[str]) -> float | None:
    return fit_gate(probabilities, gold, LABELS, alpha=ALPHA, confidence=CONFIDENCE).threshold


def naive(probabilities: list[dict[str, float]], gold: list[str]) -> float | None:
    """The lowest threshold whose observed risk is small enough."""
    rows = sorted(zip([row["yes"] for row in probabilities], gold, strict=True), reverse=True)
    errors = np.cumsum([label != "yes" for _, label in rows])
    fine = np.flatnonzero(errors <= ALPHA * np.arange(1, len(rows) + 1))
    return rows[fine[-1]][0] if len(fine) else None


# Three standard errors above 1 - confidence.
SLACK = 3 * (CONFIDENCE * (1 - CONFIDENCE) / DRAWS) ** 0.5


@pytest.mark.parametrize("rows", [100, 400])
@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_promised_risk_is_kept(curve: Curve, rows: int) -> None:
    assert violations(gated, curve, rows) <= 1 - CONFIDENCE + SLACK


@pytest.mark.parametrize("curve", [CURVES["calibrated"], CURVES["hopeless"], CURVES["steep"]], ids=CURVES)
def test_naive_selection_breaks_the_promise(curve: Curve) -> None:
    assert violations(naive, curve, 400) > 1 - CONFIDENCE + 3 * SLACK


def test_a_good_student_decides_much_of_it() -> None:
    rng = np.random.default_rng(3)
    gates = [fit_gate(*drawn(CURVES["steep"], 1000, rng), LABELS, alpha=ALPHA) for _ in range(10)]
    assert np.mean([gate.coverage for gate in gates]) >= 0.35
    assert all(gate.observed_risk is None or gate.observed_risk <= ALPHA for gate in gates)
    assert all(gate.rows == 1000 for gate in gates)


def test_coverage_and_risk_are_those_of_the_threshold() -> None:
    probabilities, gold = drawn(CURVES["steep"], 400, np.random.default_rng(1))
    gate = fit_gate([*probabilities, *[None] * 100], [*gold, *["no"] * 100], LABELS, alpha=ALPHA)
    decided = [
        label for row, label in zip(probabilities, gold, strict=True) if row["yes"] >= (gate.threshold or pytest.fail())
    ]
    assert gate.rows == 500
    assert gate.coverage == pytest.approx(len(decided) / 500)
    assert gate.observed_risk == pytest.approx(decided.count("no") / len(decided))


def test_when_nothing_passes_it_always_abstains() -> None:
    rng = np.random.default_rng(0)
    gate = fit_gate(*drawn(lambda sure: 0.5 + 0 * sure, 200, rng), LABELS, alpha=0.05)
    assert gate.threshold is None
    assert (gate.coverage, gate.observed_risk) == (0, None)
    assert not any(gate.admits(label, 1.0) for label in LABELS)
    assert not Gate(alpha=0.1, threshold=None).admits("yes", 1.0)


def test_a_gate_fitted_on_failed_answers_alone_abstains() -> None:
    assert fit_gate([None] * 60, ["yes"] * 60, LABELS, alpha=0.1).threshold is None


def test_tied_rows_are_decided_together() -> None:
    probabilities = [{"no": 0.1, "yes": 0.9}] * 60 + [{"no": 0.4, "yes": 0.6}] * 60
    gate = fit_gate(probabilities, ["yes"] * 60 + ["no"] * 60, LABELS, alpha=0.1)
    assert gate.threshold == 0.9
    assert gate.coverage == 0.5
    mixed = fit_gate([{"no": 0.1, "yes": 0.9}] * 120, ["yes", "no"] * 60, LABELS, alpha=0.1)
    assert mixed.threshold is None


def test_labels_with_rows_enough_get_thresholds_of_their_own() -> None:
    rng = np.random.default_rng(5)
    sure = rng.uniform(0.5, 1, 1200)
    says_yes = rng.random(1200) < 0.5
    wrong = rng.random(1200) < np.where(says_yes, 0.02, np.where(sure > 0.85, 0.02, 0.45))
    probabilities = [
        {"yes": float(p), "no": float(1 - p)} if y else {"no": float(p), "yes": float(1 - p)}
        for p, y in zip(sure, says_yes, strict=True)
    ]
    gold = ["yes" if y != e else "no" for y, e in zip(says_yes, wrong, strict=True)]
    gate = fit_gate(probabilities, gold, LABELS, alpha=0.1)
    assert set(gate.label_thresholds) == {"yes", "no"}
    assert gate.admits("yes", 0.6)
    assert not gate.admits("no", 0.6)
    few = fit_gate(probabilities[:150], gold[:150], LABELS, alpha=0.1)
    assert few.label_thresholds == {}


@pytest.mark.parametrize("rows", [0, 49])
def test_fewer_than_fifty_rows_are_refused(rows: int) -> None:
    probabilities, gold = drawn(CURVES["steep"], rows, np.random.default_rng(0))
    with pytest.raises(InputError, match=f"at least 50 labelled rows, got {rows}; add validation rows"):
        fit_gate(probabilities, gold, LABELS, alpha=0.1)


def test_rows_of_one_group_count_once() -> None:
    probabilities, gold = drawn(CURVES["steep"], 400, np.random.default_rng(0))
    gate = fit_gate(probabilities, gold, LABELS, alpha=0.1, groups=[f"g{i // 4}" for i in range(400)])
    assert gate.rows == 100
    with pytest.raises(InputError, match=r"at least 50 groups of labelled rows \(400 rows\), got 40"):
        fit_gate(probabilities, gold, LABELS, alpha=0.1, groups=[f"g{i // 10}" for i in range(400)])
