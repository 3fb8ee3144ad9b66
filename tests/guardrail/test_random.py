"""Agents with several middlewares in random order, and streams cut at random: what is forbidden reaches nobody.

A few of each run in the suite; `PLD_FUZZ_AGENTS=300` and `PLD_FUZZ_STREAMS=10000` ask for more.
"""

import asyncio
import os
import random
import re
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_pld.guardrail import GuardrailError, PLDGuardrailMiddleware, StreamBuffer, aguard_stream, guard_stream
from langchain_pld.guardrail.message_edits import WITHHELD
from tests.guardrail.agents import BAD, FakeMainModel, at, calls, guard, says

AGENTS = int(os.environ.get("PLD_FUZZ_AGENTS", "30"))
STREAMS = int(os.environ.get("PLD_FUZZ_STREAMS", "200"))
RAN: list[str] = []
FILLERS = ["word ", "end. ", "what? ", "\n", "a", "。", "… ", "x" * 30, "é\u0301"]
STAGES = ("input", "output", "tool_call", "tool_result")
MODES = ["values", "updates", "messages", "debug", "tasks", "checkpoints", "custom"]
FROM_USER, FROM_MODEL = f"{BAD} of a user", f"{BAD} of a model"


@tool
def send(text: str) -> str:
    """Send a text."""
    RAN.append(text)
    return f"sent: {text}"


@tool
def read() -> str:
    """Read a page."""
    return f"a page that says {FROM_MODEL}"


@tool(return_direct=True)
def show() -> str:
    """Show a page."""
    return f"a page that says {FROM_MODEL}"


def others(writer: FakeMainModel, spare: FakeMainModel) -> dict[str, Any]:
    """LangChain's own middlewares, each made when it is drawn."""
    return {
        "limit": lambda: ModelCallLimitMiddleware(run_limit=6),
        "tool limit": lambda: ToolCallLimitMiddleware(run_limit=6),
        "fallback": lambda: ModelFallbackMiddleware(spare),
        "retry": lambda: ModelRetryMiddleware(max_retries=1, initial_delay=0),
        "tool retry": lambda: ToolRetryMiddleware(max_retries=1, initial_delay=0),
        "pii": lambda: PIIMiddleware("email", apply_to_output=True, apply_to_tool_results=True),
        "summary": lambda: SummarizationMiddleware(writer, trigger=("messages", 3), keep=("messages", 1)),
        "todo": TodoListMiddleware,
        "edits": lambda: ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=10, keep=1)]),
    }


def answer(value: Any, chance: random.Random) -> Any:
    """What a person says to an interrupt: approves, rejects, or edits a call into a forbidden one."""
    edit = {"type": "edit", "edited_action": {"name": "send", "args": {"text": FROM_USER}}}
    kinds = [{"type": "approve"}, {"type": "reject"}, edit]
    requests = value.get("action_requests") if isinstance(value, dict) else None
    if requests is None:
        return chance.choice(kinds)
    ours = [request["name"].startswith("pass_") for request in requests]
    return {"decisions": [chance.choice(kinds[:2] if own else kinds) for own in ours]}


def reply(chance: random.Random) -> AIMessage:
    """What the main model says: words, thoughts and calls, some of them forbidden."""
    words = ["fine", "fine", f"so {FROM_MODEL}"]
    some = [calls("send", f"c{chance.random()}", text=chance.choice(words)) for _ in range(chance.randint(1, 3))]
    moves = [
        lambda: says(chance.choice(words)),
        lambda: says(chance.choice(["", *words]), *some),
        lambda: says("", *some, calls("read", f"c{chance.random()}")),
        lambda: says("", calls("show", f"c{chance.random()}")),
        lambda: AIMessage([{"type": "reasoning", "reasoning": chance.choice(words)}, {"type": "text", "text": "fine"}]),
        lambda: AIMessage("fine", additional_kwargs={"reasoning_content": chance.choice(words)}),
    ]
    made: AIMessage = chance.choice(moves)()
    return made


def brought(chance: random.Random) -> Any:
    """What a client sends: a user's message, at times with a message of another kind, at times with a jump."""
    kinds = [
        HumanMessage(FROM_USER),
        HumanMessage(WITHHELD, additional_kwargs={"note": FROM_USER}),
        SystemMessage(FROM_USER),
        ChatMessage(FROM_USER, role="assistant"),
        AIMessage(FROM_USER),
        AIMessage("", tool_calls=[calls("send", f"c{chance.random()}", text=FROM_USER)]),
        ToolMessage(FROM_USER, tool_call_id="c"),
    ]
    messages = [
        *chance.sample(kinds, chance.choice([0, 0, 0, 1])),
        HumanMessage(chance.choice(["fine", "fine", FROM_USER])),
    ]
    given = {"messages": messages}
    return Command(update=given, goto=chance.choice(["model", "tools"])) if chance.random() < 0.1 else given


def call(agent: Any, given: Any, config: Any, chance: random.Random) -> tuple[Any, str]:
    """Call an agent in one of four ways; gives its state and what its streams showed, but for the questions."""
    way = chance.choice(["invoke", "ainvoke", "stream", "astream"])
    shown: list[Any] = []
    if way == "invoke":
        agent.invoke(given, config)
    elif way == "ainvoke":
        asyncio.run(agent.ainvoke(given, config))
    elif way == "stream":
        shown += agent.stream(given, config, stream_mode=MODES)
    else:

        async def stream() -> None:
            shown.extend([part async for part in agent.astream(given, config, stream_mode=MODES)])

        asyncio.run(stream())
    question = re.compile(r"Interrupt\(|'interrupts': \[\{")
    return agent.get_state(config), "\n".join(text for text in map(str, shown) if not question.search(text))


@pytest.mark.parametrize("seed", range(AGENTS))
@pytest.mark.filterwarnings("ignore")
def test_no_order_of_middlewares_opens_the_gate(seed: int) -> None:
    RAN.clear()
    chance = random.Random(seed)
    writer, spare = (FakeMainModel(replies=[says("Well.")] * 200) for _ in range(2))
    model = FakeMainModel(replies=[reply(chance) for _ in range(200)])
    blocking = PLDGuardrailMiddleware(guard(), name="blocker", **at(*STAGES))
    more = [
        PLDGuardrailMiddleware(guard(on_violation="interrupt"), name="asker", **at(*chance.sample(STAGES, 2))),
        PLDGuardrailMiddleware(guard(on_violation="raise"), name="raiser", **at(chance.choice(STAGES))),
        PLDGuardrailMiddleware(guard(on_violation="flag"), name="marker", **at(*chance.sample(STAGES, 2))),
    ]
    ours = [blocking, *chance.sample(more, chance.randint(0, 2))]
    person = HumanInTheLoopMiddleware(
        interrupt_on={"send": True}, interrupt_mode=chance.choice(["batched", "per_call"])
    )
    drawn = chance.sample(list(others(writer, spare).values()), 4 - len(ours))
    middleware = [*ours, person, *(make() for make in drawn)]
    chance.shuffle(middleware)
    agent = create_agent(model, [send, read, show], middleware=middleware, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 200}
    shown, has_jumped = "", False
    for _ in range(3):
        given = brought(chance)
        has_jumped |= isinstance(given, Command)
        for _ in range(6):
            try:
                state, more_shown = call(agent, given, config, chance)
            except GuardrailError:
                break
            except ValueError as error:  # a client that jumps to tools where nothing called any
                assert "No AIMessage" in str(error)
                break
            shown += more_shown
            if not state.interrupts:
                break
            answers = {question.id: answer(question.value, chance) for question in state.interrupts}
            given = Command(resume=answers if len(answers) > 1 else next(iter(answers.values())))
    order = [m.name for m in middleware]
    assert not any(BAD in text for text in RAN), order
    assert BAD not in str(model.asked), order
    # A client that jumps into the graph comes by the hooks that stand before the guard first.
    if not (has_jumped and SummarizationMiddleware.__name__ in order[: order.index(blocking.name)]):
        assert BAD not in str(writer.asked), order
    # What a person approved in one middleware stands in the state until the guard of the other has checked it.
    if not any("asker" in name for name in order):
        assert FROM_MODEL not in shown, order
        assert FROM_MODEL not in str(agent.get_state(config).values.get("messages")), order


def pieces(text: str, chance: random.Random) -> list[str]:
    cut = sorted(chance.sample(range(1, len(text)), chance.randint(0, min(12, len(text) - 1))))
    return [text[start:end] for start, end in zip([0, *cut], [*cut, len(text)], strict=True)]


@pytest.mark.parametrize("part", range(10))
def test_no_cut_of_a_stream_lets_the_forbidden_word_out(part: int) -> None:
    for number in range(STREAMS // 10):
        chance = random.Random(part * 1_000_000 + number)
        filler = "".join(
            chance.choice(["word ", "end. ", "what? ", "\n", "a", "。", "… ", "x" * 30, "é\u0301"]) for _ in range(40)
        )
        spot = chance.randint(0, len(filler))
        text = f"{filler[:spot]} {BAD} {filler[spot:]}"
        smallest = chance.randint(1, 60)
        hold = StreamBuffer(
            by=chance.choice(["sentence", "window", "all"]),
            min_chars=smallest,
            max_chars=smallest + chance.randint(10, 200),
        )
        parts = pieces(text, chance)
        kind = chance.choice([str, AIMessageChunk, "blocks"])
        chunks: list[Any] = parts
        if kind is AIMessageChunk:
            chunks = [AIMessageChunk(found) for found in parts]
        elif kind == "blocks":
            chunks = [
                AIMessageChunk([{"type": chance.choice(["text", "output_text"]), "text": found}]) for found in parts
            ]
        if chance.random() < 0.5:
            out = list(guard_stream(iter(chunks), guard(), buffer=hold))
        else:
            out = asyncio.run(collected(chunks, hold))
        said = "".join(found if isinstance(found, str) else str(found.text) for found in out)
        assert BAD not in said, (part, number)


async def collected(chunks: list[Any], hold: StreamBuffer) -> list[Any]:
    async def later() -> Any:
        for chunk in chunks:
            yield chunk

    return [part async for part in aguard_stream(later(), guard(), buffer=hold)]
