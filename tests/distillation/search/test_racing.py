"""A race stops only what is clearly behind."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from langchain_pld.distillation.search.racing import interim_sizes, p_value_worse, stratified_order
from langchain_pld.examples import Example, ExampleSet


def test_interim_comparisons_have_enough_rows_to_calibrate() -> None:
    assert interim_sizes(60) == ()
    assert interim_sizes(80) == (60,)
    assert interim_sizes(200) == (100, 150)


def test_a_candidate_that_is_worse_on_every_row_is_worse_and_a_better_one_is_not() -> None:
    noise = random.Random(0)
    best = [noise.random() for _ in range(60)]
    worse = [loss + 0.5 + noise.random() for loss in best]
    ungrouped: list[str | None] = [None] * 60
    assert p_value_worse(worse, best, ungrouped) < 0.01
    assert p_value_worse(best, worse, ungrouped) > 0.99
    assert p_value_worse(best, best, ungrouped) == 1


def test_rows_of_one_group_count_once() -> None:
    worse = [1.0 + n / 100 for n in range(60)]
    assert p_value_worse(worse, [0.0] * 60, [None] * 60) < 0.01
    assert p_value_worse(worse, [0.0] * 60, [f"{n % 3}" for n in range(60)]) == 1


def test_equal_candidates_are_called_worse_as_seldom_as_the_level_says() -> None:
    noise = random.Random(0)
    draws = [[noise.gauss(0, 1) for _ in range(50)] for _ in range(800)]
    p_values = [p_value_worse(one, other, [None] * 50) for one, other in zip(draws[::2], draws[1::2], strict=True)]
    assert sum(p <= 0.05 for p in p_values) / 400 < 0.09


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 5))
def test_each_beginning_has_the_labels_in_their_shares(labels: list[str], seed: int) -> None:
    rows = tuple(Example(id=f"{n}", input=f"text {n}", label=label) for n, label in enumerate(labels))
    ordered = stratified_order(ExampleSet(source="rows", examples=rows), seed)
    assert sorted(row.id for row in ordered) == sorted(row.id for row in rows)
    half = len(labels) // 2
    for label in set(labels):
        seen = sum(row.label == label for row in ordered.examples[:half])
        assert abs(seen - labels.count(label) * half / len(labels)) <= 2
