"""Embeddings in a run: paid once, told in the ledger."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_google_genai import GoogleGenerativeAIEmbeddings
from langchain_ollama import OllamaEmbeddings
from langgraph.store.memory import InMemoryStore

from langchain_pld.distillation.budget import Budget
from langchain_pld.distillation.prices import Price
from langchain_pld.distillation.rules.embedder import Embedder, embeddings_spec
from langchain_pld.distillation.rules.embeddings import embed_micro_rules
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.errors import DistillationError
from langchain_pld.rules import MicroRule


class FakeEmbeddings(DeterministicFakeEmbedding):
    """Deterministic vectors, with a record of what was asked."""

    model: str = "words"
    asked: list[list[str]]
    broken: bool = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        if self.broken:
            raise ConnectionError
        return super().embed_documents(texts)


def micro(condition: str) -> MicroRule:
    return MicroRule(label="a", condition=condition, source="1")


ONE, TWO, THREE = map(micro, ("If it is about one thing", "If it is about two things", "If it is about three things"))


def embedder(embeddings: Embeddings | None, store: InMemoryStore | None = None) -> tuple[Embedder, Spending]:
    spending = Spending(prices={"fake:words": Price(input=1_000_000, output=0)})
    return Embedder(embeddings, RunStore(store or InMemoryStore(), "run"), spending, node="consolidate"), spending


async def test_a_text_is_paid_once_a_run_and_the_vectors_are_those_of_the_embeddings() -> None:
    embeddings, store = FakeEmbeddings(size=4, asked=[]), InMemoryStore()
    first, spending = embedder(embeddings, store)
    expected = await embed_micro_rules([ONE, TWO, THREE], DeterministicFakeEmbedding(size=4))
    assert np.allclose(await first.vectors([ONE, TWO]), expected[:2])
    (line,) = spending.ledger
    assert (line.node, line.model, line.calls, line.failures) == ("consolidate", "fake:words", 1, 0)
    assert line.input_tokens == round((len(ONE.condition) + len(TWO.condition)) / 4 + 0.49)
    assert line.cost == line.input_tokens

    # A run that was stopped goes on with the same Store.
    again, spending = embedder(embeddings, store)
    assert np.allclose(await again.vectors([TWO, THREE, ONE, TWO]), expected[[1, 2, 0, 1]])
    assert np.allclose(await again.vectors([ONE]), expected[:1])
    assert embeddings.asked == [[ONE.condition, TWO.condition], [THREE.condition]]
    assert (spending.ledger[0].calls, spending.ledger[0].cache_hits) == (1, 1)


async def test_a_failed_call_is_in_the_ledger_and_nothing_of_it_is_kept() -> None:
    store = InMemoryStore()
    broken, spending = embedder(FakeEmbeddings(size=4, asked=[], broken=True), store)
    with pytest.raises(DistillationError, match="FakeEmbeddings gave no vectors for 1 micro-rules"):
        await broken.vectors([ONE])
    assert (spending.ledger[0].calls, spending.ledger[0].failures) == (1, 1)
    mended, _ = embedder(FakeEmbeddings(size=4, asked=[]), store)
    assert (await mended.vectors([ONE])).shape == (1, 4)


async def test_where_the_budget_allows_no_call_words_are_compared_and_nobody_is_asked() -> None:
    embeddings = FakeEmbeddings(size=4, asked=[])
    spending = Spending(Budget(calls=1))
    careful = Embedder(embeddings, RunStore(InMemoryStore(), "run"), spending, node="consolidate")
    await careful.vectors([ONE, TWO])
    assert careful.refused is None
    assert np.allclose(await careful.vectors([ONE, THREE]), await embed_micro_rules([ONE, THREE]))
    assert careful.refused == spending.stopped == "the budget of 1 calls is spent"
    assert (await careful.vectors([ONE])).shape == (1, 4), "what was paid for is still there"
    assert embeddings.asked == [[ONE.condition, TWO.condition]]


async def test_other_embeddings_under_the_same_name_are_refused_in_a_run() -> None:
    store = InMemoryStore()
    await embedder(FakeEmbeddings(size=4, asked=[]), store)[0].vectors([ONE])
    with pytest.raises(DistillationError, match=r"another length than earlier in this run \(4 and 6 numbers\)"):
        await embedder(FakeEmbeddings(size=6, asked=[]), store)[0].vectors([ONE, TWO])


async def test_the_offline_vectors_cost_nothing_and_stand_in_no_ledger() -> None:
    offline, spending = embedder(None)
    assert np.array_equal(await offline.vectors([ONE, TWO]), await embed_micro_rules([ONE, TWO]))
    assert spending.ledger == []
    assert (await embedder(FakeEmbeddings(size=4, asked=[]))[0].vectors([])).shape == (0, 0)


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
