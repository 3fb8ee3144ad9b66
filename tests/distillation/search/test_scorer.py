"""Scoring candidates with the student."""

from __future__ import annotations

import math

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import Budget
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.scorer import StudentScorer
from tests.distillation.scenarios import PLAN, TASK, rows
from tests.fakes import FakeChatModel, scored, text_of

CANDIDATE = Candidate(answer=AnswerFormat.words(TASK))


def script(messages: list[BaseMessage]) -> AIMessage:
    """Reads the subject, and gives no readable answer about number 7."""
    text = text_of(messages)
    if text.endswith("number 7"):
        return AIMessage("?")
    return scored({"amber": 0.9, "violet": 0.1} if "invoice" in text else {"amber": 0.3, "violet": 0.7})


async def scorer_with(store: InMemoryStore, student: FakeChatModel, budget: Budget | None = None) -> StudentScorer:
    plan = PLAN.model_copy(update={"budget": budget or Budget()})
    run = await Run.open("validate", task=TASK, plan=plan, store=RunStore(store, "run"), student=student)
    return StudentScorer(run, await run.student_fingerprint(), "logprobs")


async def test_a_failed_row_keeps_its_place_and_costs_as_much_as_a_wrong_and_certain_answer() -> None:
    validation = rows("validation", 60)
    scorer = await scorer_with(InMemoryStore(), FakeChatModel(script=script))
    result = await scorer.validate(CANDIDATE, validation)
    assert result.fit is not None
    assert [n for n, one in enumerate(result.probabilities) if one is None] == [7]
    assert result.losses[7] == pytest.approx(-math.log(1e-6))
    assert [n for n, row in enumerate(validation) if result.predictions[n] != row.label] == [7]
    raw, calibrated = scorer.cards(result, validation, name="zero-shot")
    assert (raw.calibrated, calibrated.calibrated) == (False, True)
    assert raw.failed == calibrated.failed == 1
    assert calibrated.log_loss is not None
    assert raw.log_loss is not None
    assert calibrated.log_loss < raw.log_loss


async def test_other_rows_get_the_calibration_of_the_validation_rows() -> None:
    scorer = await scorer_with(InMemoryStore(), FakeChatModel(script=script))
    result = await scorer.validate(CANDIDATE, rows("validation", 60))
    test = rows("test", 20)
    scores = await scorer.score(CANDIDATE, test, "test")
    assert result.calibrate(scores)[7] is None
    raw, calibrated = scorer.cards(result, test, name="zero-shot", role="test", scores=scores)
    assert (raw.role, raw.rows, calibrated.calibrated) == ("test", 20, True)
    assert {line.node for line in scorer.run.spending.ledger} == {"validate", "test"}


async def test_when_the_budget_ends_what_was_scored_is_kept() -> None:
    store, student = InMemoryStore(), FakeChatModel(script=script)
    with pytest.raises(BudgetSpent):
        await (await scorer_with(store, student, Budget(calls=30))).score(CANDIDATE, rows("train", 60), "train")
    paid = len(student.asked)
    assert 30 <= paid < 60
    await (await scorer_with(store, student)).score(CANDIDATE, rows("train", 60), "train")
    assert len(student.asked) == 60
