"""Agents with several middlewares in random order, and streams cut at random: what is forbidden reaches nobody.

A few of each run in the suite; `PLD_FUZZ_AGENTS=300` and `PLD_FUZZ_STREAMS=10000` ask for more.
"""

import asyncio
import os
import random
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
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_pld.guardrail import GuardrailError, PLDGuardrailMiddleware, StreamBuffer, aguard_stream, guard_stream
from tests.guardrail.agents import BAD, FakeMainModel, at, calls, guard, says

AGENTS = int(os.environ.get("PLD_FUZZ_AGENTS", "30"))
STREAMS = int(os.environ.get("PLD_FUZZ_STREAMS", "200"))
RAN: list[str] = []
FILLERS = ["word ", "end. ", "what? ", "\n", "a", "。", "… ", "x" * 30, "é\u0301"]
STAGES = ("input", "output", "tool_call", "tool_result")


@tool
def send(text: str) -> str:
    """Send a text."""
    RAN.append(text)
    return f"sent: {text}"


@tool
def read() -> str:
    """Read a page."""
    return f"a page that says {BAD}"


@tool(return_direct=True)
def show() -> str:
    """Show a page."""
    return f"a page that says {BAD}"


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
        "human": lambda: HumanInTheLoopMiddleware(interrupt_on={"send": True}),
        "human per call": lambda: HumanInTheLoopMiddleware(interrupt_on={"send": True}, interrupt_mode="per_call"),
    }


def answer(value: Any, chance: random.Random) -> Any:
    """What a person says to an interrupt: approves, rejects, or edits a call into a forbidden one."""
    edit = {"type": "edit", "edited_action": {"name": "send", "args": {"text": BAD}}}
    kinds = [{"type": "approve"}, {"type": "reject"}, edit]
    requests = value.get("action_requests") if isinstance(value, dict) else None
    if requests is None:
        return chance.choice(kinds)
    ours = [request["name"].startswith("pass_") for request in requests]
    return {"decisions": [chance.choice(kinds[:2] if own else kinds) for own in ours]}


@pytest.mark.parametrize("seed", range(AGENTS))
@pytest.mark.filterwarnings("ignore")
def test_no_order_of_middlewares_opens_the_gate(seed: int) -> None:
    RAN.clear()
    chance = random.Random(seed)
    writer, spare = (FakeMainModel(replies=[says("Well.")] * 100) for _ in range(2))
    words = [f"so {BAD}", "fine", "fine"]
    moves = [
        lambda: says(chance.choice(words)),
        lambda: says(chance.choice(["", *words]), calls("send", f"c{chance.random()}", text=chance.choice(words))),
        lambda: says("", calls("read", f"c{chance.random()}")),
        lambda: says("", calls("show", f"c{chance.random()}")),
    ]
    model = FakeMainModel(replies=[chance.choice(moves)() for _ in range(100)])
    blocking = PLDGuardrailMiddleware(guard(), name="blocker", **at(*STAGES))
    more = [
        PLDGuardrailMiddleware(guard(on_violation="interrupt"), name="asker", **at(*chance.sample(STAGES, 2))),
        PLDGuardrailMiddleware(guard(on_violation="raise"), name="raiser", **at(chance.choice(STAGES))),
    ]
    kinds = others(writer, spare)
    person = kinds.pop(chance.choice(["human", "human per call"]))  # LangChain refuses two of one name
    kinds.pop("human", None)
    kinds.pop("human per call", None)
    drawn = [person(), *(make() for make in chance.sample(list(kinds.values()), 2))]
    middleware = [blocking, *chance.sample(more, chance.randint(0, 2)), *drawn]
    chance.shuffle(middleware)
    made = create_agent(model, [send, read, show], middleware=middleware, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 200}
    how = chance.choice(["invoke", "ainvoke"])
    shown: list[Any] = []
    for _ in range(3):
        given: Any = {"messages": [("user", chance.choice(words))]}
        for _ in range(6):
            try:
                call = getattr(made, how)(given, config)
                state = call if how == "invoke" else asyncio.run(call)
            except GuardrailError:
                break
            shown.append([message.content for message in state["messages"][-1:]])
            if "__interrupt__" not in state:
                break
            given = Command(resume=answer(state["__interrupt__"][0].value, chance))
    order = [m.name for m in middleware]
    last = [message for message in made.get_state(config).values.get("messages", []) if isinstance(message, AIMessage)]
    assert not any(BAD in text for text in RAN), order
    assert BAD not in str([[m.content for m in asked if m.type in {"human", "tool"}] for asked in model.asked]), order
    assert BAD not in str(writer.asked), order
    # A user's message that an exception left in the checkpoint was shown to nobody; the answers were.
    assert BAD not in str([message.content for message in last]), order


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
