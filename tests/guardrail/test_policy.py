"""What follows from a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from langchain_pld import Verdict
from langchain_pld.errors import InputError
from langchain_pld.guardrail import GuardrailPolicy
from langchain_pld.guardrail.policy import STRICTNESS, strictest
from langchain_pld.verdict import Failure

FAILED = Verdict(status="failed", failure=Failure(kind="timeout", message="too late"))


def decided(label: str, **probabilities: float) -> Verdict:
    return Verdict(
        status="decided",
        label=label,
        predicted_label=label,
        probabilities=probabilities or None,
        confidence=probabilities.get(label),
    )


def abstained(predicted_label: str, **probabilities: float) -> Verdict:
    return Verdict(status="abstained", predicted_label=predicted_label, probabilities=probabilities or None)


@pytest.mark.parametrize(
    ("blocking", "verdict", "outcome", "label"),
    [
        (["bad"], decided("bad"), "violation", "bad"),
        (["bad"], decided("bad", bad=0.4, fine=0.3, odd=0.3), "violation", "bad"),
        (["bad"], decided("fine", bad=0.4, fine=0.6), "clear", None),
        ({"bad": 0.7}, decided("bad", bad=0.69, fine=0.31), "uncertain", "bad"),
        ({"bad": 0.7}, decided("bad", bad=0.7, fine=0.3), "violation", "bad"),
        ({"bad": 0.3}, decided("fine", bad=0.3, fine=0.7), "violation", "bad"),
        ({"bad": 0.7}, decided("bad"), "uncertain", "bad"),
        ({"bad": 0.9, "worse": 0.2}, decided("bad", bad=0.6, worse=0.2, fine=0.2), "violation", "worse"),
        ({"bad": 0.2, "worse": 0.2}, decided("fine", bad=0.25, worse=0.35, fine=0.4), "violation", "worse"),
        (["bad"], abstained("bad"), "uncertain", "bad"),
        (["bad"], abstained("fine"), "uncertain", None),
        ({"bad": 0.3}, abstained("fine", bad=0.4, fine=0.6), "violation", "bad"),
        (["bad"], FAILED, "error", None),
        (["bad"], decided("fine", bad=float("nan"), fine=1.0), "error", None),
        (["bad"], decided("fine", bad=-0.5, fine=1.5), "error", None),
        ({"bad": 0.3}, decided("fine", fine=0.2), "error", None),
        ({"bad": 0.3}, decided("fine"), "clear", None),
        (["bad"], decided("other"), "clear", None),
        (["bad", "other"], decided("other"), "violation", "other"),
    ],
)
def test_each_verdict_has_one_meaning(blocking: Any, verdict: Verdict, outcome: str, label: str | None) -> None:
    assert GuardrailPolicy(block_labels=blocking).judge(verdict) == (outcome, label)


def test_the_default_is_closed() -> None:
    policy = GuardrailPolicy(block_labels=["bad"])
    assert [policy.action_for(outcome) for outcome in ("violation", "uncertain", "error")] == ["block"] * 3
    assert policy.action_for("clear") == "allow"
    assert (policy.after_escalation, policy.on_unreadable) == ("block", "block")


def test_the_three_outcomes_have_their_own_actions_and_words() -> None:
    policy = GuardrailPolicy(
        block_labels=["bad"],
        on_violation="raise",
        on_uncertain="interrupt",
        on_error="flag",
        violation_message="v",
        uncertain_message="u",
        error_message="e",
    )
    outcomes = ("clear", "violation", "uncertain", "error")
    assert [policy.action_for(outcome) for outcome in outcomes] == ["allow", "raise", "interrupt", "flag"]
    assert [policy.message_for(outcome) for outcome in outcomes] == ["", "v", "u", "e"]


def test_what_follows_an_escalation_counts_only_where_there_is_one() -> None:
    assert GuardrailPolicy(block_labels=["bad"], after_escalation="interrupt").actions == {"block"}
    assert GuardrailPolicy(block_labels=["bad"], on_error="escalate", after_escalation="interrupt").actions == {
        "block",
        "escalate",
        "interrupt",
    }


@pytest.mark.parametrize("position", range(1, len(STRICTNESS)))
def test_the_stricter_action_wins(position: int) -> None:
    strict, lax = STRICTNESS[position], STRICTNESS[position - 1]
    assert strictest([lax, strict, lax]) == strict
    assert strictest([]) == "allow"
    assert STRICTNESS.index("block") > STRICTNESS.index("interrupt") > STRICTNESS.index("flag")


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_labels": []},
        {"block_labels": "bad"},
        {"block_labels": {"bad": 0}},
        {"block_labels": {"bad": 1.01}},
        {"block_labels": {"bad": float("nan")}},
        {"block_labels": ["bad"], "on_error": "ignore"},
        {"block_labels": ["bad"], "after_escalation": "escalate"},
        {"block_labels": ["bad"], "on_unreadable": "escalate"},
        {"block_labels": ["bad"], "deadline_s": 0},
        {"block_labels": ["bad"], "deadline_s": float("inf")},
        {"block_labels": ["bad"], "on_eror": "block"},
    ],
)
def test_a_policy_that_says_nothing_sensible_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GuardrailPolicy(**wrong)


def test_a_label_that_the_task_lacks_is_an_error() -> None:
    policy = GuardrailPolicy(block_labels=["bad", "wrose"])
    policy.check_labels(["bad", "wrose", "fine"])
    with pytest.raises(InputError, match="blocks 'wrose', which the task does not have; its labels are bad, fine"):
        policy.check_labels(["bad", "fine"])


def test_a_policy_comes_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("block_labels:\n  bad: 0.4\n  worse:\non_uncertain: interrupt\ndeadline_s: 2\n", encoding="utf-8")
    assert GuardrailPolicy.from_yaml(path) == GuardrailPolicy(
        block_labels={"bad": 0.4, "worse": None}, on_uncertain="interrupt", deadline_s=2
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no policy file at"),
        ("block_labels: [", "cannot be read"),
        ("- bad", "must hold a mapping"),
        ("block_labels: [bad]\non_error: pass", "on_error"),
    ],
)
def test_a_policy_file_that_cannot_be_used_is_explained(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        GuardrailPolicy.from_yaml(path)
