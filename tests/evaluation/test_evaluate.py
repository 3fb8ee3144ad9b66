"""Running a classifier over labelled rows, and the plain baselines beside it."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_pld import Example, PLDClassifier
from langchain_pld.errors import InputError
from langchain_pld.evaluation.baselines import majority_card, ngram_card
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


def made() -> PLDClassifier:
    return classifier(by_text, latency_s=0.005)


async def test_a_card_counts_failed_answers_as_wrong() -> None:
    steps: list[tuple[int, int]] = []
    result = await aevaluate(
        made(), ROWS, name="distilled", role="test", on_progress=lambda done, of: steps.append((done, of))
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

    first = await aevaluate(made(), ROWS, name="x", role="test", concurrency=1)
    second = await asyncio.to_thread(evaluate, made(), ROWS, name="x", role="test")
    assert first.verdicts == second.verdicts
    timeless = {"ms_per_text": None}
    assert first.card.model_copy(update=timeless) == second.card.model_copy(update=timeless)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(rows_of(("x", "sad"), ("y", None)), "1 have none, e.g. '1'"), (rows_of(), "there is no row")],
)
async def test_rows_without_labels_cannot_be_scored(rows: ExampleSet, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        await aevaluate(classifier(lambda _: scored({"sad": 0.9})), rows, name="x", role="test")


TRAIN = rows_of(*[(f"happy day {n}", "glad") for n in range(6)], *[(f"grim loss {n}", "sad") for n in range(4)])
TEST = rows_of(("a happy one", "glad"), ("grim times", "sad"), ("grim loss", "sad"), ("happy", "glad"))


def test_the_majority_baseline_says_the_most_frequent_training_label() -> None:
    card = majority_card(TASK, TRAIN, TEST, role="test")
    assert (card.name, card.student, card.accuracy.value, card.log_loss) == ("majority", "-", 0.5, None)
    assert card.per_label_f1 == pytest.approx({"glad": 2 / 3, "sad": 0, "calm": 0})


def test_the_ngram_baseline_learns_words() -> None:
    card = ngram_card(TASK, TRAIN, TEST, role="test")
    assert card is not None
    assert card.accuracy.value == 1
    assert card.name == "n-gram (10 rows)"


@pytest.mark.parametrize("train", [TRAIN[:6], rows_of(("!", "glad"), ("?", "sad"))])
def test_there_is_no_ngram_baseline_without_two_labels_or_any_word(train: ExampleSet) -> None:
    assert ngram_card(TASK, train, TEST, role="test") is None
