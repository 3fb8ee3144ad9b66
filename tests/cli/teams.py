"""A task of three teams whose notes differ by one word, and a script for the model behind a fake Ollama server."""

from __future__ import annotations

import json
import re
from typing import Any

from langchain_pld import Example, Task
from tests.servers.fake_answers import FakeAnswer, user_text

TASK = Task(
    name="teams",
    instructions="Decide which team gets the note.",
    labels=[{"name": "amber"}, {"name": "violet"}, {"name": "green"}],
)
SUBJECTS = {"amber": "invoice", "violet": "parcel", "green": "password"}


def rows(role: str, count: int) -> list[Example]:
    """As many labelled rows of each team."""
    labels = [TASK.label_names[n % 3] for n in range(count)]
    return [
        Example(id=f"{role}-{n}", input=f"{SUBJECTS[label]} note {role} number {n}", label=label)
        for n, label in enumerate(labels)
    ]


def jsonl(examples: list[Example]) -> str:
    """The rows as a file."""
    return "".join(json.dumps({"id": row.id, "text": row.input, "label": row.label}) + "\n" for row in examples)


def rule_for(system_prompt: str) -> str:
    """What a teacher answers who knows which subject each team has."""
    label = re.search(r'label (?:is )?"(\w+)"', system_prompt)
    assert label is not None, system_prompt
    condition = f"If the text is about the {SUBJECTS[label[1]]} that somebody sent"
    return json.dumps({"reason": "it says so", "shared": "the subject", "condition": condition, "cues": ["subject"]})


def ollama_script(request: dict[str, Any]) -> FakeAnswer:
    """Teacher where a JSON schema is asked for; else a student that knows the subjects its rules tell of."""
    system, text = request["messages"][0]["content"], user_text(request)
    if request.get("format"):
        return FakeAnswer(content=rule_for(system))
    for label, subject in SUBJECTS.items():
        if subject in text and subject in system:
            return FakeAnswer.picking({other: 0.9 if other == label else 0.04 for other in SUBJECTS})
    return FakeAnswer.picking({"amber": 0.5, "violet": 0.3, "green": 0.1})
