"""A plan in words."""

from __future__ import annotations

from langchain_pld.distillation.plan import PLANS


def test_a_plan_says_in_plain_words_what_it_does_and_nothing_of_what_it_does_not() -> None:
    light = PLANS["light"].describe()
    assert "the teacher explains up to 60 examples, picked at random; writes up to 2 rules a label" in light
    assert "in at most 1 pass;" in light
    assert "up to 4 changes of the rules, and answers with the labels' names, the task's own words;" in light
    assert "small label" not in light
    assert "few" not in light
    with_synthetic = PLANS["light"].model_copy(update={"synthetic_per_small_label": 3}).describe()
    assert "makes up 3 more for each label that has few" in with_synthetic
