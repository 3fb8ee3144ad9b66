"""Rules, answer forms, verdicts and calibrations as values."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from langchain_pld import Label, Task, Verdict
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, Gate, ModelFingerprint
from langchain_pld.rules import MicroRule, Rule
from langchain_pld.verdict import Failure, Usage

TASK = Task(name="mood", instructions="Decide.", labels=[Label(name="glad"), Label(name="sad")])
DRAFTS = (
    MicroRule(label="sad", condition="It mourns.", cues=("alas", "sigh"), source="e1"),
    MicroRule(label="sad", condition="It weeps.", cues=("sigh",), counter_cues=("joke",), source="e2"),
    MicroRule(label="sad", condition="It sobs.", source="e2"),
)


def test_a_merged_rule_keeps_what_it_was_made_from() -> None:
    rule = Rule.merged("sad", "It mourns or weeps.", DRAFTS)
    assert rule.sources == ("e1", "e2")
    assert rule.support == 2
    assert rule.cues == ("alas", "sigh")
    assert rule.counter_cues == ("joke",)
    assert rule.parents == tuple(draft.id for draft in DRAFTS)


def test_a_revised_rule_keeps_lineage_sources_and_support() -> None:
    rule = Rule.merged("sad", "It mourns.", DRAFTS).model_copy(update={"effect": 1.0})
    second = rule.revised("It weeps.")
    third = second.revised("It weeps.", label="glad")
    assert third.parents == (*rule.parents, rule.id, second.id)
    assert (third.sources, third.support) == (rule.sources, rule.support)
    assert third.label == "glad"
    assert second.effect is None
    assert len({rule.id, second.id, third.id}) == 3
    assert rule.condition == "It mourns."


def test_revising_to_the_same_words_changes_nothing() -> None:
    rule = Rule.merged("sad", "It mourns.", DRAFTS)
    assert rule.revised("It mourns.") is rule


def test_ids_depend_on_content_alone() -> None:
    again = MicroRule(label="sad", condition="It mourns.", source="e1")
    assert again.id == DRAFTS[0].id
    assert Rule.merged("sad", "x", DRAFTS).id == Rule.merged("sad", "x", ()).id != Rule.merged("glad", "x", ()).id


def test_more_labels_than_letters_get_two_letters_each() -> None:
    wide = Task(name="w", instructions="x", labels=[Label(name=f"l{i}") for i in range(30)])
    codes = AnswerFormat.letters(wide).codes
    assert codes["l0"] == "AA"
    assert len(set(codes.values())) == 30
    assert AnswerFormat.letters(TASK).codes == {"glad": "A", "sad": "B"}


@pytest.mark.parametrize("codes", [{"glad": "A", "sad": " a"}, {"glad": "A", "sad": " "}, {"glad": "A"}])
def test_answer_codes_that_cannot_be_told_apart_are_refused(codes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        AnswerFormat(codes=codes)


FAILURE = Failure(kind="empty", message="nothing")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "decided"}, "a decided verdict needs a label"),
        ({"status": "abstained", "label": "sad"}, "an? abstained verdict must not have a label"),
        ({"status": "failed"}, "a failed verdict needs a failure"),
        ({"status": "failed", "label": "sad", "failure": FAILURE}, "a failed verdict must not have a label"),
        ({"status": "decided", "label": "sad", "failure": FAILURE}, "a decided verdict must not have a failure"),
    ],
)
def test_a_contradictory_verdict_cannot_be_made(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Verdict(**fields)


def test_verdicts_are_equal_whatever_they_cost() -> None:
    one = Verdict(status="decided", label="sad", confidence=0.9, usage=Usage(calls=1), latency_ms=3)
    other = one.model_copy(update={"usage": Usage(calls=2), "latency_ms": 9.0})
    assert one == other
    assert hash(one) == hash(other)
    assert one != one.model_copy(update={"confidence": 0.8})
    assert one != "sad"


def test_usage_adds_up() -> None:
    assert Usage(input_tokens=1, output_tokens=2, cached_tokens=3, calls=4) + Usage(calls=1) == Usage(
        input_tokens=1, output_tokens=2, cached_tokens=3, calls=5
    )


@pytest.mark.parametrize(
    ("kind", "transient"), [("timeout", True), ("rate_limit", True), ("unreadable", False), ("model_missing", False)]
)
def test_only_passing_troubles_are_transient(kind: Any, transient: bool) -> None:
    assert Failure(kind=kind, message="").transient is transient


numbers = st.floats(-20, 20)


@settings(deadline=None)
@given(st.lists(numbers, min_size=3, max_size=3), st.lists(numbers, min_size=9, max_size=9), st.data())
def test_a_calibration_is_the_affine_softmax(logs: list[float], flat: list[float], data: st.DataObject) -> None:
    labels = ("a", "b", "c")
    weights = tuple(tuple(flat[3 * i : 3 * i + 3]) for i in range(3)) if data.draw(st.booleans()) else None
    bias = tuple(data.draw(st.lists(numbers, min_size=3, max_size=3))) if data.draw(st.booleans()) else None
    calibration = Calibration(labels=labels, weights=weights, bias=bias)
    shuffled = dict(zip(("c", "a", "b"), (logs[2], logs[0], logs[1]), strict=True))
    probabilities = calibration.apply(shuffled)
    rows = weights or ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    scores = [
        sum(w * s for w, s in zip(row, logs, strict=True)) + b for row, b in zip(rows, bias or (0, 0, 0), strict=True)
    ]
    top = max(scores)
    exps = [math.exp(score - top) for score in scores]
    expected = [value / sum(exps) for value in exps]
    assert list(probabilities) == list(labels)
    assert list(probabilities.values()) == pytest.approx(expected, abs=1e-9)
    assert sum(probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"weights": ((1.0, 0.0),)}, "2 x 2 weights and 2 biases"),
        ({"weights": ((1.0, 0.0), (1.0,))}, "2 x 2 weights and 2 biases"),
        ({"bias": (0.0,)}, "2 x 2 weights and 2 biases"),
        ({"bias": (0.0, math.nan)}, "finite numbers"),
        ({"weights": ((1.0, 0.0), (0.0, math.inf))}, "finite numbers"),
    ],
)
def test_a_calibration_of_the_wrong_shape_or_numbers_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Calibration(labels=("a", "b"), **fields)


def test_a_gate_uses_the_threshold_of_the_label_where_it_has_one() -> None:
    gate = Gate(alpha=0.1, threshold=0.8, label_thresholds={"sad": 0.6, "odd": None})
    assert gate.admits("glad", 0.8)
    assert not gate.admits("glad", 0.79)
    assert gate.admits("sad", 0.6)
    assert not gate.admits("odd", 1.0)
    assert not Gate(alpha=0.1).admits("glad", 1.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"spec": "a", "digest": "1"}, {"spec": "b", "digest": "1"}, None),
        ({"spec": "a", "digest": "1"}, {"spec": "a", "digest": "2"}, "digest 2 instead of 1"),
        ({"spec": "a"}, {"spec": "b", "digest": "2"}, "b instead of a"),
        ({"spec": "a", "quantization": "q4"}, {"spec": "a", "quantization": "q8"}, "quantisation q8 instead of q4"),
        ({"spec": "a", "quantization": "q4"}, {"spec": "a"}, None),
    ],
)
def test_models_are_compared_by_the_best_known_mark(one: Any, other: Any, expected: str | None) -> None:
    assert ModelFingerprint(**one).differs_from(ModelFingerprint(**other)) == expected
