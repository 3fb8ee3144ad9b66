"""Running a classifier over labelled rows."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_pld import Example, PLDClassifier
from langchain_pld.errors import InputError
from langchain_pld.evaluation.evaluate import aevaluate, evaluate
from langchain_pld.examples import ExampleSet
from tests.fakes import scored, text_of
from tests.student.small_artifact import TASK, classifier


def rows_of(*pairs: tuple[str, str | None]) -> ExampleSet:
    return ExampleSet.of([Example(id=str(n), input=text, label=label) for n, (text, label) in enumerate(pairs)], TASK)


ROWS = rows_of(("glad", "glad"), ("sad", "sad"), ("broken", "calm"), ("sad again", "glad"))


def by_text(messages: list[Any]) -> AIMessage:
    word = text_of(messages).split()[0]
    return AIMessage("?") if word == "broken" else scored({word: 0.9, "calm": 0.1})


def student_of_rows() -> PLDClassifier:
    return classifier(by_text, latency_s=0.005)


async def test_a_card_counts_failed_answers_as_wrong() -> None:
    steps: list[tuple[int, int]] = []
    result = await aevaluate(
        student_of_rows(), ROWS, name="distilled", role="test", on_progress=lambda done, of: steps.append((done, of))
    )
    card = result.card
    assert [verdict.predicted_label for verdict in result.verdicts] == ["glad", "sad", None, "sad"]
    assert card.accuracy.value == 0.5
    assert card.macro_f1.value == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert card.per_label_f1 == pytest.approx({"glad": 2 / 3, "sad": 2 / 3, "calm": 0})
    assert (card.failed, card.rows, card.student, card.calibrated) == (1, 4, "fake-chat:fake", True)
    assert card.ece is not None
    assert card.log_loss is not None
    assert steps == [(n, 4) for n in range(1, 5)]


async def test_with_and_without_an_event_loop_the_result_is_the_same() -> None:
    import asyncio

    first = await aevaluate(student_of_rows(), ROWS, name="x", role="test", concurrency=1)
    second = await asyncio.to_thread(evaluate, student_of_rows(), ROWS, name="x", role="test")
    assert first.verdicts == second.verdicts
    timeless = {"ms_per_text": None}
    assert first.card.model_copy(update=timeless) == second.card.model_copy(update=timeless)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(rows_of(("x", "sad"), ("y", None)), "1 have none, e.g. '1'"), (rows_of(), "there are no rows")],
)
async def test_rows_without_labels_cannot_be_scored(rows: ExampleSet, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        await aevaluate(classifier(lambda _: scored({"sad": 0.9})), rows, name="x", role="test")
