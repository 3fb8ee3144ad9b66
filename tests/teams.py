"""A task of three teams whose notes differ by one word, with scripts for the models that stand behind fake servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import Example, Task
from langchain_pld.examples import ExampleSet
from tests.fakes import scored, text_of
from tests.servers.fake_answers import FakeAnswer

TASK = Task(
    name="teams",
    instructions="Decide which team gets the note.",
    labels=[{"name": "amber"}, {"name": "violet"}, {"name": "green"}],
)
SUBJECTS = {"amber": "invoice", "violet": "parcel", "green": "password"}


def rows(role: str, count: int) -> ExampleSet:
    labels = [TASK.label_names[n % 3] for n in range(count)]
    made = [
        Example(id=f"{role}-{n}", input=f"{SUBJECTS[label]} note {role} number {n}", label=label)
        for n, label in enumerate(labels)
    ]
    return ExampleSet.of(made, TASK, source=role)


def jsonl(examples: Iterable[Example]) -> str:
    return "".join(json.dumps({"id": row.id, "text": row.input, "label": row.label}) + "\n" for row in examples)


def rule_for(question: str) -> str:
    """What a teacher answers who knows which subject each team has, and has no other thought."""
    label = re.search(r'label is "(\w+)"', question)
    if label is None:
        return json.dumps({"settlements": [], "cause": "it is so", "edits": [], "drop": []})
    condition = f"If the text is about the {SUBJECTS[label[1]]} that somebody sent"
    return json.dumps({"reason": "it says so", "shared": "the subject", "condition": condition, "cues": ["subject"]})


def probabilities(system_prompt: str, text: str) -> dict[str, float]:
    """What a student answers: a subject that its rules tell of has its team, all else is probably amber."""
    for label, subject in SUBJECTS.items():
        if subject in text and subject in system_prompt:
            return {other: 0.9 if other == label else 0.04 for other in SUBJECTS}
    return {"amber": 0.5, "violet": 0.3, "green": 0.1}


def student_script(messages: list[BaseMessage]) -> AIMessage:
    return scored(probabilities(str(messages[0].text), text_of(messages)))


def ollama_script(request: dict[str, Any]) -> FakeAnswer:
    """Teacher where a JSON schema is asked for, student elsewhere."""
    system, user = (request["messages"][place]["content"] for place in (0, -1))
    if request.get("format"):
        return FakeAnswer(content=rule_for(f"{system}\n{user}"))
    return FakeAnswer.picking(probabilities(system, user))


def gemini_script(request: dict[str, Any]) -> FakeAnswer:
    turns = [request["systemInstruction"], *request["contents"]]
    question = "\n".join(part["text"] for turn in turns for part in turn["parts"])
    return FakeAnswer(content=rule_for(question), prompt_tokens=200)
