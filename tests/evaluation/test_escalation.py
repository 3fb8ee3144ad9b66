"""Accuracy and cost against the share escalated."""

import pytest

from langchain_pld.errors import InputError
from langchain_pld.evaluation.escalation import escalation_curve
from langchain_pld.verdict import Failure, Usage, Verdict

FAILED = Verdict(status="failed", failure=Failure(kind="empty", message="x"), latency_ms=10)


def decided(label: str, confidence: float | None = None) -> Verdict:
    return Verdict(status="decided", label=label, predicted_label=label, confidence=confidence, latency_ms=10)


OWN = [
    decided("a", 0.9),
    FAILED,
    Verdict(status="abstained", predicted_label="b", confidence=0.5, latency_ms=10),
    decided("b", 0.8),
]
GOLD = ["a", "a", "a", "a"]
OTHER = [decided("b"), decided("a"), decided("a"), FAILED]
OTHER = [verdict.model_copy(update={"usage": Usage(input_tokens=90, output_tokens=10, calls=1)}) for verdict in OTHER]


def test_the_least_sure_go_first_and_cost_is_counted() -> None:
    rows = escalation_curve(OWN, GOLD, OTHER, shares=(0, 0.25, 0.5, 0.75, 1))
    assert [row.accuracy for row in rows] == [0.25, 0.5, 0.75, 0.75, 0.5]
    assert [row.decided for row in rows] == [0.75, 1, 1, 1, 1]
    assert [row.threshold for row in rows] == [None, 0.5, 0.8, 0.9, None]
    assert [row.other_tokens for row in rows] == [0, 100, 200, 300, 400]
    assert [row.latency_ms for row in rows] == [10, 12.5, 15, 17.5, 20]


@pytest.mark.parametrize(("gold", "share", "expected"), [(["a"], 0.5, "and 1 labels"), (GOLD, 2.0, "got 2.0")])
def test_what_does_not_fit_is_an_input_error(gold: list[str], share: float, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        escalation_curve(OWN, gold, OTHER, shares=(share,))
