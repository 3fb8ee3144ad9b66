"""The loop: the teacher edits rules in view of mistakes on train rows, and only what helps is kept."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import MemorySaver
from langgraph.store.memory import InMemoryStore

from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.run.store import RunStore
from tests.distillation.scenarios import (
    INVOICE_RULE,
    REVISION_PLAN,
    SETS,
    TASK,
    distil,
    revised_student_script,
    revising_teacher_script,
    student,
    teacher,
    text_of_all,
)
from tests.fakes import scored, text_of

REVISING: dict[str, Any] = {
    "teacher": teacher(revising_teacher_script),
    "student": student(revised_student_script),
    "effort": REVISION_PLAN,
}


async def test_an_edit_that_helps_is_kept_with_the_rows_that_it_comes_from() -> None:
    artifact = await distil(**REVISING)
    assert artifact.finish_reason == "converged"
    added = next(rule for rule in artifact.rules if rule.condition == INVOICE_RULE)
    assert added.label == "amber"
    assert added.support == len(added.sources)
    assert INVOICE_RULE in artifact.system_prompt
    shipped = next(card for card in artifact.scores if (card.name, card.role) == ("distilled", "test"))
    assert shipped.macro_f1.value == 1.0


async def test_the_teacher_is_shown_mistakes_on_train_rows_only() -> None:
    writer = teacher(revising_teacher_script)
    await distil(**{**REVISING, "teacher": writer})
    questions = [text_of_all([messages]) for messages in writer.asked]
    revisions = [question for question in questions if "You correct the rules" in question]
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

    artifact = await distil(**{**REVISING, "student": student(script)})
    assert INVOICE_RULE not in artifact.system_prompt
    assert artifact.rules


async def test_a_run_that_stops_inside_the_loop_goes_on_with_the_rules_that_it_had() -> None:
    store, saver = InMemoryStore(), MemorySaver()
    reader = student(revised_student_script)
    for role, found in SETS.items():
        await RunStore(store, "r").put_examples(role, found)  # type: ignore[arg-type]
    config: RunnableConfig = {"configurable": {"thread_id": "r"}}
    start: Any = {"run_id": "r", "task": TASK, "plan": REVISION_PLAN}
    models: Any = {"teacher": teacher(revising_teacher_script), "student": reader}
    for start_or_resume in (start, None):
        graph = build_distillation_graph(**models, store=store, checkpointer=saver)
        await graph.ainvoke(start_or_resume, config, context=DistillConfig(), interrupt_before=["validate"])
    state = (await graph.aget_state(config)).values
    assert state["champion"].rules
    assert state["proposals"]
    before = len(reader.asked)
    graph = build_distillation_graph(**models, store=store, checkpointer=saver)
    done = await graph.ainvoke(None, config, context=DistillConfig())
    assert {rule.id for rule in state["champion"].rules} <= {rule.id for rule in done["artifact"].rules}
    assert INVOICE_RULE in done["artifact"].system_prompt
    # What was scored before is not asked again: of the prompt without rules only the test rows are left.
    asked = reader.asked[before:]
    assert all("test number" in text_of(messages) for messages in asked if "Rules" not in str(messages[0].text))
