"""What a student is told for each answer form: few tokens, enough alternatives, room for thinking only where needed."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_pld import Task
from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.student.providers import most_labels, profile_of, tokenizer_of
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import EVIDENCE, LETTERS, WORDS

MANY = AnswerFormat.two_stage(Task(name="m", instructions="i", labels=[{"name": f"l{n}"} for n in range(77)]))
THINKING = WORDS.model_copy(update={"thinking_tokens": 500})


def sent(answer: AnswerFormat, scorer: Scorer = "logprobs") -> dict[str, Any]:
    model = FakeChatModel(script=lambda _: scored({"sad": 1.0}))
    profile_of(model).bind(answer, scorer, timeout_s=5).invoke("x")
    return model.options[0]


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (WORDS, 1),
        (LETTERS, 1),
        (MANY, 1),
        (EVIDENCE, 32),
        (THINKING, 504),
        (EVIDENCE.model_copy(update={"thinking_tokens": 500}), 532),
    ],
)
def test_an_answer_gets_the_tokens_that_it_needs(answer: AnswerFormat, tokens: int) -> None:
    assert sent(answer)["max_tokens"] == tokens


def test_two_stages_ask_for_the_alternatives_of_a_group_not_of_all_labels() -> None:
    assert sent(MANY)["top_logprobs"] == 20


def ollama(answer: AnswerFormat, scorer: Scorer = "logprobs", **settings: Any) -> Any:
    from langchain_ollama import ChatOllama

    return profile_of(ChatOllama(model="gemma3:4b", **settings)).bind(answer, scorer, timeout_s=7)


def test_ollama_does_not_think_and_does_not_wait_for_ever() -> None:
    model = ollama(WORDS)
    assert (model.reasoning, model.num_predict, model.temperature, model.top_logprobs) == (False, 1, 0.0, 20)
    assert model.client_kwargs == {"timeout": 7}


def test_what_the_user_set_stays() -> None:
    model = ollama(WORDS, reasoning=True, client_kwargs={"timeout": 3}, num_ctx=2048)
    assert (model.reasoning, model.client_kwargs, model.num_ctx) == (True, {"timeout": 3}, 2048)


def test_evidence_ends_with_its_line_unless_the_student_thinks_in_lines() -> None:
    assert ollama(EVIDENCE).stop == ["\n"]
    assert ollama(EVIDENCE.model_copy(update={"thinking_tokens": 9})).stop is None
    assert ollama(EVIDENCE, "structured").stop is None


def test_the_schema_of_two_stages_allows_the_letters_of_both_questions() -> None:
    assert ollama(MANY, "structured").format["properties"]["label"]["enum"] == list("ABCDEFGHIJKLMNOP")


def test_how_many_labels_an_answer_shows_depends_on_the_provider() -> None:
    from langchain_ollama import ChatOllama

    assert most_labels(ChatOllama(model="gemma3:4b")) == 18
    assert most_labels(FakeChatModel(script=None)) == 18


def test_a_tokenizer_that_is_not_the_models_own_is_not_used() -> None:
    assert tokenizer_of(FakeChatModel(script=None)) is None
