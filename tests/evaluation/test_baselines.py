"""Plain baselines that need no language model."""

from __future__ import annotations

import pytest

from langchain_pld import Example
from langchain_pld.evaluation.baselines import majority_card, ngram_card
from langchain_pld.examples import ExampleSet
from tests.student.small_artifact import TASK


def rows_of(*pairs: tuple[str, str]) -> ExampleSet:
    return ExampleSet.of([Example(id=str(n), input=text, label=label) for n, (text, label) in enumerate(pairs)], TASK)


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
