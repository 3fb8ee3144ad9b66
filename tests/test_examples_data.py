"""The example data and its task files: readable, labelled, and without a text in two splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_pld import Task, read_examples
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.student.calibration import MINIMUM_ROWS

ROOT = Path(__file__).parents[1]
SHOP = ROOT / "langchain_pld" / "example_data" / "shop_inbox"
ROLES: tuple[Role, ...] = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("task_file", "rows"),
    [
        (SHOP / "task.yaml", SHOP),
        (ROOT / "examples" / "nda_review.yaml", ROOT / "examples" / "data" / "nda_review"),
    ],
    ids=["shop_inbox", "nda_review"],
)
def test_example_data_can_be_distilled(task_file: Path, rows: Path) -> None:
    task = Task.from_yaml(task_file)
    sets = {role: read_examples(rows / f"{role}.jsonl", task) for role in ROLES}
    check_roles(task, sets)
    assert all(set(rows.label_counts()) == set(task.label_names) for rows in sets.values())
    assert len(sets["validation"]) >= MINIMUM_ROWS
    groups = [{row.group for row in rows} for rows in sets.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
