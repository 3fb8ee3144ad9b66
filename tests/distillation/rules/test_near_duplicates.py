"""Near-duplicates among micro-rules."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_pld.distillation.rules.near_duplicates import group_near_duplicates
from langchain_pld.rules import MicroRule


def micro_rules(*conditions: str) -> list[MicroRule]:
    return [MicroRule(label="amber", condition=text, source=str(n)) for n, text in enumerate(conditions)]


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("If the text is about money", "if the text is about Money.", True),
        ("If it asks for money of an old debt now", "If it asks for money of a large old debt now", True),
        ("If it asks for money", "If it asks for help", False),
        ("If it does mention an old unpaid paper bill", "If it does not mention an old unpaid paper bill", False),
        ("If it asks for three old bills by mail", "If it asks for new garden tools by mail", False),
    ],
)
def test_nearly_the_same_words_are_near_duplicates_unless_one_is_negated(first: str, second: str, near: bool) -> None:
    assert len(group_near_duplicates(micro_rules(first, second))) == (1 if near else 2)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("ab not ", max_size=12).filter(str.strip), max_size=12), st.randoms(use_true_random=False))
def test_each_micro_rule_is_in_exactly_one_group_whatever_the_order(texts: list[str], shuffler: random.Random) -> None:
    drafts = micro_rules(*texts)
    groups = group_near_duplicates(drafts)
    assert Counter(one.id for group in groups for one in group) == Counter(one.id for one in drafts)
    shuffled = shuffler.sample(drafts, len(drafts))
    assert {frozenset(one.id for one in group) for group in group_near_duplicates(shuffled)} == {
        frozenset(one.id for one in group) for group in groups
    }


def test_ten_thousand_micro_rules_about_the_same_things_are_grouped_in_seconds() -> None:
    drawn = random.Random(0)
    words = [f"word{int(drawn.paretovariate(0.6)) % 3000}" for _ in range(20_000)]
    drafts = micro_rules(
        *(f"If a customer wants a refund for {' '.join(drawn.choices(words, k=5))}" for _ in range(10_000))
    )
    start = time.perf_counter()
    groups = group_near_duplicates(drafts)
    assert sum(map(len, groups)) == 10_000
    assert time.perf_counter() - start < 20
