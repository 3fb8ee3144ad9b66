"""The probe takes the best scorer that a student's answers allow, and finds out that it thinks."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld.answer import AnswerFormat
from langchain_pld.errors import StudentError
from langchain_pld.student.probe import THINKING_TOKENS, Probe, learn_first_tokens, probe_formats, probe_student
from tests.fakes import FakeChatModel, scored, tokens
from tests.student.small_artifact import LETTERS, WORDS
from tests.student.test_two_stage import ANSWER, PROMPT


class FakeThinkingModel(FakeChatModel):
    """Thinks before each answer, for which it needs more tokens than an answer has."""

    def _reply(self, messages: list[BaseMessage], options: dict[str, Any]) -> Any:
        room = options.get("max_tokens", 16)
        thought = ["<think>", *["hm"] * 40, "</think>", "\n\n"]
        whole = [*thought, ("sad", {"sad": 0.8, "glad": 0.2})]
        cut = len(whole) > room
        self.script = lambda _: tokens(*whole[:room], done_reason="length" if cut else "stop")
        return super()._reply(messages, options)


async def probe(script: Any) -> Probe:
    return await probe_student(FakeChatModel(script=script), "Decide.", WORDS, "a text")


async def test_log_probabilities_are_best() -> None:
    assert await probe(lambda _: scored({"sad": 1.0})) == Probe("logprobs", 0)


async def test_a_structured_answer_is_next() -> None:
    assert await probe(lambda _: AIMessage(json.dumps({"label": "sad"}))) == Probe("structured", 0)


async def test_plain_text_is_last() -> None:
    assert await probe(lambda _: AIMessage("sad")) == Probe("text", 0)


async def test_a_student_that_thinks_whatever_it_is_told_gets_room_for_it() -> None:
    model = FakeThinkingModel(script=None)
    assert await probe_student(model, "Decide.", WORDS, "a text") == Probe("logprobs", THINKING_TOKENS)
    assert model.options[-1]["max_tokens"] > THINKING_TOKENS


async def test_a_student_that_does_not_think_is_not_asked_to() -> None:
    model = FakeChatModel(script=lambda _: AIMessage("I cannot help with that."))
    with pytest.raises(StudentError, match="not exactly one"):
        await probe_student(model, "Decide.", WORDS, "a text")
    assert len(model.asked) == 3


async def test_two_stages_are_probed_by_their_first_question() -> None:
    model = FakeChatModel(script=lambda _: scored({"C": 0.7, "D": 0.3}))
    assert await probe_student(model, PROMPT, ANSWER, "a text") == Probe("logprobs", 0)


async def test_a_server_that_refuses_the_key_ends_the_probe() -> None:
    response = httpx.Response(401, request=httpx.Request("POST", "http://127.0.0.1"))
    refused = httpx.HTTPStatusError("no", request=response.request, response=response)
    with pytest.raises(StudentError, match="API key"):
        await probe(lambda _: refused)


async def test_letters_are_probed_where_words_cannot_be_read() -> None:
    model = FakeChatModel(
        script=lambda messages: (
            scored({"B": 0.8, "A": 0.2}) if "letter" in str(messages[0].text) else AIMessage("Well!")
        )
    )
    prompts = [("Answer with a word.", WORDS), ("Answer with a letter.", LETTERS)]
    assert await probe_formats(model, prompts, "a text") == Probe("logprobs", 0)
    assert len(model.asked) == 4


async def test_a_student_that_no_form_can_read_fails_with_the_first_ones_reason() -> None:
    model = FakeChatModel(script=lambda _: AIMessage("I cannot help with that."))
    with pytest.raises(StudentError, match="not exactly one"):
        await probe_formats(model, [("Decide.", WORDS), ("Decide again.", WORDS), ("Decide.", LETTERS)], "a text")
    assert len(model.asked) == 6, "of each form the first"


HATE = AnswerFormat(codes={"hate": "hateful", "fine": "non_hateful"})


async def test_short_first_tokens_are_learned_by_having_the_words_written() -> None:
    model = FakeChatModel(script=lambda messages: scored({"non" if "non_" in str(messages[-1].text) else "h": 0.9}))
    learned = await learn_first_tokens(model, HATE)
    assert learned.first_tokens == {"hate": ("h",)}
    assert await learn_first_tokens(model, learned) is learned
    assert len(model.asked) == 2, "what is known is not asked again"


async def test_a_student_that_writes_something_else_teaches_nothing() -> None:
    assert await learn_first_tokens(FakeChatModel(script=lambda _: scored({"I": 0.9})), HATE) == HATE
    assert await learn_first_tokens(FakeChatModel(script=lambda _: TimeoutError("slow")), HATE) == HATE
