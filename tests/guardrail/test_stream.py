"""Streams that hold text back: nothing is shown before it was checked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langgraph.errors import GraphInterrupt
from pydantic import ValidationError

from langchain_pld.errors import InputError
from langchain_pld.guardrail.decision import GuardrailError
from langchain_pld.guardrail.guard import Guard
from langchain_pld.guardrail.stream import (
    StreamBuffer,
    aguard_agent_stream,
    aguard_event_stream,
    aguard_stream,
    guard_agent_stream,
    guard_stream,
)
from tests.fakes import text_of
from tests.guardrail.agents import BAD, FakeMainModel, by_word, calls, guard, says

Drain = Callable[..., list[Any]]
SENTENCE = "This is one quite harmless sentence of some length. "
SORRY = "does not meet the rules"


@pytest.fixture(params=["sync", "async"])
def drain(request: pytest.FixtureRequest) -> Drain:
    """Read a guarded stream to its end, one way or the other."""

    def read(chunks: list[Any], guards: Any, **options: Any) -> list[Any]:
        if request.param == "sync":
            return list(guard_stream(iter(chunks), guards, **options))

        async def source() -> AsyncIterator[Any]:
            for chunk in chunks:
                yield chunk

        async def collect() -> list[Any]:
            return [part async for part in aguard_stream(source(), guards, **options)]

        return asyncio.run(collect())

    return read


def words(text: str) -> list[str]:
    return [f"{word} " for word in text.split(" ") if word]


def seen_by(checked: Guard) -> list[str]:
    return [text_of(messages) for messages in checked.classifier.student.asked]  # type: ignore[attr-defined]


def test_a_harmless_stream_arrives_whole_and_in_parts(drain: Drain) -> None:
    chunks = words(SENTENCE * 3)
    shown = drain(chunks, guard())
    assert "".join(shown) == "".join(chunks)
    assert len(shown) > 3


def test_a_violation_is_never_shown_and_ends_the_stream(drain: Drain) -> None:
    shown = "".join(drain(words(f"{SENTENCE}Then comes the {BAD} word, sadly. {SENTENCE}"), guard()))
    assert shown.startswith(SENTENCE)
    assert shown.endswith("service.")
    assert SORRY in shown
    assert "Then" not in shown


def test_nothing_is_shown_before_the_check_of_it_is_over() -> None:
    events: list[str] = []

    def script(messages: Any) -> AIMessage:
        events.append("checked")
        return by_word(messages)

    events.extend(guard_stream(iter(words(SENTENCE * 2)), guard(script)))
    assert events[0] == "checked"
    assert events.count("checked") == 2
    assert "".join(event for event in events[: events.index("checked", 1)] if event != "checked") == SENTENCE


def test_each_part_is_checked_with_what_was_said_before(drain: Drain) -> None:
    def script(messages: Any) -> AIMessage:
        text = text_of(messages)
        return by_word(messages) if "first half" not in text or "second half" not in text else AIMessage("sad")

    text = "Here comes the first half of something that is bad. And here comes the second half of that bad thing. "
    shown = "".join(drain(words(text), guard(script)))
    assert "second half" not in shown
    assert drain(words(text), guard(script), buffer=StreamBuffer(context_chars=0)) == words(text)


def test_a_sentence_is_parted_inside_a_chunk(drain: Drain) -> None:
    shown = drain([SENTENCE + "Then comes", f" the {BAD} word. "], guard())
    assert shown[0] == SENTENCE
    assert "Then" not in "".join(shown)


@pytest.mark.parametrize("by", ["window", "sentence"])
def test_text_without_sentences_is_checked_by_windows(drain: Drain, by: Any) -> None:
    checked = guard()
    chunks = words("word " * 100)
    assert "".join(drain(chunks, checked, buffer=StreamBuffer(by=by, max_chars=100))) == "".join(chunks)
    assert len(seen_by(checked)) >= 4


@pytest.mark.parametrize("mark", ["!", "?!", "\uff01", '!"'])
def test_the_search_for_the_end_of_a_sentence_takes_time_with_the_text_and_not_with_its_square(mark: str) -> None:
    def seconds(length: int) -> float:
        text = mark * (length // len(mark)) + "a"
        times = []
        for _ in range(3):
            started = time.process_time()
            list(guard_stream([text], guard(), buffer=StreamBuffer(max_chars=10**6)))
            times.append(time.process_time() - started)
        return min(times)

    assert seconds(16_000) < 10 * seconds(4_000) + 0.02


def test_all_at_once_is_one_check(drain: Drain) -> None:
    checked = guard()
    drain(words(SENTENCE * 20), checked, buffer=StreamBuffer(by="all"))
    assert len(seen_by(checked)) == 1
    assert "".join(drain(words(f"{SENTENCE * 20}{BAD}"), guard(), buffer=StreamBuffer(by="all"))).startswith(
        "This content"
    )


@pytest.mark.parametrize(
    "reply", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), AIMessage(""), AIMessage("This is fine!"), KeyError("k")]
)
def test_a_check_that_fails_shows_nothing(drain: Drain, reply: Any) -> None:
    shown = "".join(drain(words(SENTENCE), guard(lambda _: reply)))
    assert "harmless" not in shown
    assert "could not be checked" in shown


def test_raise_flag_and_ask(drain: Drain) -> None:
    text = words(f"{SENTENCE}{BAD}.")
    with pytest.raises(GuardrailError):
        drain(text, guard(on_violation="raise"))
    assert "".join(drain(text, guard(on_violation="flag"))) == "".join(text)
    assert BAD not in "".join(drain(text, guard(on_violation="interrupt"))), "nobody can be asked in a stream"


def test_an_interrupt_passes_through(drain: Drain) -> None:
    def interrupted(messages: Any) -> Any:
        raise GraphInterrupt

    with pytest.raises(GraphInterrupt):
        drain(words(SENTENCE), guard(interrupted))


def messages(*parts: str, **last: Any) -> list[AIMessageChunk]:
    return [
        *(AIMessageChunk(part, id="m") for part in parts),
        AIMessageChunk("", id="m", chunk_position="last", **last),
    ]


def test_message_chunks_keep_their_id_and_counts(drain: Drain) -> None:
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    shown = drain(messages(SENTENCE + "And", " more.", usage_metadata=usage), guard())
    total = shown[0]
    for chunk in shown[1:]:
        total = total + chunk
    assert total.content == f"{SENTENCE}And more."
    assert (total.id, total.usage_metadata) == ("m", usage)


def test_a_blocked_message_stream_ends_with_a_marked_message(drain: Drain) -> None:
    shown = drain(messages(SENTENCE, f"{BAD}."), guard())
    assert shown[-1].id == "m"
    assert shown[-1].response_metadata["pld_guard"]["mood"]["action"] == "block"
    assert BAD not in str(shown)


def test_a_flag_is_marked_once(drain: Drain) -> None:
    shown = drain(messages(f"{BAD} {SENTENCE}", f"{BAD} {SENTENCE}"), guard(on_violation="flag"))
    assert sum("pld_guard" in chunk.response_metadata for chunk in shown) == 1


def test_tool_calls_wait_until_their_arguments_were_checked(drain: Drain) -> None:
    part: Any = {"name": "send", "id": "1", "index": 0}
    for word, expected in ((BAD, True), ("fine", False)):
        chunks = [
            AIMessageChunk("Let me see.", id="m"),
            AIMessageChunk("", id="m", tool_call_chunks=[{**part, "args": '{"text": "'}]),
            AIMessageChunk("", id="m", tool_call_chunks=[{"name": None, "id": None, "index": 0, "args": f'{word}"}}'}]),
        ]
        shown = drain(chunks, guard())
        assert (SORRY in str(shown)) == expected
        assert any(chunk.tool_call_chunks for chunk in shown) != expected
        assert BAD not in str(shown)


def test_what_follows_a_tool_call_waits_with_it(drain: Drain) -> None:
    part: Any = {"name": "send", "id": "1", "index": 0, "args": f'{{"text": "{BAD}"}}'}
    shown = drain([AIMessageChunk("", id="m", tool_call_chunks=[part]), *messages(SENTENCE, SENTENCE)], guard())
    assert BAD not in str(shown)
    assert not any(chunk.tool_call_chunks for chunk in shown)


def test_an_empty_stream_with_tool_calls_only_is_no_violation(drain: Drain) -> None:
    [shown] = drain([says("", calls("send", text="fine"))], guard())
    assert shown.tool_calls


def test_reasoning_and_pictures_are_held_too(drain: Drain) -> None:
    thought = AIMessageChunk([{"type": "reasoning", "reasoning": f"they want {BAD}"}], id="m")
    assert BAD not in str(drain([thought, *messages("Sure.")], guard()))
    picture = AIMessageChunk([{"type": "image", "url": "https://example.org/x.png"}], id="m")
    assert "example.org" not in str(drain([picture, *messages("Sure.")], guard()))
    assert "example.org" in str(drain([picture, *messages("Sure.")], guard(on_unreadable="allow")))


def test_what_is_neither_text_nor_message_is_refused(drain: Drain) -> None:
    with pytest.raises(InputError, match="a stream of dict cannot be guarded"):
        drain([{"answer": BAD}], guard())
    with pytest.raises(InputError, match="no guard"):
        drain(["x"], [])
    with pytest.raises(ValidationError, match="min_chars"):
        StreamBuffer(min_chars=10, max_chars=5)


def test_the_source_is_closed_at_a_violation() -> None:
    closed = []

    def source() -> Iterator[str]:
        try:
            yield from words(f"{SENTENCE}{BAD}. {SENTENCE * 50}")
        finally:
            closed.append(True)

    kept = source()
    assert len(list(guard_stream(kept, guard()))) < 20
    assert closed


async def test_an_asynchronous_source_is_closed_at_a_violation() -> None:
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            for word in words(f"{SENTENCE}{BAD}. {SENTENCE * 50}"):
                yield word
        finally:
            closed.append(True)

    kept = source()
    assert len([part async for part in aguard_stream(kept, guard())]) < 20
    assert closed


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="ab .!?\n\u3002", max_size=30), max_size=30),
    st.integers(1, 20),
    st.integers(0, 60),
    st.sampled_from(["sentence", "window", "all"]),
)
def test_any_harmless_stream_arrives_unchanged(parts: list[str], least: int, context: int, by: Any) -> None:
    hold = StreamBuffer(by=by, min_chars=least, max_chars=least + 20, context_chars=context)
    assert "".join(guard_stream(iter(parts), guard(), buffer=hold)) == "".join(parts)
    chunks = [AIMessageChunk(part) for part in parts]
    assert "".join(chunk.text for chunk in guard_stream(iter(chunks), guard(), buffer=hold)) == "".join(parts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="ab .!?\n", max_size=30), max_size=10),
    st.lists(st.text(alphabet="ab .!?\n", max_size=30), max_size=10),
    st.integers(1, 20),
    st.booleans(),
)
def test_a_violation_is_shown_by_no_way_of_cutting(
    before: list[str], after: list[str], least: int, split: bool
) -> None:
    bad = [BAD[:4], BAD[4:]] if split else [BAD]
    # The word fits into a window, and what was said before is checked with it.
    hold = StreamBuffer(min_chars=least, max_chars=least + 40)
    shown = "".join(guard_stream(iter([*before, *bad, *after]), guard(), buffer=hold))
    assert BAD not in shown
    assert shown.endswith("service.")


# --- agents and graphs without a guard inside

GIVEN: Any = {"messages": [("user", "good morning")]}


def unguarded(text: str) -> Any:
    return create_agent(FakeMainModel(replies=[says(text)]))


async def test_an_unguarded_agents_messages_are_held_back() -> None:
    text = f"{SENTENCE}Then comes the {BAD} word, sadly. {SENTENCE}"
    shown = list(guard_agent_stream(unguarded(text), GIVEN, guard(streaming=True)))
    ashown = [part async for part in aguard_agent_stream(unguarded(text), GIVEN, guard(streaming=True))]
    for parts in (shown, ashown):
        said = "".join(str(message.text) for message, _ in parts)
        assert said.startswith(SENTENCE)
        assert SORRY in said
        assert "Then" not in said
        assert "glad" not in said
        assert all(metadata["langgraph_node"] == "model" for _, metadata in parts)


async def test_a_harmless_agents_messages_arrive() -> None:
    parts = [part async for part in aguard_agent_stream(unguarded(SENTENCE * 3), GIVEN, guard())]
    assert "".join(str(message.text) for message, _ in parts).strip() == (SENTENCE * 3).strip()
    assert len(parts) > 3


async def test_events_are_held_back() -> None:
    text = f"{SENTENCE}Then comes the {BAD} word, sadly. {SENTENCE}"
    events = [event async for event in aguard_event_stream(unguarded(text), GIVEN, guard(streaming=True))]
    said = "".join(str(e["data"]["chunk"].text) for e in events if e["event"] == "on_chat_model_stream")
    assert said.startswith(SENTENCE)
    assert SORRY in said
    assert BAD not in str(events)
    assert "glad" not in said
    harmless = [event async for event in aguard_event_stream(unguarded(SENTENCE), GIVEN, guard())]
    assert [event["event"] for event in harmless].count("on_chat_model_end") == 1
    assert SENTENCE.strip() in "".join(str(e["data"].get("chunk", AIMessage("")).text) for e in harmless)


@pytest.mark.parametrize("mode", ["values", "updates", ["messages", "values"], "debug"])
async def test_a_mode_that_cannot_be_guarded_is_refused(mode: Any) -> None:
    with pytest.raises(InputError, match="cannot be guarded from outside"):
        next(guard_agent_stream(unguarded("x"), GIVEN, guard(), stream_mode=mode))
    with pytest.raises(InputError, match="cannot be guarded from outside"):
        await anext(aguard_agent_stream(unguarded("x"), GIVEN, guard(), stream_mode=mode))
    with pytest.raises(InputError, match="shape"):
        next(guard_agent_stream(unguarded("x"), GIVEN, guard(), subgraphs=True))
    with pytest.raises(InputError, match="version 'v3'"):
        await anext(aguard_event_stream(unguarded("x"), GIVEN, guard(), version="v3"))
