"""A classifier without a distilled prompt, so that the scripts beside this file run as they are.

Its scores are nobody's measurement. With an artifact it is one line: `PLDClassifier.from_artifact("chat.pld.json")`.
"""

from langchain_pld import PLDClassifier, Task, resolve_chat_model

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
    """The student with the bare task as its prompt."""
    return PLDClassifier.zero_shot(task, resolve_chat_model(student), timeout_s=120)
