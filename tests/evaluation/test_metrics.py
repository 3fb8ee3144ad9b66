"""Metrics against scikit-learn and against numbers worked out by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from langchain_pld.artifact import Interval
from langchain_pld.evaluation.metrics import accuracy, cluster_bootstrap, confusion_tables, macro_f1, per_label_f1

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
    counts = confusion_tables([str(label) for label in gold], predicted, LABELS, groups).sum(axis=0)
    answers = [label or "failed" for label in predicted]
    for average, metric in (("macro", macro_f1), (None, per_label_f1)):
        expected = f1_score(gold, answers, labels=list(LABELS), average=average, zero_division=0)
        assert metric(counts) == pytest.approx(expected)
    assert accuracy(counts) == pytest.approx(accuracy_score(gold, answers))


def test_a_failed_or_undeclared_answer_is_wrong() -> None:
    for answer in (None, "other"):
        counts = confusion_tables(["a", "a", "b", "b"], ["a", answer, "b", "b"], ("a", "b")).sum(axis=0)
        assert accuracy(counts) == 0.75
        assert per_label_f1(counts) == pytest.approx([2 / 3, 1])


def test_a_declared_label_that_never_occurs_counts_zero() -> None:
    assert macro_f1(confusion_tables(["a", "b"], ["a", "b"], LABELS).sum(axis=0)) == pytest.approx(2 / 3)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        confusion_tables(["a"], [], LABELS)


def accuracy_interval(gold: list[str], predicted: list[str | None], groups: list[str | None] | None = None) -> Interval:
    return cluster_bootstrap([confusion_tables(gold, predicted, LABELS, groups)], accuracy)


def test_whole_groups_make_the_interval_wider() -> None:
    gold = ["a"] * 200
    predicted: list[str | None] = [["a", "b"][(i // 20) % 2] for i in range(200)]
    ungrouped = accuracy_interval(gold, predicted)
    grouped = accuracy_interval(gold, predicted, [f"g{i // 20}" for i in range(200)])
    assert ungrouped.value == grouped.value == 0.5
    assert grouped.high - grouped.low > 2 * (ungrouped.high - ungrouped.low)
    assert ungrouped.low < 0.5 < ungrouped.high
    assert accuracy_interval(gold, predicted) == ungrouped


def test_one_group_gives_no_spread() -> None:
    interval = accuracy_interval(["a", "b"], ["a", "a"], ["g", "g"])
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)
