"""How a student's answers can be read is found out once a run, and stands in the ledger."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.student_probes import prepare_formats
from langchain_pld.errors import StudentError
from tests.distillation.scenarios import PLAN, TASK, student_script
from tests.fakes import FakeChatModel, scored

FORMATS = [AnswerFormat.words(TASK), AnswerFormat.letters(TASK)]


def obliging_script(messages: list[BaseMessage]) -> AIMessage:
    """Writes a word when it is told to."""
    _, told, word = str(messages[-1].text).partition("Write this word and nothing else: ")
    return scored({word: 1.0}) if told else student_script(messages)


async def open_run(model: FakeChatModel, store: InMemoryStore) -> Run:
    return await Run.open("generate", task=TASK, plan=PLAN, store=RunStore(store, "run"), student=model)


async def test_a_student_is_probed_once_a_run_on_behalf_of_validate() -> None:
    model, store = FakeChatModel(script=obliging_script), InMemoryStore()
    run = await open_run(model, store)
    formats, scorer = await prepare_formats(run, FORMATS, "an invoice")
    assert scorer == "logprobs"
    assert [answer.form for answer in formats] == ["words", "letters"]
    calls = len(model.asked)
    assert sum(line.calls for line in run.spending.ledger) == calls
    assert run.spending.ledger[0].node == "validate"
    assert await prepare_formats(await open_run(model, store), FORMATS, "a parcel") == (formats, scorer)
    assert len(model.asked) == calls


async def test_a_student_that_cannot_be_read_is_an_error_and_its_calls_stand_in_the_ledger() -> None:
    model = FakeChatModel(script=lambda _: AIMessage("I would rather not say."))
    run = await open_run(model, InMemoryStore())
    with pytest.raises(StudentError):
        await prepare_formats(run, FORMATS, "an invoice")
    assert run.spending.ledger[0].calls == len(model.asked)
