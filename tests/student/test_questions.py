"""What one text is asked: one question, or one for each label order, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import DistilledPrompt, PLDClassifier
from langchain_pld.errors import ArtifactError
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.questions import label_orders, questions
from langchain_pld.student.scoring import Scores
from langchain_pld.verdict import Failure
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import LETTERS, RULES, TASK, WORDS, artifact

Script = Callable[[list[BaseMessage]], AIMessage | Failure]


def drive(asked: DistilledPrompt, script: Script) -> tuple[Scores | Failure, list[list[BaseMessage]]]:
    steps, chats = questions(asked, "a text"), []
    try:
        messages = next(steps)
        while True:
            chats.append(messages)
            messages = steps.send(script(messages))
    except StopIteration as done:
        return done.value, chats


def ordered(answer: object, orders: int) -> DistilledPrompt:
    return artifact(answer=answer.model_copy(update={"orders": orders}))  # type: ignore[attr-defined]


def test_one_order_is_one_question_with_the_artifacts_own_prompt() -> None:
    outcome, chats = drive(artifact(), lambda _: scored({"sad": 0.9, "glad": 0.1}))
    assert isinstance(outcome, Scores)
    assert (outcome.label, len(chats)) == ("sad", 1)
    assert chats[0][0].content == artifact().system_prompt


def test_letters_stay_in_place_while_labels_move() -> None:
    orders = [answer.codes for answer, _ in label_orders(ordered(LETTERS, 3))]
    assert orders == [
        {"glad": "A", "sad": "B", "calm": "C"},
        {"sad": "A", "calm": "B", "glad": "C"},
        {"calm": "A", "glad": "B", "sad": "C"},
    ]


def test_words_move_with_their_labels() -> None:
    assert [next(iter(answer.codes.items())) for answer, _ in label_orders(ordered(WORDS, 2))] == [
        ("glad", "glad"),
        ("sad", "sad"),
    ]


def test_a_student_that_leans_on_the_first_letter_says_nothing_once_orders_are_averaged() -> None:
    outcome, chats = drive(ordered(LETTERS, 3), lambda _: scored({"A": 0.8, "B": 0.15, "C": 0.05}))
    assert isinstance(outcome, Scores)
    assert len({str(chat[0].content) for chat in chats}) == 3
    assert outcome.log_probabilities is not None
    assert [math.exp(value) for value in outcome.log_probabilities.values()] == pytest.approx([1 / 3] * 3)


def test_the_average_is_of_log_probabilities() -> None:
    replies = iter([scored({"sad": 0.9, "glad": 0.05, "calm": 0.05}), scored({"sad": 0.4, "glad": 0.4, "calm": 0.2})])
    outcome, _ = drive(ordered(WORDS, 2), lambda _: next(replies))
    assert isinstance(outcome, Scores)
    assert outcome.log_probabilities is not None
    ratio = math.exp(outcome.log_probabilities["sad"] - outcome.log_probabilities["glad"])
    assert ratio == pytest.approx(math.sqrt(0.9 / 0.05))
    assert outcome.label_mass == pytest.approx(1.0)


def test_more_orders_than_labels_are_as_many_as_labels() -> None:
    assert len(label_orders(ordered(WORDS, 9))) == 3


def test_one_unreadable_order_makes_the_whole_unreadable() -> None:
    replies = iter([scored({"sad": 0.9}), scored({"the": 0.9})])
    outcome, chats = drive(ordered(WORDS, 3), lambda _: next(replies))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, len(chats)) == ("unreadable", 2)


def test_without_probabilities_there_is_one_order() -> None:
    asked = artifact(answer=WORDS.model_copy(update={"orders": 3}), scorer="text")
    assert len(drive(asked, lambda _: AIMessage("sad"))[1]) == 1


def test_orders_of_a_prompt_in_another_wording_are_refused() -> None:
    changed = artifact(
        answer=WORDS.model_copy(update={"orders": 2}), system_prompt=compile_prompt(TASK, RULES, WORDS) + " Please."
    )
    with pytest.raises(ArtifactError, match="words its prompt in another way"):
        label_orders(changed)


def test_a_classifier_averages_label_orders() -> None:
    model = FakeChatModel(script=lambda _: scored({"A": 0.8, "B": 0.15, "C": 0.05}))
    asked = PLDClassifier(artifact=artifact(answer=LETTERS.model_copy(update={"orders": 3})), student=model)
    verdict = asked.invoke("a text")
    assert verdict.confidence == pytest.approx(1 / 3)
    assert verdict.usage.calls == len({str(chat[0].content) for chat in model.asked}) == 3
