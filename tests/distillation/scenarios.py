"""Scenarios that many tests run: two teams, a teacher and students that are scripted, and what to run them with.

A note goes to `amber` when it is about an invoice and to `violet` when it is about a parcel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt, Example, Task, adistill
from langchain_pld.distillation.plan import PLANS, Plan
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.state import DistillationState
from langchain_pld.examples import ExampleSet
from tests.fakes import FakeChatModel, scored, text_of

TASK = Task(
    name="colours",
    instructions="Decide which team gets the note.",
    labels=[{"name": "amber"}, {"name": "violet"}],
)
PLAN = PLANS["light"].model_copy(
    update={"train_examples": 8, "rules_per_label": 1, "trials": 1, "rounds": 0, "ceiling": None}
)
"""The smallest whole run."""
PLAN_WITH_CEILING = PLAN.model_copy(update={"ceiling": 0.99})
"""It ends as soon as the validation rows come out right."""
REVISION_PLAN = PLAN.model_copy(update={"trials": 0, "rounds": 2})
"""It goes through the loop, and its rules change there alone."""
INVOICE_RULE = "If the text is about an invoice that was sent"


def rows(role: str, count: int) -> ExampleSet:
    """Notes about parcels and invoices in turn; each text names its role."""
    notes = [
        Example(
            id=f"{role}-{n}",
            input=f"{'invoice' if n % 2 else 'parcel'} note {role} number {n}",
            label="amber" if n % 2 else "violet",
        )
        for n in range(count)
    ]
    return ExampleSet.of(notes, TASK, source=role)


SETS: dict[str, Any] = {"train": rows("train", 12), "validation": rows("validation", 60), "test": rows("test", 20)}


def text_of_all(asked: Sequence[Sequence[BaseMessage]]) -> str:
    """All that was asked, in one text."""
    return "\n".join(str(message.text) for messages in asked for message in messages)


def teacher_script(messages: list[BaseMessage]) -> AIMessage:
    """Knows which subject each team has."""
    label = re.search(r'label is "(\w+)"', text_of_all([messages]))
    condition = INVOICE_RULE if label and label[1] == "amber" else "If the text is about a parcel that was sent"
    answer = {"reason": "it says so", "shared": "the same subject", "condition": condition, "cues": ["subject"]}
    return AIMessage(json.dumps(answer))


def costly_teacher_script(messages: list[BaseMessage]) -> AIMessage:
    """As `teacher_script`, with token counts."""
    answer = teacher_script(messages)
    answer.usage_metadata = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    return answer


def revising_teacher_script(messages: list[BaseMessage]) -> AIMessage:
    """Writes rules that say nothing; shown the mistakes, it writes one that does."""
    question = text_of_all([messages])
    if "You correct the rules" in question:
        edits = [{"action": "add", "rule": 0, "label": "amber", "conditions": [INVOICE_RULE]}]
        return AIMessage(json.dumps({"cause": "the subject was not looked at", "edits": edits}))
    amber = 'label is "amber"' in question
    condition = f"If the text was written {'in the morning' if amber else 'late at night'} by somebody"
    return AIMessage(json.dumps({"reason": "so", "shared": "so", "condition": condition}))


def student_script(messages: list[BaseMessage]) -> AIMessage:
    """Knows nothing without rules; with rules it reads the subject."""
    if "Rules" not in str(messages[0].text):
        return stubborn_student_script(messages)
    return scored({"amber": 0.9, "violet": 0.1} if "invoice" in text_of(messages) else {"amber": 0.2, "violet": 0.8})


def stubborn_student_script(_: list[BaseMessage]) -> AIMessage:
    """Answers the same whatever it reads."""
    return scored({"amber": 0.6, "violet": 0.4})


def revised_student_script(messages: list[BaseMessage]) -> AIMessage:
    """Reads the subject only where a rule tells it to; a prompt with empty rules is a little better than none."""
    system, amber = str(messages[0].text), "invoice" in text_of(messages)
    if "about an invoice" in system:
        return scored({"amber": 0.9, "violet": 0.1} if amber else {"amber": 0.2, "violet": 0.8})
    number = int(text_of(messages).rpartition(" ")[2]) if text_of(messages)[-1:].isdigit() else 0
    leans = number % 3 == 0 and "Rules" in system
    return scored({"amber": 0.6, "violet": 0.4} if amber or not leans else {"amber": 0.4, "violet": 0.6})


def teacher(script: Any = teacher_script, **fields: Any) -> FakeChatModel:
    return FakeChatModel(script=script, **fields)


def student(script: Any = student_script, **fields: Any) -> FakeChatModel:
    return FakeChatModel(script=script, **fields)


async def distil(task: Task = TASK, **options: Any) -> DistilledPrompt:
    """The artifact of a run, by default of the scripted models and all rows under `PLAN`."""
    return await adistill(task, **{**SETS, "teacher": teacher(), "student": student(), "effort": PLAN, **options})


Node = Callable[[DistillationState, Run], Awaitable[dict[str, Any]]]


async def run_nodes(
    *nodes: Node,
    task: Task,
    sets: dict[Role, ExampleSet],
    teacher: FakeChatModel,
    student: FakeChatModel | None = None,
    state: dict[str, Any] | None = None,
    **numbers: Any,
) -> dict[str, Any]:
    """The state after the nodes, with the run's store and its log in one text; numbers change the light plan."""
    undecided = FakeChatModel(script=lambda _: scored(dict.fromkeys(task.label_names, 1 / len(task.labels))))
    store = RunStore(InMemoryStore(), "run")
    for role, found in sets.items():
        await store.put_examples(role, found)
    plan = Plan.model_validate({**PLANS["light"].model_dump(), **numbers})
    after: Any = {"task": task, "plan": plan, **(state or {})}
    log: list[str] = []
    for node in nodes:
        run = await Run.open(
            node.__name__, task=task, plan=plan, store=store, student=student or undecided, teacher_model=teacher
        )
        after |= await node(after, run)
        log += run.log
    return {**after, "store": store, "log": "\n".join(log)}


def comparable(artifact: DistilledPrompt) -> dict[str, Any]:
    """All but what differs from run to run: times, and what the ledger says of calls and cache."""
    content = artifact.model_dump(exclude={"created", "ledger"})
    content["scores"] = [{**card, "ms_per_text": None} for card in content["scores"]]
    content["notes"] = [re.sub(r"\d+ ms", "some ms", note) for note in content["notes"]]
    return content
