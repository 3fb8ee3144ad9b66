"""A run that asks for a gate stores one, and the classifier that is made from the artifact keeps the risk by it."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import DistilledPrompt, PLDClassifier, adistill
from tests.distillation.scenarios import PLAN, TASK, rows, teacher_script
from tests.fakes import FakeChatModel, scored, text_of

ALPHA = 0.1


def student_script(messages: list[BaseMessage]) -> AIMessage:
    """Right and sure about four notes of five; about the fifth it is wrong, and not sure."""
    text = text_of(messages)
    right, wrong = ("amber", "violet") if "invoice" in text else ("violet", "amber")
    if int(text.split()[-1]) % 5 == 0:
        return scored({wrong: 0.55, right: 0.45})
    return scored({right: 0.95, wrong: 0.05})


async def distilled(validation: int) -> DistilledPrompt:
    return await adistill(
        TASK,
        train=rows("train", 12),
        validation=rows("validation", validation),
        teacher=FakeChatModel(script=teacher_script),
        student=FakeChatModel(script=student_script),
        effort=PLAN.model_copy(update={"max_risk": ALPHA}),
    )


async def test_the_gate_of_a_run_keeps_the_risk_in_the_classifier() -> None:
    artifact = await distilled(150)
    gate = artifact.gate
    assert gate is not None
    assert (gate.alpha, gate.rows) == (ALPHA, 150)
    assert gate.threshold is not None
    assert 0.7 < gate.coverage < 0.9

    classifier = PLDClassifier(artifact=artifact, student=FakeChatModel(script=student_script))
    fresh = rows("fresh", 100)
    verdicts = await classifier.abatch([row.input for row in fresh])
    decided = [(verdict.label, row.label) for verdict, row in zip(verdicts, fresh, strict=True) if verdict.label]
    assert len(decided) == 80, "the others abstain"
    assert sum(label != gold for label, gold in decided) / len(decided) <= ALPHA


async def test_with_too_few_rows_for_a_gate_the_classifier_abstains_always() -> None:
    artifact = await distilled(10)
    assert artifact.gate is not None
    assert artifact.gate.threshold is None
    assert any("the gate always abstains" in note for note in artifact.notes)
    classifier = PLDClassifier(artifact=artifact, student=FakeChatModel(script=student_script))
    verdict = await classifier.ainvoke("invoice note number 1")
    assert (verdict.status, verdict.predicted_label) == ("abstained", "amber")
