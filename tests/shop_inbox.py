"""The example task of `pld demo`, its rows, and a scripted student that is right where it is given rules."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from langchain_pld import Task, read_examples
from langchain_pld.cli.demo import NEW_TEXTS
from tests.servers.fake_answers import FakeAnswer

SHOP = Path(str(files("langchain_pld"))) / "example_data" / "shop_inbox"
TASK = Task.from_yaml(SHOP / "task.yaml")
ROLES = ("train", "validation", "test")
GOLD = {str(row.input): str(row.label) for role in ROLES for row in read_examples(SHOP / f"{role}.jsonl", TASK)}
# What a person decides about each new text, and words of the rule that a person would name for it.
NEW_DECISIONS = dict(
    zip(NEW_TEXTS, (("sales", "discount"), ("workshop", "by oneself"), ("assistant", "parcel")), strict=True)
)


def shop_student(request: dict[str, Any]) -> FakeAnswer:
    """Right where the prompt has rules; the same answer to everything where it has none."""
    *before, text = (message["content"] for message in request["messages"])
    system = "".join(before)
    text = text.removeprefix("<<<\n").removesuffix("\n>>>")
    if "Rules" not in system:
        return FakeAnswer.picking({"assistant": 0.4, "workshop": 0.3, "sales": 0.3})
    label, words = NEW_DECISIONS.get(text, (GOLD.get(text, "assistant"), ""))
    others = [name for name in TASK.label_names if name != label]
    sure = 0.8 if words in system else 0.2
    return FakeAnswer.picking({label: sure, others[0]: 0.9 - sure, others[1]: 0.1})
