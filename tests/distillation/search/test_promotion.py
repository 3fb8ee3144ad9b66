"""What is shipped, when the test rows are read, and the gate that a run asks for."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import MemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from langchain_pld import DistilledPrompt, PLDClassifier
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.plan import Budget
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.run.store import RunStore
from tests.distillation.scenarios import PLAN, SETS, TASK, costly_teacher_script, distil, rows, student, teacher
from tests.fakes import FakeChatModel, scored, text_of

UNDECIDED = {"amber": 0.6, "violet": 0.4}


def read_subject(messages: list[BaseMessage]) -> dict[str, float]:
    return {"amber": 0.9, "violet": 0.1} if "invoice" in text_of(messages) else {"amber": 0.2, "violet": 0.8}


def reads_test_rows(student: FakeChatModel) -> bool:
    return any("test number" in text_of(messages) for messages in student.asked)


async def test_a_better_prompt_without_rules_replaces_a_bad_incumbent() -> None:
    def confused_by_rules(messages: list[BaseMessage]) -> AIMessage:
        return scored(UNDECIDED if "Rules" in str(messages[0].text) else read_subject(messages))

    incumbent = await distil()
    assert incumbent.rules
    artifact = await distil(student=student(confused_by_rules), incumbent=incumbent)
    assert artifact.rules == ()
    assert artifact.finish_reason == "converged"
    assert "the prompt without rules is better than the incumbent" in artifact.notes[0]
    assert artifact.parent == incumbent.id


async def test_after_a_budget_end_the_test_rows_are_unread_until_the_search_is_over() -> None:
    kept: dict[str, Any] = {"store": InMemoryStore(), "checkpointer": MemorySaver(), "student": student()}
    for calls in (90, 5000):
        artifact = await distil(effort=PLAN.model_copy(update={"budget": Budget(calls=calls)}), **kept)
        is_over = calls == 5000
        assert (artifact.finish_reason == "budget") is not is_over
        assert reads_test_rows(kept["student"]) is is_over
        assert any(card.role == "test" for card in artifact.scores) is is_over
        assert any("the test rows were not read" in note for note in artifact.notes) is not is_over


async def test_when_the_money_is_spent_the_test_rows_stay_unread_though_the_student_is_free() -> None:
    prices = {"teacher": Price(input=5.0, output=10.0), "student": Price(input=0, output=0)}
    free = student(model="student")
    artifact = await distil(
        teacher=teacher(costly_teacher_script, model="teacher"),
        student=free,
        effort=PLAN.model_copy(update={"ceiling": 0.99, "budget": Budget(usd=0.003), "prices": prices}),
    )
    assert artifact.finish_reason == "budget"
    assert not reads_test_rows(free)


async def test_when_a_person_rejects_all_rules_the_prompt_answers_as_the_one_without_rules_did() -> None:
    def script(messages: list[BaseMessage]) -> AIMessage:
        """Letters are better with rules, names without."""
        system = str(messages[0].text)
        letters, rules = "- A (amber)" in system, "Rules" in system
        is_sure = letters == rules and (rules or text_of(messages)[-1] not in "369")
        probabilities = read_subject(messages) if is_sure else UNDECIDED
        return scored(dict(zip("AB", probabilities.values(), strict=True)) if letters else probabilities)

    store = InMemoryStore()
    for role, found in SETS.items():
        await RunStore(store, "r").put_examples(role, found)  # type: ignore[arg-type]
    graph = build_distillation_graph(
        teacher=teacher(), student=student(script), store=store, checkpointer=MemorySaver()
    )
    plan = PLAN.model_copy(update={"answer_forms": ("names", "letters"), "require_review": True})
    config: RunnableConfig = {"configurable": {"thread_id": "r"}}
    start: Any = {"run_id": "r", "task": TASK, "plan": plan}
    await graph.ainvoke(start, config, context=DistillConfig())
    waiting = (await graph.aget_state(config)).values
    assert waiting["zero_shot"].answer.form == "words"
    assert waiting["artifact"].answer.form == "letters"
    assert waiting["artifact"].rules
    answer = {"reviewer": "Ada", "decisions": [{"type": "reject"}] * len(waiting["artifact"].rules)}
    done = await graph.ainvoke(Command(resume=answer), config, context=DistillConfig())
    assert done["artifact"].rules == ()
    assert done["artifact"].answer == waiting["zero_shot"].answer


ALPHA = 0.1


def uncertain_when_wrong(messages: list[BaseMessage]) -> AIMessage:
    """Right and certain about four notes of five; wrong about the fifth, and less certain."""
    text = text_of(messages)
    right, wrong = ("amber", "violet") if "invoice" in text else ("violet", "amber")
    return scored({wrong: 0.55, right: 0.45} if int(text.split()[-1]) % 5 == 0 else {right: 0.95, wrong: 0.05})


async def distil_with_gate(validation: int) -> DistilledPrompt:
    return await distil(
        validation=rows("validation", validation),
        test=None,
        student=student(uncertain_when_wrong),
        effort=PLAN.model_copy(update={"max_risk": ALPHA}),
    )


async def test_the_gate_of_a_run_keeps_the_risk_in_the_classifier() -> None:
    artifact = await distil_with_gate(150)
    gate = artifact.gate
    assert gate is not None
    assert (gate.alpha, gate.rows) == (ALPHA, 150)
    assert gate.threshold is not None
    assert 0.7 < gate.coverage < 0.9

    classifier = PLDClassifier(artifact=artifact, student=student(uncertain_when_wrong))
    fresh = rows("fresh", 100)
    verdicts = await classifier.abatch([row.input for row in fresh])
    decided = [(verdict.label, row.label) for verdict, row in zip(verdicts, fresh, strict=True) if verdict.label]
    assert len(decided) == 80, "the others abstain"
    assert sum(label != gold for label, gold in decided) / len(decided) <= ALPHA


async def test_with_too_few_rows_for_a_gate_the_classifier_abstains_always() -> None:
    artifact = await distil_with_gate(10)
    assert artifact.gate is not None
    assert artifact.gate.threshold is None
    assert any("the gate always abstains" in note for note in artifact.notes)
    classifier = PLDClassifier(artifact=artifact, student=student(uncertain_when_wrong))
    verdict = await classifier.ainvoke("invoice note number 1")
    assert (verdict.status, verdict.predicted_label) == ("abstained", "amber")
