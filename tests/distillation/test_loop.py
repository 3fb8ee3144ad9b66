"""The loop: the teacher edits rules in view of mistakes on train rows, and only what helps is kept."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import MemorySaver
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt, adistill
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.store import RunStore
from tests.distillation.test_graph import TASK, rows
from tests.fakes import FakeChatModel, scored, text_of

PLAN = PLANS["light"].model_copy(
    update={"train_examples": 8, "rules_per_label": 1, "trials": 0, "rounds": 2, "ceiling": None}
)
GOOD = "If the text is about an invoice that was sent"


def told(messages: list[BaseMessage]) -> str:
    return "\n".join(str(message.text) for message in messages)


def teacher_script(messages: list[BaseMessage]) -> AIMessage:
    """Writes rules that say nothing; shown the mistakes, it writes one that does."""
    if "You correct the rules" in told(messages):
        edits = [{"action": "add", "rule": 0, "label": "amber", "conditions": [GOOD]}]
        return AIMessage(json.dumps({"cause": "the subject was not looked at", "edits": edits}))
    amber = 'label is "amber"' in told(messages)
    condition = f"If the text was written {'in the morning' if amber else 'late at night'} by somebody"
    return AIMessage(json.dumps({"reason": "so", "shared": "so", "condition": condition}))


def student_script(messages: list[BaseMessage]) -> AIMessage:
    """Reads the subject only where a rule tells it to; a prompt with empty rules is a little better than none."""
    system, amber = str(messages[0].text), "invoice" in text_of(messages)
    if "about an invoice" in system:
        return scored({"amber": 0.9, "violet": 0.1} if amber else {"amber": 0.2, "violet": 0.8})
    number = int(text_of(messages).rpartition(" ")[2]) if text_of(messages)[-1:].isdigit() else 0
    leans = number % 3 == 0 and "Rules" in system
    return scored({"amber": 0.6, "violet": 0.4} if amber or not leans else {"amber": 0.4, "violet": 0.6})


def sets() -> dict[str, object]:
    return {"train": rows("train", 12), "validation": rows("validation", 60), "test": rows("test", 20)}


async def run(teacher: FakeChatModel, student: FakeChatModel) -> DistilledPrompt:
    return await adistill(TASK, teacher=teacher, student=student, effort=PLAN, **sets())  # type: ignore[arg-type]


async def test_an_edit_that_helps_is_kept_with_the_rows_that_it_comes_from() -> None:
    artifact = await run(FakeChatModel(script=teacher_script), FakeChatModel(script=student_script))
    assert artifact.finish_reason == "converged"
    added = next(rule for rule in artifact.rules if rule.condition == GOOD)
    assert added.label == "amber"
    assert added.support == len(added.sources)
    assert GOOD in artifact.system_prompt
    shipped = next(card for card in artifact.scores if (card.name, card.role) == ("distilled", "test"))
    assert shipped.macro_f1.value == 1.0


async def test_the_teacher_is_shown_mistakes_on_train_rows_only() -> None:
    teacher = FakeChatModel(script=teacher_script)
    await run(teacher, FakeChatModel(script=student_script))
    revisions = [told(messages) for messages in teacher.asked if "You correct the rules" in told(messages)]
    assert revisions
    assert all("train number" in question for question in revisions)
    assert not any("validation number" in question or "test number" in question for question in revisions)


async def test_an_edit_that_does_harm_is_not_kept() -> None:
    def script(messages: list[BaseMessage]) -> AIMessage:
        if "Rules" not in str(messages[0].text):
            return scored({"amber": 0.6, "violet": 0.4})
        if "about an invoice" in str(messages[0].text):
            return scored({"amber": 0.5, "violet": 0.5})
        right = {"amber": 0.7, "violet": 0.3} if "invoice" in text_of(messages) else {"amber": 0.3, "violet": 0.7}
        wrong = text_of(messages).endswith(("1", "2"))
        return scored(dict(zip(right, reversed(right.values()), strict=True)) if wrong else right)

    artifact = await run(FakeChatModel(script=teacher_script), FakeChatModel(script=script))
    assert GOOD not in artifact.system_prompt
    assert artifact.rules


async def test_a_run_that_stops_inside_the_loop_goes_on_with_the_rules_that_it_had() -> None:
    store, saver = InMemoryStore(), MemorySaver()
    student = FakeChatModel(script=student_script)
    for role, found in sets().items():
        await RunStore(store, "r").put_examples(role, found)  # type: ignore[arg-type]
    config: RunnableConfig = {"configurable": {"thread_id": "r"}}
    start: Any = {"run_id": "r", "task": TASK, "plan": PLAN}
    for given in (start, None):
        graph = build_distillation_graph(
            teacher=FakeChatModel(script=teacher_script), student=student, store=store, checkpointer=saver
        )
        await graph.ainvoke(given, config, context=DistillConfig(), interrupt_before=["validate"])
    state = (await graph.aget_state(config)).values
    assert state["champion"].rules
    assert state["proposals"]
    before = len(student.asked)
    graph = build_distillation_graph(
        teacher=FakeChatModel(script=teacher_script), student=student, store=store, checkpointer=saver
    )
    done = await graph.ainvoke(None, config, context=DistillConfig())
    assert {rule.id for rule in state["champion"].rules} <= {rule.id for rule in done["artifact"].rules}
    assert GOOD in done["artifact"].system_prompt
    # What was scored before is not asked again: of the prompt without rules only the test rows are left.
    asked = student.asked[before:]
    assert all("test number" in text_of(messages) for messages in asked if "Rules" not in str(messages[0].text))
