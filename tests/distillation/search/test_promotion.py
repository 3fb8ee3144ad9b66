"""What is shipped, and when the test rows are read."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import MemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from langchain_pld import adistill
from langchain_pld.distillation.budget import Budget
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.run.store import RunStore
from tests.distillation.scenarios import (
    PLAN,
    TASK,
    costly_teacher_script,
    distil,
    rows,
    student_script,
    teacher_script,
)
from tests.fakes import FakeChatModel, scored, text_of

ROLES: dict[str, Any] = {
    "train": rows("train", 12),
    "validation": rows("validation", 60),
    "test": rows("test", 20),
}


def right(messages: list[BaseMessage]) -> dict[str, float]:
    return {"amber": 0.9, "violet": 0.1} if "invoice" in text_of(messages) else {"amber": 0.2, "violet": 0.8}


async def test_a_better_prompt_without_rules_replaces_a_bad_incumbent() -> None:
    def confused_by_rules(messages: list[BaseMessage]) -> AIMessage:
        return scored({"amber": 0.6, "violet": 0.4} if "Rules" in str(messages[0].text) else right(messages))

    def models(student: Any) -> dict[str, Any]:
        return {"teacher": FakeChatModel(script=teacher_script), "student": FakeChatModel(script=student)}

    incumbent = await adistill(TASK, **ROLES, effort=PLAN, **models(student_script))
    assert incumbent.rules
    artifact = await adistill(TASK, **ROLES, effort=PLAN, **models(confused_by_rules), incumbent=incumbent)
    assert artifact.rules == ()
    assert artifact.finish_reason == "converged"
    assert "the prompt without rules is better than the incumbent" in artifact.notes[0]
    assert artifact.parent == incumbent.id


async def test_after_a_budget_end_the_test_rows_are_unread_until_the_search_is_over() -> None:
    store, saver, student = InMemoryStore(), MemorySaver(), FakeChatModel(script=student_script)
    for calls in (90, 5000):
        artifact = await adistill(
            TASK,
            **ROLES,
            teacher=FakeChatModel(script=teacher_script),
            student=student,
            effort=PLAN.model_copy(update={"budget": Budget(calls=calls)}),
            store=store,
            checkpointer=saver,
        )
        read = [messages for messages in student.asked if "test number" in text_of(messages)]
        over = calls == 5000
        assert (artifact.finish_reason == "budget") is not over
        assert bool(read) is over
        assert any(card.role == "test" for card in artifact.scores) is over
        assert any("the test rows were not read" in note for note in artifact.notes) is not over


async def test_money_that_is_spent_leaves_the_test_rows_unread_though_the_student_is_free() -> None:
    prices = {"teacher": Price(input=5.0, output=10.0), "student": Price(input=0, output=0)}
    student = FakeChatModel(script=student_script, model="student")
    artifact = await distil(
        teacher=FakeChatModel(script=costly_teacher_script, model="teacher"),
        student=student,
        effort=PLAN.model_copy(update={"ceiling": 0.99, "budget": Budget(usd=0.003), "prices": prices}),
    )
    assert artifact.finish_reason == "budget"
    assert not [messages for messages in student.asked if "test number" in text_of(messages)]


async def test_when_a_person_rejects_all_rules_the_prompt_answers_as_the_one_without_rules_did() -> None:
    def script(messages: list[BaseMessage]) -> AIMessage:
        """Letters are better with rules, names without."""
        system = str(messages[0].text)
        letters = "- A (amber)" in system
        sure = letters == ("Rules" in system)
        chances = right(messages) if sure else {"amber": 0.6, "violet": 0.4}
        if "Rules" not in system and text_of(messages)[-1] in "369":
            chances = {"amber": 0.6, "violet": 0.4}
        if letters:
            chances = {"A": chances["amber"], "B": chances["violet"]}
        return scored(chances)

    store, saver = InMemoryStore(), MemorySaver()
    for role, found in ROLES.items():
        await RunStore(store, "r").put_examples(role, found)  # type: ignore[arg-type]
    graph = build_distillation_graph(
        teacher=FakeChatModel(script=teacher_script),
        student=FakeChatModel(script=script),
        store=store,
        checkpointer=saver,
    )
    plan = PLAN.model_copy(update={"answer_forms": ("names", "letters"), "require_review": True})
    config: RunnableConfig = {"configurable": {"thread_id": "r"}}
    start: Any = {"run_id": "r", "task": TASK, "plan": plan}
    await graph.ainvoke(start, config, context=DistillConfig())
    waiting = (await graph.aget_state(config)).values
    assert waiting["zero_shot"].answer.form == "words"
    assert waiting["artifact"].answer.form == "letters"
    count = len(waiting["artifact"].rules)
    assert count
    answer = {"reviewer": "Ada", "decisions": [{"type": "reject"}] * count}
    done = await graph.ainvoke(Command(resume=answer), config, context=DistillConfig())
    assert done["artifact"].rules == ()
    assert done["artifact"].answer == waiting["zero_shot"].answer
