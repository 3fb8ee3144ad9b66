"""A condition that a small teacher writes to the limit."""

from __future__ import annotations

from langchain_pld.distillation.nodes.consolidate import MergedRule
from langchain_pld.distillation.nodes.generate import Explanation

CLAUSES = "If the text describes a problem with a photo, or if the text describes a problem with the map, or if "


def test_a_condition_that_was_cut_off_ends_with_its_last_whole_clause() -> None:
    cut = (CLAUSES * 4)[:300]
    assert not cut.endswith(".")
    for schema in (MergedRule, Explanation):
        condition = schema.model_validate({"shared": "a problem", "reason": "it says so", "condition": cut}).condition
        assert condition.endswith(("with a photo.", "with the map."))


def test_a_condition_that_was_written_to_its_end_stays() -> None:
    for text in ("If the text describes a problem", ("If the text names a thing, " * 20)[:299] + "."):
        assert MergedRule(shared="a problem", condition=text).condition == text
