"""What a reviewer signs: it holds for these rules and this prompt, and for nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from langchain_pld import DistilledPrompt, PLDClassifier
from langchain_pld.errors import ArtifactError
from langchain_pld.rules import Rule
from langchain_pld.signature import ReviewAnswer, RuleDecision, rules_sha256
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import RULES, artifact, classifier

TIME = "2026-11-24T09:00:00+00:00"
SAD, GLAD = RULES


def answer(*decisions: RuleDecision, **changes: Any) -> ReviewAnswer:
    chosen = decisions or tuple(RuleDecision(type="approve", rule=rule) for rule in RULES)
    fields = {"reviewer": "Ilka", "time": TIME, "decisions": {one.rule.id: one for one in chosen}}
    return ReviewAnswer(**{**fields, **changes})


def signed(**changes: Any) -> DistilledPrompt:
    return artifact(require_review=True, **changes).sign(answer())


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
rules = st.builds(
    Rule,
    id=st.uuids().map(str),
    label=st.sampled_from(["glad", "sad", "calm"]),
    condition=texts,
    cues=st.tuples(texts),
    counter_cues=st.tuples(texts),
    sources=st.tuples(texts),
    support=st.integers(0, 9),
    parents=st.tuples(texts),
    effect=st.none() | st.floats(-1, 1),
)
rule_sets = st.lists(rules, min_size=1, max_size=4, unique_by=lambda rule: rule.id).map(tuple)


@settings(deadline=None)
@given(rule_sets, st.data())
def test_a_signed_artifact_comes_back_equal_and_usable(drawn: tuple[Rule, ...], data: st.DataObject) -> None:
    decisions = [RuleDecision(type="approve", rule=rule, message=data.draw(st.none() | texts)) for rule in drawn]
    unsigned = artifact(rules=drawn, require_review=True)
    with pytest.raises(ArtifactError, match="no person has accepted its rules"):
        unsigned.require_usable()
    approved = unsigned.sign(answer(*decisions))
    with tempfile.TemporaryDirectory() as folder:
        back = DistilledPrompt.load(approved.save(Path(folder) / "a.pld.json"))
    back.require_usable()
    assert back == approved
    assert back.review is not None
    assert back.review.accepted == drawn


CHANGES: dict[str, Any] = {
    "id": "r-other",
    "label": "calm",
    "condition": "It says something else.",
    "cues": ("another cue",),
    "counter_cues": ("another sign",),
    "sources": ("another",),
    "support": 99,
    "parents": ("m-other",),
}


@given(rule_sets, st.data())
def test_any_changed_rule_breaks_the_signature_in_memory_and_on_disk(
    drawn: tuple[Rule, ...], data: st.DataObject
) -> None:
    approved = artifact(rules=drawn).sign(answer(*(RuleDecision(type="approve", rule=rule) for rule in drawn)))
    index = data.draw(st.integers(0, len(drawn) - 1))
    key = data.draw(st.sampled_from(sorted(CHANGES)))
    if getattr(drawn[index], key) == CHANGES[key]:
        return
    changed = list(drawn)
    changed[index] = changed[index].model_copy(update={key: CHANGES[key]})
    broken = approved.model_copy(update={"rules": tuple(changed)})
    with pytest.raises(ArtifactError, match=r"rules differ .* since Ilka accepted"):
        broken.require_usable()
    with tempfile.TemporaryDirectory() as folder:  # hashes of the content made anew, as whoever changes a file could
        path = broken.save(Path(folder) / "a.pld.json")
        with pytest.raises(ArtifactError, match=r"rules differ .* pld review"):
            DistilledPrompt.load(path)


def test_a_rule_that_is_added_or_taken_out_is_named() -> None:
    extra = Rule.merged("calm", "It is even.", ())
    with pytest.raises(ArtifactError, match=rf"rules differ \({extra.id} added; {SAD.id} taken out\) since Ilka"):
        signed().model_copy(update={"rules": (GLAD, extra)}).require_usable()


def test_a_measured_effect_and_another_order_are_no_change_of_the_rules() -> None:
    measured = tuple(rule.model_copy(update={"effect": 0.3}) for rule in reversed(RULES))
    assert rules_sha256(measured) == rules_sha256(RULES)


def test_a_changed_prompt_breaks_the_signature_too() -> None:
    broken = signed().model_copy(update={"system_prompt": "Always say glad."})
    with pytest.raises(ArtifactError, match="the system prompt was changed since Ilka accepted"):
        broken.require_usable()


def test_a_changed_record_of_the_decisions_breaks_it() -> None:
    approved = signed()
    assert approved.review is not None
    rejected = RuleDecision(type="reject", rule=SAD)
    review = approved.review.model_copy(update={"decisions": {**approved.review.decisions, SAD.id: rejected}})
    with pytest.raises(ArtifactError, match="the record of what Ilka decided"):
        approved.model_copy(update={"review": review}).require_usable()


def test_a_rule_changed_by_hand_is_told_before_the_hash_of_the_file(tmp_path: Path) -> None:
    path = signed().save(tmp_path / "a.pld.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["rules"][0]["condition"] = "It grieves."
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"rules differ \({SAD.id} changed\) .* pld review .*a.pld.json"):
        DistilledPrompt.load(path)
    found, whole = DistilledPrompt.load_for_review(path)
    assert found.rules[0].condition == "It grieves."
    assert whole is False


def test_what_was_not_changed_is_whole_for_a_review(tmp_path: Path) -> None:
    path = artifact(require_review=True).save(tmp_path / "a.pld.json")
    assert DistilledPrompt.load_for_review(path) == (artifact(require_review=True), True)


def test_only_the_accepted_rules_can_be_signed() -> None:
    accepted = answer(RuleDecision(type="approve", rule=SAD), RuleDecision(type="reject", rule=GLAD))
    with pytest.raises(ArtifactError, match=rf"cannot be signed for Ilka: rules differ \({GLAD.id} added\)"):
        artifact().sign(accepted)
    artifact(rules=(SAD,)).sign(accepted).require_usable()


def test_the_classifier_refuses_what_nobody_signed(tmp_path: Path) -> None:
    path = artifact(require_review=True).save(tmp_path / "a.pld.json")
    student = FakeChatModel(script=lambda _: scored({"glad": 1.0}))
    with pytest.raises(
        ArtifactError, match=r"mood@\w+ may not be used: no person has accepted its rules; .*pld review"
    ):
        PLDClassifier.from_artifact(path, student=student)
    with pytest.raises(ValidationError, match="may not be used: no person has accepted its rules"):
        classifier(student.script, require_review=True)
    signed().save(path)
    assert PLDClassifier.from_artifact(path, student=student).invoke("hello").label == "glad"
    assert len(student.asked) == 1


def test_a_prompt_without_rules_needs_no_reviewer() -> None:
    bare = artifact(rules=(), require_review=True)
    bare.require_usable()
    assert bare.signature_problem is None


def test_a_signed_artifact_has_the_newest_schema() -> None:
    assert artifact(schema_version=1).sign(answer()).schema_version == 2
    with pytest.raises(ValidationError, match="a review needs schema version 2"):
        artifact(schema_version=1, require_review=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reviewer": "  "}, "needs a name"),
        ({"reviewer": "two\nlines"}, "needs a name"),
        ({"reviewer": "\x1b[31mred"}, "needs a name"),
        ({"time": "yesterday"}, "is not ISO 8601"),
        ({"time": "2026-11-24T09:00:00"}, "is not ISO 8601 with its offset"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "is not ISO 8601"),
        ({"decisions": {"r-x": RuleDecision(type="approve", rule=SAD)}}, "not stand under the id of its rule: r-x"),
        (
            {
                "decisions": {
                    SAD.id: RuleDecision(type="approve", rule=SAD),
                    GLAD.id: RuleDecision(type="edit", rule=GLAD, revised=SAD),
                }
            },
            "accepted twice",
        ),
    ],
)
def test_an_answer_that_cannot_be_signed_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        answer(**changes)


def test_times_are_kept_in_utc() -> None:
    assert answer(time="2026-11-24T10:30:00.5+01:30").time == TIME


@pytest.mark.parametrize("kind", ["approve", "reject", "respond"])
def test_only_an_edit_has_a_revised_rule(kind: Any) -> None:
    with pytest.raises(ValidationError, match="an edit, and no other decision"):
        RuleDecision(type=kind, rule=SAD, revised=GLAD)
    with pytest.raises(ValidationError, match="an edit, and no other decision"):
        RuleDecision(type="edit", rule=SAD)
