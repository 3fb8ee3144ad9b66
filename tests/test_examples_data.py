"""The example data and its task files: readable, labelled, and without a text in two splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_pld import Task, read_examples
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.student.calibration import MINIMUM_ROWS

EXAMPLES = Path(__file__).parents[1] / "examples"
ROLES: tuple[Role, ...] = ("train", "validation", "test")


@pytest.mark.parametrize("name", ["workplace_chat", "nda_review"])
def test_example_data_can_be_distilled(name: str) -> None:
    task = Task.from_yaml(EXAMPLES / f"{name}.yaml")
    sets = {role: read_examples(EXAMPLES / "data" / name / f"{role}.jsonl", task) for role in ROLES}
    check_roles(task, sets)
    assert all(set(rows.label_counts()) == set(task.label_names) for rows in sets.values())
    assert len(sets["validation"]) >= MINIMUM_ROWS
    groups = [{row.group for row in rows} for rows in sets.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
