"""A classifier without a distilled prompt, so that the scripts beside this file run as they are.

Its scores are nobody's measurement. With an artifact it is one line: `PLDClassifier.from_artifact("chat.pld.json")`.
"""

import sys

from langchain_pld import PLDClassifier, Task, resolve_chat_model
from langchain_pld.errors import ModelSetupError
from langchain_pld.models.fetch import model_path

OFFICE = Task(
    name="office_messages",
    instructions="You check messages of an office assistant. Decide of what kind a message is. Give exactly one label.",
    labels=[
        {"name": "ordinary", "description": "Everyday work or small talk."},
        {"name": "private", "description": "It tells or asks for somebody's health, pay or home address."},
        {"name": "hostile", "description": "It insults or threatens somebody."},
    ],
)


def zero_shot(task: Task = OFFICE, *, student: str = "embedded:qwen2.5-coder-1.5b") -> PLDClassifier:
    """The student with the bare task as its prompt.

    A guard holds everything back when its student cannot be had, and says so to nobody but the log. In a script that
    somebody tries for the first time the reason is better told, so the student is asked once before.
    """
    provider, _, name = student.partition(":")
    try:
        if provider == "embedded":
            model_path(name)  # fetched here if need be, and not within the deadline of a check
        classifier = PLDClassifier.zero_shot(task, resolve_chat_model(student), timeout_s=120)
    except ModelSetupError as error:
        sys.exit(str(error))
    failure = classifier.invoke("Good morning.").failure
    if failure is not None and failure.kind != "unreadable":  # which is only a model too small for the question
        sys.exit(f"{student} cannot answer: {failure.message}")
    return classifier
