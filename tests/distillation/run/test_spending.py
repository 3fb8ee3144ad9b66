"""Whole runs under a budget, and the estimate that is told before."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.estimate import estimate
from langchain_pld.distillation.plan import Budget
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent, Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.errors import StudentError
from langchain_pld.student.providers import fingerprint_of
from tests.distillation.scenarios import (
    PLAN_WITH_CEILING as PLAN,
)
from tests.distillation.scenarios import (
    SETS,
    TASK,
    costly_teacher_script,
    distil,
    student_script,
)
from tests.fakes import FakeChatModel, scored

PRICES = {"teacher": Price(input=5.0, output=10.0), "student": Price(input=0, output=0)}


def models(**scripts: Any) -> dict[str, Any]:
    scripts = {"teacher": costly_teacher_script, "student": student_script, **scripts}
    return {role: FakeChatModel(script=script, model=role) for role, script in scripts.items()}


async def run(budget: Budget, **options: Any) -> tuple[DistilledPrompt, Any, Any]:
    plan = PLAN.model_copy(update={"budget": budget, "prices": PRICES})
    asked = models()
    return await distil(effort=plan, **asked, **options), asked["teacher"], asked["student"]


@pytest.mark.parametrize("budget", [Budget(calls=0), Budget(tokens=0), Budget(minutes=0)])
async def test_a_budget_that_allows_nothing_ships_the_prompt_without_rules(budget: Budget) -> None:
    artifact, teacher, student = await run(budget)
    assert artifact.finish_reason == "budget"
    assert artifact.rules == ()
    assert artifact.scores == ()
    assert "never measured" in artifact.notes[0]
    assert teacher.asked == []
    assert len(student.asked) <= 3  # how its answers can be read has to be found out in any case


async def test_when_the_money_is_spent_the_free_student_still_decides_about_the_rules_there_are() -> None:
    artifact, teacher, _ = await run(Budget(usd=0.003))
    assert 3 <= len(teacher.asked) <= 3 + PLAN.concurrency
    assert artifact.finish_reason == "budget"
    assert {card.name for card in artifact.scores if card.role == "validation"} >= {"zero-shot"}


async def test_a_run_that_is_stopped_while_the_student_scores_keeps_the_best_so_far() -> None:
    whole, teacher, _ = await run(Budget())
    artifact, _, student = await run(Budget(calls=len(teacher.asked) + 70))
    assert artifact.finish_reason == "budget"
    assert len(student.asked) < 130
    assert {card.name for card in artifact.scores} >= {"zero-shot"}
    assert whole.finish_reason != "budget"


async def test_the_ledger_of_a_whole_run_has_costs_and_stays_below_the_estimate() -> None:
    seen: list[Progress] = []
    artifact, teacher, student = await run(Budget(), on_progress=seen.append)
    costs = {(line.node, line.model): line.cost for line in artifact.ledger}
    assert costs["generate", "fake-chat:teacher"] == pytest.approx(8 * 0.001)
    assert costs["validate", "fake-chat:student"] == 0.0
    assert [progress.cost for progress in seen if progress.cost][-1] == pytest.approx(len(teacher.asked) * 0.001)
    told = estimate(
        TASK,
        PLAN.model_copy(update={"prices": PRICES}),
        **SETS,
        teacher="fake-chat:teacher",
        students=["fake-chat:student"],
    )
    bound: Counter[str] = Counter()
    for line in told.lines:
        bound[line.model] += line.calls
    assert 0 < len(teacher.asked) <= bound["fake-chat:teacher"]
    assert 0 < len(student.asked) <= bound["fake-chat:student"]
    assert told.cost is not None
    assert told.cost >= sum(cost or 0.0 for cost in costs.values()) > 0
    assert told.seconds is None


def test_an_estimate_tells_minutes_of_the_embedded_model_and_unknown_prices() -> None:
    told = estimate(
        TASK, PLAN, train=SETS["train"], validation=SETS["validation"], teacher="embedded:x", students=["openai:gpt-99"]
    )
    assert told.seconds is not None
    assert told.seconds > 60
    assert told.cost is None
    assert {line.cost for line in told.lines if line.model == "embedded:x"} == {0.0}
    assert "8 examples" in told.lines[0].how


async def test_what_was_spent_is_known_again_after_the_process_ended() -> None:
    kept = RunStore(InMemoryStore(), "r")
    plan = PLAN.model_copy(update={"budget": Budget(calls=3)})
    first = await Spending.of(kept, plan)
    await first.add(LedgerLine(node="generate", model="ollama:a", calls=2, input_tokens=10, seconds=1.0))
    second = await Spending.of(kept, plan)
    assert second.ledger == first.ledger
    assert second.seconds >= first.seconds - 1
    second.check("ollama:a")
    await second.add(LedgerLine(node="generate", model="ollama:a", calls=1))
    with pytest.raises(BudgetSpent, match="the budget of 3 calls is spent"):
        second.check("ollama:a")


def test_a_budget_in_dollars_allows_no_call_whose_price_nobody_knows() -> None:
    spending = Spending(Budget(usd=1.0))
    assert spending.over("ollama:a") is None
    assert "the price of openai:gpt-99 is not known" in (spending.over("openai:gpt-99") or "")


@pytest.mark.parametrize("choose", ["random", "uncertain"])
async def test_every_call_stands_in_the_ledger_those_that_find_out_how_to_read_answers_included(choose: str) -> None:
    asked = models()
    teacher, student = asked.values()
    plan = PLAN.model_copy(update={"choose": choose, "rounds": 1, "ceiling": None})
    artifact = await distil(effort=plan, **asked)
    calls: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for line in artifact.ledger:
        calls[line.model] += line.calls
        tokens[line.model] += line.input_tokens
    assert calls == {"fake-chat:teacher": len(teacher.asked), "fake-chat:student": len(student.asked)}
    assert tokens["fake-chat:student"] == 100 * len(student.asked)
    read = [messages for messages in student.asked if "test number" in str(messages[-1].text)]
    assert read
    assert [line.calls for line in artifact.ledger if line.node == "test"] == [len(read)]


async def test_the_calls_that_learn_how_an_incumbent_is_read_stand_in_the_ledger() -> None:
    before = await distil(effort=PLAN, **models())
    incumbent = before.model_copy(update={"answer": before.answer.model_copy(update={"first_tokens": None})})
    again = models()
    artifact = await distil(effort=PLAN, **again, incumbent=incumbent)
    calls = sum(line.calls for line in artifact.ledger if line.model == "fake-chat:student")
    assert calls == len(again["student"].asked)


async def test_what_was_learned_about_reading_answers_is_asked_once_in_a_run_of_several_passes() -> None:
    def writes(messages: list[BaseMessage]) -> AIMessage:
        question = str(messages[-1].text)
        word = question.startswith("Write this word")
        return scored({question.split()[-1]: 0.9}) if word else student_script(messages)

    plan = PLAN.model_copy(update={"choose": "uncertain", "train_examples": 8, "rounds": 2, "ceiling": None})
    before = await distil(effort=plan, **models(student=writes), test=None)
    incumbent = before.model_copy(update={"answer": before.answer.model_copy(update={"first_tokens": None})})
    again = models(student=writes)
    artifact = await distil(effort=plan, **again, incumbent=incumbent, test=None)
    nodes = {line.node for line in artifact.ledger if line.model == "fake-chat:student"}
    assert nodes == {"generate", "critique", "validate"}
    questions = [str(messages[-1].text) for messages in again["student"].asked]
    assert sorted(question for question in questions if question.startswith("Write this word")) == [
        f"Write this word and nothing else: {label}" for label in ("amber", "violet")
    ]


async def test_calls_of_a_student_that_cannot_be_read_stand_in_the_ledger_as_well() -> None:
    kept = InMemoryStore()
    with pytest.raises(StudentError):
        await distil(effort=PLAN, **models(student=lambda _: AIMessage("I would rather not.")), store=kept)
    found = await Spending.of(RunStore(kept, "default"), PLAN)
    assert [line.calls for line in found.ledger if line.model == "fake-chat:student"] == [3]


async def test_student_answers_are_kept_before_they_are_entered() -> None:
    """A run that is killed while it writes its ledger does not ask for the same rows again."""

    class KilledError(BaseException):
        pass

    async def die(_: dict[str, Any]) -> None:
        raise KilledError

    store, student = InMemoryStore(), FakeChatModel(script=student_script, model="student")
    candidate = Candidate(answer=AnswerFormat.letters(TASK))

    def student_scorer(spending: Spending) -> StudentScorer:
        run = Run("validate", TASK, PLAN, RunStore(store, "r"), student, spending)
        return StudentScorer(run, fingerprint_of(student), "logprobs")

    with pytest.raises(KilledError):
        await student_scorer(Spending(keep=die)).score(candidate, SETS["test"], "test", lambda *_: None)
    paid = len(student.asked)
    assert paid == len(SETS["test"])
    await student_scorer(Spending()).score(candidate, SETS["test"], "test", lambda *_: None)
    assert len(student.asked) == paid
