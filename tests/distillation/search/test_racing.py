"""A race stops only what is clearly behind."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from langchain_pld.distillation.search.racing import behind, looks, stratified_order
from langchain_pld.examples import Example, ExampleSet


def test_a_race_is_looked_at_where_the_rows_can_be_calibrated() -> None:
    assert looks(60) == ()
    assert looks(80) == (60,)
    assert looks(200) == (100, 150)


def test_a_candidate_that_is_worse_on_every_row_is_stopped_and_a_better_one_is_not() -> None:
    noise = random.Random(0)
    best = [noise.random() for _ in range(60)]
    worse = [loss + 0.5 + noise.random() for loss in best]
    alone: list[str | None] = [None] * 60
    assert behind(worse, best, alone, level=0.01) is not None
    assert behind(best, worse, alone, level=0.01) is None
    assert behind(best, best, alone, level=0.5) is None


def test_rows_of_one_group_count_once() -> None:
    worse = [1.0 + n / 100 for n in range(60)]
    assert behind(worse, [0.0] * 60, [None] * 60, level=0.01) is not None
    assert behind(worse, [0.0] * 60, [f"{n % 3}" for n in range(60)], level=0.01) is None


def test_equal_candidates_are_stopped_about_as_seldom_as_the_level_says() -> None:
    stopped = 0
    for seed in range(400):
        noise = random.Random(seed)
        one, other = ([noise.gauss(0, 1) for _ in range(50)] for _ in range(2))
        stopped += behind(one, other, [None] * 50, level=0.05) is not None
    assert stopped / 400 < 0.09


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 5))
def test_each_beginning_has_the_labels_in_their_shares(labels: list[str], seed: int) -> None:
    rows = tuple(Example(id=f"{n}", input=f"text {n}", label=label) for n, label in enumerate(labels))
    ordered = stratified_order(ExampleSet(source="made", examples=rows), seed)
    assert sorted(row.id for row in ordered) == sorted(row.id for row in rows)
    half = len(labels) // 2
    for label in set(labels):
        seen = sum(row.label == label for row in ordered.examples[:half])
        assert abs(seen - labels.count(label) * half / len(labels)) <= 2
