"""Answers that only look like a label: none of them decides."""

import math
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_pld import PLDClassifier, Task
from langchain_pld.student.scoring import read_answer
from langchain_pld.verdict import Failure, Verdict
from tests.fakes import FakeChatModel, scored, tokens
from tests.student.small_artifact import EVIDENCE


def verdict_on(reply: AIMessage, *labels: str) -> Verdict:
    task = Task(name="gate", instructions="Decide.", labels=[{"name": label} for label in labels])  # type: ignore[list-item]
    return PLDClassifier.zero_shot(task, FakeChatModel(script=lambda _: reply)).invoke("a text")


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
    task = Task(name="gate", instructions="Decide.", labels=[{"name": "safe"}, {"name": "risk"}])  # type: ignore[list-item]
    verdict = PLDClassifier.zero_shot(task, FakeChatModel(script=lambda _: scored({"safe": 0.9}))).invoke(
        {"her secret": "x", "his": "y"}
    )

    assert verdict.failure is not None
    assert "secret" not in verdict.failure.message
    assert "2 other keys" in verdict.failure.message
