"""Later passes of critique: which mistakes the teacher is shown."""

from __future__ import annotations

from langchain_pld.distillation.nodes.revision import find_confusions, revision_messages
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import Rule
from tests.distillation.scenarios import TASK, rows

ROWS = rows("train", 8)


def test_the_most_frequent_confusion_comes_first_with_the_nearest_right_rows() -> None:
    # Parcels, the even rows, are violet: two are taken for amber; one invoice is taken for violet, one not read at all.
    predictions = ["amber", "violet", "amber", "amber", "violet", None, "violet", "amber"]
    first, second = find_confusions(TASK, ROWS, predictions)
    assert (first.expected, first.predicted) == ("violet", "amber")
    assert [row.id for row in first.failures] == ["train-0", "train-2"]
    assert {row.id for row in first.nearest} == {"train-3", "train-4", "train-6", "train-7"}
    assert {row.id for row in first.nearest[:2]} == {"train-4", "train-6"}, "the other parcels are most like them"
    assert [row.id for row in second.failures] == ["train-1"]


def test_no_mistakes_are_no_confusions() -> None:
    assert find_confusions(TASK, ROWS, [row.label for row in ROWS]) == []
    assert find_confusions(TASK, ExampleSet.of([], TASK), []) == []


def test_the_question_names_rules_by_number_and_shows_four_mistakes_at_most() -> None:
    (confusion,) = find_confusions(TASK, ROWS, ["amber"] * 8)
    rule = Rule(id="r", label="amber", condition="If it is about a bill", sources=(), support=1)
    question = str(revision_messages(TASK, [rule], confusion)[1].text)
    assert "1. If it is about a bill -> amber" in question
    assert question.count("parcel note") == 4
    assert question.count("Rightly labelled") == 4
