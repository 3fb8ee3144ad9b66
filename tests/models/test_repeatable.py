"""Equal requests give equal bits, whatever ran before and beside them."""

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_pld.models.embedded import EmbeddedChatModel

pytestmark = pytest.mark.model

SYSTEMS = (
    "You decide whether a message is kind or rude. Answer with one word.",
    "You decide which topic a message has: food, work or travel. Answer with one word. " * 3,
    "You count words.",
)
TEXTS = (
    "<text>\nThe soup was cold and nobody cared.\n</text>",
    "<text>\nThe soup was warm, thank you!\n</text>",
    "See you at the station tomorrow.",
    "The",
)
REQUESTS = [[("system", system), ("human", text)] for system in SYSTEMS for text in TEXTS]


def outcome(message: Any) -> tuple[str, str]:
    """All of an answer that must not change; floats in full."""
    return message.text, json.dumps(message.response_metadata["logprobs"])


@pytest.fixture(scope="module")
def scorer(small_model: EmbeddedChatModel) -> EmbeddedChatModel:
    return small_model.model_copy(update={"top_logprobs": 20, "max_tokens": 4})


@pytest.fixture(scope="module")
def reference(scorer: EmbeddedChatModel) -> list[tuple[str, str]]:
    return [outcome(scorer.invoke(request)) for request in REQUESTS]


def test_the_reference_is_not_trivial(reference: list[tuple[str, str]]) -> None:
    assert len({logprobs for _, logprobs in reference}) == len(REQUESTS)


def test_backwards(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    assert [outcome(scorer.invoke(request)) for request in reversed(REQUESTS)] == reference[::-1]


def test_each_request_twice_in_a_row(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    for request, expected in zip(REQUESTS, reference, strict=True):
        assert outcome(scorer.invoke(request)) == expected
        assert outcome(scorer.invoke(request)) == expected


def test_prompts_that_alternate_and_push_each_other_out(
    scorer: EmbeddedChatModel, reference: list[tuple[str, str]]
) -> None:
    order = sorted(range(len(REQUESTS)), key=lambda number: (number % len(TEXTS), number))
    for number in order:
        assert outcome(scorer.invoke(REQUESTS[number])) == reference[number]


def test_after_longer_answers_and_other_settings(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    for number in (0, 5, 2):
        scorer.invoke(REQUESTS[number], max_tokens=20, temperature=1.0, seed=number)
        assert outcome(scorer.invoke(REQUESTS[number])) == reference[number]


def test_eight_threads(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda request: outcome(scorer.invoke(request)), REQUESTS)) == reference


async def test_async_all_at_once(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    answers = await asyncio.gather(*(scorer.ainvoke(request) for request in REQUESTS))
    assert [outcome(answer) for answer in answers] == reference


async def test_the_four_ways_to_ask_agree(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    request = REQUESTS[4]
    streamed = None
    for chunk in scorer.stream(request):
        streamed = chunk if streamed is None else streamed + chunk
    async_streamed = None
    async for chunk in scorer.astream(request):
        async_streamed = chunk if async_streamed is None else async_streamed + chunk
    plain = scorer.invoke(request)
    async_plain = await scorer.ainvoke(request)

    messages = [plain, async_plain, streamed, async_streamed]
    assert {outcome(message) for message in messages} == {reference[4]}
    assert {json.dumps(message.usage_metadata) for message in messages} == {json.dumps(plain.usage_metadata)}
    assert {frozenset(message.response_metadata) for message in messages} == {frozenset(plain.response_metadata)}
    assert {message.response_metadata["done_reason"] for message in messages} == {"length"}


def test_draws_depend_on_the_seed_alone(small_model: EmbeddedChatModel) -> None:
    drawing = small_model.model_copy(update={"temperature": 1.5})

    first = [drawing.invoke("Tell me a story.", seed=seed).text for seed in range(3)]
    again = [drawing.invoke("Tell me a story.", seed=seed).text for seed in (2, 1, 0)]

    assert again == first[::-1]
    assert len(set(first)) > 1


def test_after_the_model_was_unloaded(scorer: EmbeddedChatModel, reference: list[tuple[str, str]]) -> None:
    scorer.close()
    assert outcome(scorer.invoke(REQUESTS[7])) == reference[7]


def test_another_process_without_a_word_on_its_terminal(
    scorer: EmbeddedChatModel, reference: list[tuple[str, str]]
) -> None:
    program = """
import json, sys
from langchain_pld.models.embedded import EmbeddedChatModel
model = EmbeddedChatModel(**json.loads(sys.argv[1]))
answers = [model.invoke(request) for request in json.loads(sys.argv[2])]
print(json.dumps([[a.text, json.dumps(a.response_metadata["logprobs"])] for a in answers]))
"""
    settings = json.dumps({name: getattr(scorer, name) for name in (*scorer.model_fields_set, "top_logprobs")})
    numbers = [7, 0, 11]

    result = subprocess.run(
        [sys.executable, "-c", program, settings, json.dumps([REQUESTS[number] for number in numbers])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert [tuple(answer) for answer in json.loads(result.stdout)] == [reference[number] for number in numbers]
    assert result.stderr == ""
