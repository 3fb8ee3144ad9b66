"""Data roles: who may see which rows, and how one file becomes three."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_pld import Example, Task
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.distillation.splitting import split_examples
from langchain_pld.errors import ExampleError
from langchain_pld.examples import ExampleSet

TASK = Task(name="t", instructions="Decide.", labels=[{"name": "amber"}, {"name": "violet"}])


def rows(*labels: str | None, prefix: str = "row", group: str | None = None) -> ExampleSet:
    made = (
        Example(id=f"{prefix}-{n}", input=f"{prefix} text {n}", label=label, group=group)
        for n, label in enumerate(labels)
    )
    return ExampleSet.of(made, TASK)


def both(prefix: str, group: str | None = None) -> ExampleSet:
    return rows("amber", "violet", prefix=prefix, group=group)


def test_a_group_in_two_roles_is_refused_and_its_rows_named() -> None:
    sets: dict[Role, ExampleSet] = {"train": both("a", "g"), "validation": both("b", "g")}
    with pytest.raises(ExampleError, match=r"2 rows have groups that are in two data roles.*train 'a-0' = validation"):
        check_roles(TASK, sets)
    check_roles(TASK, {"train": both("a", "g"), "validation": both("b", "h")})


def test_train_rows_may_be_without_a_label_and_others_may_not() -> None:
    nothing = rows(None, "amber", prefix="a")
    check_roles(TASK, {"train": nothing, "validation": both("b")})
    with pytest.raises(ExampleError, match=r"1 validation rows have no label, e\.g\. 'a-0'"):
        check_roles(TASK, {"train": both("b"), "validation": nothing})
    with pytest.raises(ExampleError, match="no train row has the label 'violet'"):
        check_roles(TASK, {"train": rows("amber", prefix="c"), "validation": both("b")})


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["amber", "violet", None]), st.integers(0, 20)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_a_split_keeps_each_row_once_and_groups_and_texts_together(
    drawn: list[tuple[str | None, int]], seed: int
) -> None:
    made = [
        Example(id=str(n), input=f"Text {n % 45}", label=label, group=f"g{group}" if group < 15 else None)
        for n, (label, group) in enumerate(drawn)
    ]
    whole = ExampleSet.of(made, TASK)
    try:
        split = split_examples(TASK, whole, validation=0.3, test=0.2, seed=seed)
    except ExampleError as error:
        assert "too few for 3 data roles" in str(error)
        return
    assert Counter(row.id for part in split.values() for row in part) == Counter(row.id for row in whole)
    groups = [{row.group for row in part} - {None} for part in split.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    texts = [{str(row.input).casefold() for row in part} for part in split.values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert all(row.label is not None for role in ("validation", "test") for row in split[role])
    assert split == split_examples(TASK, whole, validation=0.3, test=0.2, seed=seed)


def test_the_labels_have_the_same_shares_in_each_role() -> None:
    whole = rows(*["amber"] * 100, *["violet"] * 20)
    split = split_examples(TASK, whole, validation=0.3, test=0.2, seed=3)
    assert {role: part.label_counts() for role, part in split.items()} == {
        "train": {"amber": 50, "violet": 10},
        "validation": {"amber": 30, "violet": 6},
        "test": {"amber": 20, "violet": 4},
    }
    assert split != split_examples(TASK, whole, validation=0.3, test=0.2, seed=4)
    check_roles(TASK, split)


def test_a_label_with_one_row_is_in_no_split_and_the_message_says_so() -> None:
    with pytest.raises(ExampleError, match="the label 'violet' has 1 groups of rows, too few for 2 data roles"):
        split_examples(TASK, rows("amber", "amber", "violet"))


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.2), (0.6, 0.4), (-0.1, 0.2), (1.2, 0.0)])
def test_shares_that_leave_a_role_empty_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ExampleError, match="leave no rows"):
        split_examples(TASK, rows("amber", "violet"), validation=validation, test=test)
