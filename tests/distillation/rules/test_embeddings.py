"""Vectors of micro-rules: paid once a run and entered in the ledger, or from the offline default."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_google_genai import GoogleGenerativeAIEmbeddings
from langchain_ollama import OllamaEmbeddings
from langgraph.store.memory import InMemoryStore

from langchain_pld.distillation.plan import PLANS, Budget
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.rules.embeddings import LexicalEmbeddings, embed_micro_rules, embeddings_spec
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.errors import DistillationError
from langchain_pld.rules import MicroRule
from tests.fakes import FakeChatModel, FakeEmbeddings
from tests.teams import TASK


def micro(condition: str) -> MicroRule:
    return MicroRule(label="a", condition=condition, source="1")


ONE, TWO, THREE = map(micro, ("If it is about one thing", "If it is about two things", "If it is about three things"))


async def run_with(
    embeddings: Embeddings | None, store: InMemoryStore | None = None, budget: Budget | None = None
) -> Run:
    prices = {"fake:words": Price(input=1_000_000, output=0)}
    plan = PLANS["light"].model_copy(update={"budget": budget or Budget(), "prices": prices})
    run_store, student = RunStore(store or InMemoryStore(), "run"), FakeChatModel(script=None)
    return await Run.open("consolidate", task=TASK, plan=plan, store=run_store, student=student, embeddings=embeddings)


async def lexical(*micro_rules: MicroRule) -> np.ndarray:
    return await embed_micro_rules(await run_with(None), micro_rules)


def unit_vectors(*micro_rules: MicroRule) -> np.ndarray:
    vectors = np.asarray(DeterministicFakeEmbedding(size=4).embed_documents([one.condition for one in micro_rules]))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


async def test_a_text_is_paid_once_a_run_and_the_vectors_are_those_of_the_embeddings() -> None:
    embeddings, store = FakeEmbeddings(size=4), InMemoryStore()
    run = await run_with(embeddings, store)
    assert np.allclose(await embed_micro_rules(run, [ONE, TWO]), unit_vectors(ONE, TWO))
    (line,) = run.spending.ledger
    assert (line.node, line.model, line.calls, line.failures) == ("consolidate", "fake:words", 1, 0)
    assert line.cost == line.input_tokens == math.ceil((len(ONE.condition) + len(TWO.condition)) / 4)

    # A run that was stopped goes on with the same Store.
    resumed = await run_with(embeddings, store)
    assert np.allclose(await embed_micro_rules(resumed, [TWO, THREE, ONE, TWO]), unit_vectors(TWO, THREE, ONE, TWO))
    assert np.allclose(await embed_micro_rules(resumed, [ONE]), unit_vectors(ONE))
    assert embeddings.asked == [[ONE.condition, TWO.condition], [THREE.condition]]
    assert (resumed.spending.ledger[0].calls, resumed.spending.ledger[0].cache_hits) == (2, 1)


async def test_a_failed_call_is_in_the_ledger_and_nothing_of_it_is_kept() -> None:
    store = InMemoryStore()
    run = await run_with(FakeEmbeddings(size=4, failing=True), store)
    with pytest.raises(DistillationError, match="FakeEmbeddings returned no usable vectors for 1 micro-rules"):
        await embed_micro_rules(run, [ONE])
    assert (run.spending.ledger[0].calls, run.spending.ledger[0].failures) == (1, 1)
    assert (await embed_micro_rules(await run_with(FakeEmbeddings(size=4), store), [ONE])).shape == (1, 4)


async def test_where_the_budget_allows_no_call_words_are_compared_and_nobody_is_asked() -> None:
    embeddings = FakeEmbeddings(size=4)
    run = await run_with(embeddings, budget=Budget(calls=1))
    await embed_micro_rules(run, [ONE, TWO])
    assert run.log == []
    assert np.allclose(await embed_micro_rules(run, [ONE, THREE]), await lexical(ONE, THREE))
    assert run.spending.stopped == "the budget of 1 calls is spent"
    assert run.log == [f"consolidate: conditions are compared by their words alone: {run.spending.stopped}"]
    assert (await embed_micro_rules(run, [ONE])).shape == (1, 4), "what was paid for is still there"
    assert embeddings.asked == [[ONE.condition, TWO.condition]]


async def test_other_embeddings_under_the_same_name_are_refused_in_a_run() -> None:
    store = InMemoryStore()
    await embed_micro_rules(await run_with(FakeEmbeddings(size=4), store), [ONE])
    with pytest.raises(DistillationError, match=r"another length than earlier in this run \(4 and 6 numbers\)"):
        await embed_micro_rules(await run_with(FakeEmbeddings(size=6), store), [ONE, TWO])


async def test_unusable_vectors_are_refused() -> None:
    class BrokenFakeEmbeddings(FakeEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[1.0, float("nan")] for _ in texts]

    with pytest.raises(DistillationError, match="BrokenFakeEmbeddings returned no usable vectors for 1 micro-rules"):
        await embed_micro_rules(await run_with(BrokenFakeEmbeddings(size=2)), [ONE])


async def test_the_offline_vectors_cost_nothing_and_stand_in_no_ledger() -> None:
    run = await run_with(None)
    assert (await embed_micro_rules(run, [ONE, TWO])).shape[0] == 2
    assert run.spending.ledger == []
    assert (await embed_micro_rules(await run_with(FakeEmbeddings(size=4)), [])).shape == (0, 0)


async def test_the_offline_vectors_put_like_things_together_and_are_the_same_each_time() -> None:
    conditions = (
        "If the text asks for a refund of money",
        "If the text wants money back as a refund",
        "If the text reports a broken engine",
        "If the text says that the engine is broken",
    )
    vectors = await lexical(*map(micro, conditions))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    near = vectors @ vectors.T
    assert min(near[0, 1], near[2, 3]) > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3])
    assert np.array_equal(vectors, await lexical(*map(micro, conditions)))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_the_offline_vectors_take_any_text(texts: list[str]) -> None:
    vectors = np.asarray(LexicalEmbeddings(texts).embed_documents(texts))
    assert vectors.ndim == 2
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize(
    ("embeddings", "spec"),
    [
        (OllamaEmbeddings(model="nomic-embed-text"), "ollama:nomic-embed-text"),
        (
            GoogleGenerativeAIEmbeddings(model="models/gemini-embedding-001", api_key="test"),
            "google_genai:gemini-embedding-001",
        ),
        (DeterministicFakeEmbedding(size=2), "deterministicfake:DeterministicFakeEmbedding"),
    ],
)
def test_embeddings_are_named_as_models_are(embeddings: Embeddings, spec: str) -> None:
    assert embeddings_spec(embeddings) == spec
