"""A prompt has room for so many rules."""

from __future__ import annotations

import pytest

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.rules.prompt_size import fit_to_budget, token_counter
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import compile_prompt
from tests.fakes import FakeChatModel, scored
from tests.teams import TASK

ANSWER = AnswerFormat.letters(TASK)
RULES = tuple(
    Rule(id=f"{label}-{support}", label=label, condition="If it says so", sources=(), support=support)
    for label, support in (("amber", 3), ("amber", 2), ("violet", 1))
)


@pytest.mark.parametrize(
    ("most_rules", "kept"),
    [(3, ["amber-3", "amber-2", "violet-1"]), (2, ["amber-3", "violet-1"]), (1, ["amber-3"])],
)
def test_the_least_supported_rule_goes_first_but_no_labels_last_one(most_rules: int, kept: list[str]) -> None:
    plan = PLANS["light"].model_copy(update={"most_rules": most_rules})
    fitting, dropped = fit_to_budget(TASK, RULES, ANSWER, plan, len)
    assert [rule.id for rule in fitting] == kept
    assert {*fitting, *dropped} == set(RULES)


def test_the_compiled_prompt_stays_within_the_tokens() -> None:
    count = token_counter(FakeChatModel(script=lambda _: scored({"a": 1.0})))
    most = count(compile_prompt(TASK, RULES[:2], ANSWER))
    plan = PLANS["light"].model_copy(update={"most_prompt_tokens": most})
    fitting, _ = fit_to_budget(TASK, RULES, ANSWER, plan, count)
    assert len(fitting) == 2
