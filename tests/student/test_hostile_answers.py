"""Answers that only look like a label: none of them decides."""

import asyncio
import math
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_pld import PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.student.scoring import read_answer
from langchain_pld.verdict import Failure, Verdict
from tests.fakes import FakeChatModel, scored, tokens
from tests.student.small_artifact import EVIDENCE


def task_of(*labels: str, **settings: Any) -> Task:
    return Task.model_validate(
        {"name": "gate", "instructions": "Decide.", "labels": [{"name": label} for label in labels], **settings}
    )


def student(reply: AIMessage) -> FakeChatModel:
    return FakeChatModel(script=lambda _: reply)


def verdict_on(reply: AIMessage, *labels: str) -> Verdict:
    return PLDClassifier.zero_shot(task_of(*labels), student(reply)).invoke("a text")


@pytest.mark.parametrize(
    ("label", "rest"),
    [
        ("safe", "\u2011guard"),
        ("safe", "\u2010guard"),
        ("safe", "\u00adty"),
        ("safe", "\u200bty"),
        ("safe", "\ufeffty"),
        ("safe", "\uff07s"),
        ("safe", "/risk"),
        ("safe", ".guard"),
        ("safe", "\u30fbrisk"),
        ("safe", "&risk"),
        ("safe", "\u0301"),
        ("रोग", "ी"),
        ("ดี", "ี่"),
        ("خطر", "ٌ"),
    ],
)
def test_a_word_that_goes_on_is_not_its_beginning(label: str, rest: str) -> None:
    assert verdict_on(tokens(label, rest), label, "other").status == "failed"


@pytest.mark.parametrize("rest", ["", ".", " because", "\n", "\u200b", ", surely", '"', "\u2014it says", ")"])
def test_what_stands_behind_a_whole_word_leaves_it_whole(rest: str) -> None:
    verdict = verdict_on(tokens("safe", *([rest] if rest else [])), "safe", "other")

    assert (verdict.status, verdict.label) == ("decided", "safe")


@pytest.mark.parametrize(
    "rest", [[None], [{"token": "ty", "logprob": math.nan}], [{"token": b"ty", "logprob": -1}], []]
)
def test_probabilities_that_end_before_the_text_does_decide_nothing(rest: list[Any]) -> None:
    first = {"token": "safe", "logprob": -0.1, "top_logprobs": [{"token": "safe", "logprob": -0.1}]}
    reply = AIMessage("safety risk", response_metadata={"logprobs": [first, *rest], "done_reason": "stop"})

    assert verdict_on(reply, "safe", "risk").status == "failed"


def test_a_label_behind_the_last_token_with_a_probability_decides_nothing() -> None:
    scored_part = [{"token": token, "logprob": -0.1} for token in ("mourns", "=>")]
    reply = AIMessage("mourns=>sad", response_metadata={"logprobs": [*scored_part, None], "done_reason": "stop"})
    outcome = read_answer(reply, EVIDENCE, "logprobs")

    assert isinstance(outcome, Failure)
    assert outcome.kind == "unreadable"


def test_a_list_that_ends_with_the_word_decides() -> None:
    first = {"token": "safe", "logprob": -0.1, "top_logprobs": [{"token": "safe", "logprob": -0.1}]}
    reply = AIMessage("safe, I think", response_metadata={"logprobs": [first], "done_reason": "stop"})

    assert verdict_on(reply, "safe", "risk").label == "safe"


def test_the_written_token_counts_where_its_alternatives_leave_it_out() -> None:
    options = [{"token": "safe", "logprob": math.log(0.08)}]
    entry = {"token": "I", "logprob": math.log(0.9), "top_logprobs": options}
    reply = AIMessage("I cannot", response_metadata={"logprobs": [entry, {"token": " cannot", "logprob": -0.1}]})

    assert verdict_on(reply, "safe", "risk").status == "failed"


def test_a_written_token_without_a_probability_decides_nothing() -> None:
    entry = {"token": "risk", "top_logprobs": [{"token": "safe", "logprob": -0.1}]}
    reply = AIMessage("risk", response_metadata={"logprobs": [entry], "done_reason": "length"})

    assert verdict_on(reply, "safe", "risk").status == "failed"


def test_an_answer_whose_fields_a_client_left_empty_has_a_verdict() -> None:
    reply = scored({"safe": 0.9, "risk": 0.1}).model_copy(update={"additional_kwargs": None})

    assert verdict_on(reply, "safe", "risk").status in {"decided", "failed"}


def test_the_keys_of_a_mapping_stand_in_no_message() -> None:
    classifier = PLDClassifier.zero_shot(task_of("safe", "risk"), student(scored({"safe": 0.9})))
    verdict = classifier.invoke({"her secret": "x", "his": "y"})

    assert verdict.failure is not None
    assert "secret" not in verdict.failure.message
    assert "2 other keys" in verdict.failure.message


def test_a_blank_for_an_underscore_is_no_end() -> None:
    assert verdict_on(tokens("medical", " advice"), "medical", "medical_advice").label != "medical"


@pytest.mark.parametrize("parts", [("it", " =>", "safe", " =>risk"), ("it", " =>", "safe", " =>", "risk")])
def test_the_last_marker_of_an_answer_counts(parts: tuple[str, ...]) -> None:
    task = task_of("safe", "risk")
    answer = AnswerFormat.words(task, form="evidence")

    assert PLDClassifier.zero_shot(task, student(tokens(*parts)), answer=answer).invoke("a text").label != "safe"


def test_tokens_that_spell_another_text_decide_nothing() -> None:
    reply = tokens("sa", "fe").model_copy(update={"content": "sasafe"})

    assert verdict_on(reply, "safe", "risk").status == "failed"


@pytest.mark.parametrize(
    "usage",
    [
        {"output_tokens": 1},
        {"input_tokens": 1.5, "output_tokens": 1, "total_tokens": 2},
        {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "input_token_details": None},
        "many",
    ],
)
def test_whatever_a_client_counts_there_is_a_verdict(usage: Any) -> None:
    reply = scored({"safe": 0.9}).model_copy(update={"usage_metadata": usage})

    assert verdict_on(reply, "safe", "risk").label == "safe"


@pytest.mark.parametrize("in_loop", [False, True])
def test_the_limit_counts_what_the_student_reads(in_loop: bool) -> None:
    classifier = PLDClassifier.zero_shot(task_of("safe", "risk", max_chars=30_000), student(scored({"safe": 0.9})))
    text = "\ufdfa" * 30_000
    verdict = asyncio.run(classifier.ainvoke(text)) if in_loop else classifier.invoke(text)

    assert verdict.failure is not None
    assert verdict.failure.kind == "input"
    assert "540,000 characters" in verdict.failure.message


@pytest.mark.parametrize("seconds", [math.inf, math.nan])
def test_a_time_out_is_a_number(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        PLDClassifier.zero_shot(task_of("safe", "risk"), student(scored({"safe": 0.9})), timeout_s=seconds)
