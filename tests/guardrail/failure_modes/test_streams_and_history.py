"""Modes 7, 8 and 16: the student's own tokens, text that is shown before it was checked, and what stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_pld.answer import AnswerFormat
from langchain_pld.guardrail import PLDGuardrailMiddleware, guard_agent_stream, guarded
from langchain_pld.guardrail.stream import aguard_agent_stream
from tests.fakes import scored
from tests.guardrail.agents import BAD, FakeMainModel, at, says
from tests.guardrail.failure_modes.call_styles import (
    BLOCKED,
    HOWS,
    PLACES,
    CallStyle,
    called,
    each_style,
    main_model,
    seen_by,
    watch,
)
from tests.student.small_artifact import TASK

ODD = AnswerFormat.words(TASK, {"glad": "quokka", "sad": "wombat", "calm": "numbat"})
"""Answer words that nobody else says."""
SENTENCE = "This is one quite harmless sentence of some length. "


def odd(*_: Any) -> Any:
    return scored({"quokka": 0.9, "wombat": 0.1})


# --- 7


@each_style()
def test_mode_07_student_tokens_in_the_users_stream(style: CallStyle) -> None:
    heard: list[str] = []

    class Listening(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            heard.append(token)

    result = style(watch(odd, streaming=True, answer=ODD), "good morning", {"callbacks": [Listening()]})
    assert result.reached
    assert "quokka" not in str(result)
    assert "quokka" not in "".join(heard)
    if style.how in {"stream", "astream"}:
        assert "Hello" in "".join(result.spoken), "the guarded model's own tokens are heard"


@pytest.mark.parametrize("place", PLACES)
def test_mode_07_nor_in_a_stream_of_events(place: str) -> None:
    style = CallStyle(place, "astream")
    made = style.build(watch(odd, streaming=True, answer=ODD))

    async def collect() -> list[Any]:
        return [event async for event in made.astream_events(style.input("good morning"), version="v2")]

    events = asyncio.run(collect())
    spoken = [event for event in events if event["event"] in {"on_chat_model_stream", "on_llm_stream"}]
    assert spoken
    assert "quokka" not in str(spoken)


@pytest.mark.parametrize("how", HOWS)
def test_mode_07_nor_in_the_stream_of_an_output_guard(how: str) -> None:
    for made, given in output_guarded(says(SENTENCE * 3), watch(odd, streaming=True, answer=ODD)):
        _, shown = called(made, given, how)
        assert "quokka" not in str(shown)
        assert "harmless" in str(shown)


# --- 8


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_mode_08_output_shown_before_it_was_checked(how: str) -> None:
    """At the moment when a text is shown, the student has read it already."""
    for place in ("agent", "chain", "graph"):
        watched = watch()
        reading = parts(place, how, says(SENTENCE * 4), watched)
        told = ""
        for part, read in reading:
            told += part
            assert all(sentence in read for sentence in told.split(". ") if sentence.strip()), place
        assert told.count("harmless") >= 4, "the whole was shown in the end"


@pytest.mark.parametrize("how", HOWS)
def test_mode_08_a_blocked_output_is_shown_in_no_part(how: str) -> None:
    for text in (f"{BAD} {SENTENCE}", f"{SENTENCE}Then {BAD}. {SENTENCE}", f"{SENTENCE * 3}{BAD}"):
        for made, given in output_guarded(says(text), watch()):
            _, shown = called(made, given, how)
            assert BAD not in str(shown)
            assert BLOCKED in str(shown)


@pytest.mark.parametrize("how", HOWS)
def test_mode_08_nor_one_that_could_not_be_checked(how: str) -> None:
    for made, given in output_guarded(says(SENTENCE), watch(lambda _: ConnectionError())):
        _, shown = called(made, given, how)
        assert "harmless" not in str(shown)


def output_guarded(reply: Any, watched: Any) -> list[tuple[Any, Any]]:
    """An agent and a chain with an output guard, each with what it is called with."""
    from langchain.agents import create_agent

    middleware = [PLDGuardrailMiddleware(watched, **at("output"))]
    agent = create_agent(FakeMainModel(replies=[reply]), middleware=middleware)
    chain = guarded(FakeMainModel(replies=[reply]), output_guards=watched)
    return [(agent, {"messages": [("user", "good morning")]}), (chain, "good morning")]


def parts(place: str, how: str, reply: Any, watched: Any) -> list[tuple[str, str]]:
    """Each text that was shown, with all that the student had read by then."""
    from langchain.agents import create_agent

    (agent, given), (chain, question) = output_guarded(reply, watched)
    bare = create_agent(FakeMainModel(replies=[reply]))

    def noted(part: Any) -> tuple[str, str]:
        message = part[0] if isinstance(part, tuple) else part
        text = str(message.text) if isinstance(message, BaseMessage) and message.type != "human" else ""
        return text, " ".join(str(messages[-1].text) for messages in seen_by(watched))

    if how == "stream":
        sources: dict[str, Any] = {
            "agent": lambda: agent.stream(given, stream_mode="messages"),
            "chain": lambda: chain.stream(question),
            "graph": lambda: guard_agent_stream(bare, given, watched),
        }
        return [noted(part) for part in sources[place]()]
    asources: dict[str, Any] = {
        "agent": lambda: agent.astream(given, stream_mode="messages"),
        "chain": lambda: chain.astream(question),
        "graph": lambda: aguard_agent_stream(bare, given, watched),
    }

    async def collect() -> list[tuple[str, str]]:
        return [noted(part) async for part in asources[place]()]

    return asyncio.run(collect())


# --- 16


@each_style(places=["node", "subgraph", "agent"])
def test_mode_16_a_blocked_message_stays_in_no_history(style: CallStyle) -> None:
    """The model of the next turn does not see it, nor does whoever reads the state. The checkpoint of the input itself
    is LangGraph's and is written before any node runs: who must not keep that cleans the checkpointer."""
    memory, config, model = InMemorySaver(), {"configurable": {"thread_id": "1"}}, main_model()
    watched = watch()
    first = style(watched, f"tell me {BAD} things", config, model=model, checkpointer=memory)
    assert not first.reached
    made = style.build(watched, model=model, checkpointer=memory)
    assert BAD not in str(made.get_state(config).values)
    second = style(watched, "good morning", config, model=model, checkpointer=memory)
    assert second.reached
    assert BAD not in str(model.asked)
    assert BAD not in str(made.get_state(config).values)


@each_style(places=["agent"])
def test_mode_16_nor_does_a_blocked_answer(style: CallStyle) -> None:
    from langchain.agents import create_agent

    memory, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    model = FakeMainModel(replies=[says(f"the {BAD} answer"), says("Hello.")])
    made = create_agent(model, middleware=[PLDGuardrailMiddleware(watch(), **at("output"))], checkpointer=memory)
    called(made, style.input("one"), style.how, config)
    assert not any(BAD in str(step.values) for step in made.get_state_history(config))
    called(made, style.input("two"), style.how, config)
    assert BAD not in str(model.asked)
