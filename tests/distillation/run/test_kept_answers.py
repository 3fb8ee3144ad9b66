"""What a Store keeps is found again for the same question only."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld import DistilledPrompt, Example
from langchain_pld.examples import ExampleSet
from tests.distillation.scenarios import TASK, distil
from tests.fakes import FakeChatModel, scored, text_of


def rows(role: str, count: int, *, swapped: bool = False) -> ExampleSet:
    """Rows with the ids that a file without ids gives, `row-N`; swapped, the texts of a label are the other's."""
    made = [
        Example(
            id=f"row-{n}",
            input=f"{'invoice' if (n % 2 == 1) != swapped else 'parcel'} note {role} number {n}",
            label="amber" if n % 2 else "violet",
        )
        for n in range(count)
    ]
    return ExampleSet.of(made, TASK, source=role)


def reads_the_subject(messages: list[BaseMessage]) -> AIMessage:
    amber = "invoice" in text_of(messages)
    return scored({"amber": 0.9 if amber else 0.1, "violet": 0.1 if amber else 0.9})


async def distilled(store: InMemoryStore, student: FakeChatModel, *, swapped: bool = False) -> DistilledPrompt:
    sets: dict[str, Any] = {
        role: rows(role, count, swapped=swapped) for role, count in {"train": 12, "validation": 60, "test": 20}.items()
    }
    return await distil(student=student, store=store, **sets)


def accuracy(artifact: DistilledPrompt) -> float:
    return next(card.accuracy.value for card in artifact.scores if (card.name, card.role) == ("zero-shot", "test"))


async def test_other_texts_under_the_same_ids_are_read_anew() -> None:
    store = InMemoryStore()
    assert accuracy(await distilled(store, FakeChatModel(script=reads_the_subject))) == 1.0
    assert accuracy(await distilled(store, FakeChatModel(script=reads_the_subject), swapped=True)) == 0.0


async def test_the_same_texts_are_not_read_again() -> None:
    store = InMemoryStore()
    first, second = (FakeChatModel(script=reads_the_subject) for _ in range(2))
    await distilled(store, first)
    await distilled(store, second)
    assert len(second.asked) < len(first.asked) / 10  # the probe alone


class Embedded(FakeChatModel):
    """A local student; which llama.cpp computes its answers can be told."""

    runtime: str = "llama.cpp 1"


async def test_answers_of_another_runtime_are_not_taken() -> None:
    store = InMemoryStore()
    await distilled(store, Embedded(script=reads_the_subject))
    newer = Embedded(script=reads_the_subject, runtime="llama.cpp 2")
    await distilled(store, newer)
    assert len(newer.asked) > 80


def test_an_embedded_student_tells_its_runtime() -> None:
    from langchain_pld.models.embedded import EmbeddedChatModel

    assert "xllamacpp" in EmbeddedChatModel().runtime
