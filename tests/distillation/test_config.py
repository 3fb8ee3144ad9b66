"""The settings of a run, in Studio and as keywords of `distill`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from langchain_pld.distillation.config import DistillConfig, DistillSettings
from langchain_pld.distillation.plan import PLANS, Budget


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"explain_prompt": "Explain $label. $instructions"}, "placeholders that are missing: \\$labels"),
        ({"vote_prompt": "It costs 5$. $instructions $labels $way"}, "a \\$ in it does not begin a placeholder"),
        ({"words_prompt": ""}, "at least 1 character"),
    ],
)
def test_a_prompt_that_the_run_could_not_fill_is_refused(prompt: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DistillConfig.model_validate(prompt)


def test_limits_and_review_go_before_the_plan_and_what_is_not_set_leaves_it() -> None:
    plan = PLANS["medium"].model_copy(update={"budget": Budget(calls=5, minutes=2.0), "max_risk": 0.1})
    assert DistillConfig(seed=1).resolve_plan(plan) == plan
    changed = DistillConfig(max_calls=9, max_risk=0.02, require_review=True).resolve_plan(plan)
    assert (changed.budget, changed.max_risk) == (Budget(calls=9, minutes=2.0), 0.02)
    assert changed.require_review


def test_a_run_that_goes_on_keeps_its_settings_and_takes_what_is_set_anew() -> None:
    began = DistillConfig(seed=3, max_calls=9, reviewer="Ilka")
    now = DistillConfig(max_calls=None, reviewer="Jo").inherit(began.changed)
    assert (now.seed, now.max_calls, now.reviewer) == (3, None, "Jo")


def test_every_setting_that_studio_shows_is_a_keyword_of_distill() -> None:
    assert set(DistillSettings.__annotations__) == set(DistillConfig.model_fields) - {
        "teacher",
        "student",
        "embeddings",
        "effort",
    }
