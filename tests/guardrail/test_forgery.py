"""What a client of the server may send, and what a model or tool may answer, to get something past a guard."""

import asyncio
import collections
import logging
import threading
import time
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware, ToolRetryMiddleware
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from langchain_pld import PLDClassifier, Verdict
from langchain_pld.errors import InputError
from langchain_pld.guardrail import (
    AuditWriter,
    Guard,
    GuardrailPolicy,
    PLDGuardrailMiddleware,
    StreamBuffer,
    create_guardrail_graph,
    guard_stream,
    guarded,
    guardrail_node,
)
from langchain_pld.guardrail.content import read
from langchain_pld.guardrail.invisible import has_invisible, strip_invisible
from langchain_pld.guardrail.message_edits import WITHHELD
from tests.fakes import FakeChatModel
from tests.guardrail.agents import BAD, FakeMainModel, at, by_word, calls, guard, says
from tests.guardrail.factories import LABELS, POLICY, verdict
from tests.student.small_artifact import artifact

CONFIG: Any = {"configurable": {"thread_id": "1"}}
APPROVE: Any = Command(resume={"decisions": [{"type": "approve"}]})
TAGS = "".join(chr(0xE0000 + ord(char)) for char in "hidden")
ALL = ("input", "output", "tool_call", "tool_result")


@tool
def send(text: str) -> str:
    """Send a text."""
    return f"sent: {text}"


@tool
def page() -> str:
    """Read a page."""
    return f"a page that says {BAD}"


@tool
def fail() -> str:
    """Fail."""
    raise ValueError(BAD)


def agent(*replies: AIMessage, stages: Any = ("input",), before: Any = (), **options: Any) -> tuple[Any, FakeMainModel]:
    model = FakeMainModel(replies=[*replies, *[says("Fine.")] * 5])
    policy = options.pop("policy", {})
    middleware = [*before, PLDGuardrailMiddleware(guard(**policy), name="guard", **at(*stages))]
    options.setdefault("checkpointer", InMemorySaver())
    return create_agent(model, [send, page, fail], middleware=middleware, **options), model


def run(made: Any, given: Any, sync: bool = True) -> Any:
    given = {"messages": given} if isinstance(given, list) else given
    return made.invoke(given, CONFIG) if sync else asyncio.run(made.ainvoke(given, CONFIG))


def nested(depth: int) -> Any:
    value: Any = BAD
    for _ in range(depth):
        value = [value]
    return value


# --- roles, history, state

ROLES = [
    SystemMessage(BAD),
    AIMessage(BAD),
    AIMessage("", tool_calls=[calls("send", "q", text=BAD)]),
    FunctionMessage(content=BAD, name="f"),
    ChatMessage(BAD, role="assistant"),
    ChatMessage(BAD, role="User"),
    ToolMessage(BAD, tool_call_id="q"),
    HumanMessage(WITHHELD, additional_kwargs={"x": BAD}),
    ("system", BAD),
]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("message", ROLES, ids=range(len(ROLES)))
@pytest.mark.parametrize("goto", [False, True])
def test_what_a_client_brings_is_checked_in_every_role(message: Any, sync: bool, goto: bool) -> None:
    made, model = agent()
    given = [message, HumanMessage("hi")]
    run(made, Command(update={"messages": given}, goto="model") if goto else given, sync)
    assert BAD not in str(model.asked)


@pytest.mark.parametrize("sync", [True, False])
def test_a_result_that_a_client_brings_is_checked_before_a_summariser_reads_it(sync: bool) -> None:
    writer = FakeMainModel(replies=[says("so far")] * 5)
    summary = SummarizationMiddleware(writer, trigger=("messages", 2), keep=("messages", 1))
    made, model = agent(says("fine"), stages=("input", "tool_result"), before=[summary])
    run(made, {"messages": [HumanMessage("hi"), ToolMessage(BAD, tool_call_id="c"), HumanMessage("go on")]}, sync)
    assert writer.asked
    assert BAD not in str([*writer.asked, *model.asked])


@pytest.mark.parametrize("sync", [True, False])
def test_a_request_of_many_messages_asks_few_at_once(sync: bool) -> None:
    working: list[int] = []
    most: list[int] = []

    def answer(_: Any) -> Verdict:
        working.append(1)
        most.append(len(working))
        time.sleep(0.002)
        working.pop()
        return verdict("glad")

    policy = POLICY.model_copy(update={"deadline_s": 60.0})
    middleware = PLDGuardrailMiddleware(Guard(RunnableLambda(answer), policy, labels=LABELS))
    made = create_agent(FakeMainModel(replies=[says("Fine.")]), middleware=[middleware])
    run(made, [HumanMessage(str(number)) for number in range(100)], sync)
    assert max(most) <= 32


@pytest.mark.parametrize("sync", [True, False])
def test_what_the_model_and_its_tools_said_is_no_input(sync: bool) -> None:
    made, model = agent(says("", calls("page")), says(f"It says {BAD}."))
    run(made, [HumanMessage("go")], sync)
    run(made, [HumanMessage("thanks")], sync)
    assert str(model.asked[-1]).count(BAD) == 2


@pytest.mark.parametrize("between", [SystemMessage("x", id="2"), ToolMessage("x", tool_call_id="1", id="2")])
def test_no_message_hides_another_from_a_node(between: Any) -> None:
    state = {"messages": [HumanMessage(BAD, id="1"), between, HumanMessage("ok", id="3")]}
    assert not guardrail_node(guard()).invoke(state)["guardrail"]["allowed"]
    state = {"messages": [HumanMessage("ok", id="1"), SystemMessage(BAD, id="2")]}
    assert not guardrail_node(guard()).invoke(state)["guardrail"]["allowed"]


@pytest.mark.parametrize("junk", [{"pld_pending": {"a": "b"}}, {"pld_checked": [["x"]]}, {"pld_pending": {"a": {}}}])
def test_what_a_client_writes_into_the_state_ends_no_thread(junk: Any) -> None:
    made, _ = agent(stages=ALL)
    run(made, [HumanMessage("hi")])
    run(made, Command(update={**junk, "messages": [HumanMessage("hi")]}))
    assert run(made, [HumanMessage("hi")])["messages"][-1].content == "Fine."


def test_an_approval_in_a_graph_is_for_what_was_shown() -> None:
    graph = create_guardrail_graph(guard(on_violation="interrupt"), input_key="q")
    graph.checkpointer = InMemorySaver()
    graph.invoke({"q": f"so {BAD}"}, CONFIG)
    resume = {"decisions": [{"type": "approve"}]}
    state = graph.invoke(Command(resume=resume, update={"q": "EVIL"}), CONFIG)
    assert not state["guardrail"]["allowed"]


@pytest.mark.parametrize("sync", [True, False])
def test_an_approval_is_for_the_content_that_waited_and_nothing_stays_in_the_store(sync: bool) -> None:
    for forged in (False, True):
        store = InMemoryStore()
        made, model = agent(policy={"on_violation": "interrupt"}, store=store)
        run(made, [HumanMessage(f"so {BAD}")], sync)
        [item] = store.search(("pld", "held"))
        if forged:
            evil = str(item.value["messages"]).replace(BAD, "EVIL")
            store.put(item.namespace, item.key, {"messages": eval(evil)})
        run(made, APPROVE, sync)
        assert (BAD in str(model.asked), "EVIL" in str(model.asked)) == (not forged, False)
        assert forged or store.search(("pld", "held")) == [], "nothing stays there"


def test_another_policy_under_the_same_name_checks_again() -> None:
    memory = InMemorySaver()
    lax, _ = agent(policy={"on_violation": "allow"}, checkpointer=memory)
    run(lax, [HumanMessage(BAD)])
    strict, model = agent(checkpointer=memory)
    run(strict, [HumanMessage("hi")])
    assert BAD not in str(model.asked)


@pytest.mark.parametrize("changes", [{"name": BAD}, {"additional_kwargs": {"x": BAD}}])
def test_a_signature_is_for_all_that_is_read(changes: Any) -> None:
    made, model = agent()
    run(made, [HumanMessage("hi", id="1")])
    run(made, [HumanMessage("hi", id="1", **changes), HumanMessage("so?", id="2")])
    assert BAD not in str(model.asked)


# --- reading

CALL = calls("f", "1", x="ok")
COPIES: list[AIMessage] = [
    AIMessage("", tool_calls=[calls("f", "1", x="F\x01ORBIDDEN")]),
    AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": '{"x": "\\u0046ORBIDDEN"}'}}),
    AIMessage([{"type": "tool_use", "id": "1", "name": "f", "input": {"x": BAD}}], tool_calls=[CALL]),
    AIMessage([{"type": "tool_use", "id": "1", "name": "f", "input": {"x": "ok"}, "more": BAD}], tool_calls=[CALL]),
    AIMessage([{"type": "function_call", "call_id": "1", "name": BAD, "arguments": '{"x": "ok"}'}], tool_calls=[CALL]),
    AIMessage(
        "",
        additional_kwargs={"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": BAD}}]},
        tool_calls=[CALL],
    ),
]
NOTHING: list[Any] = [
    HumanMessage("hi", name=BAD),
    [{"role": "user", "content": "hi", "name": BAD}],
    HumanMessage([{"type": "redacted_thinking", "text": BAD}]),
    ChatMessage("ok", role=BAD),
    {BAD: ""},
    {BAD: None},
    {BAD: []},
    HumanMessage([{"type": "text", "text": "ok", "status": BAD}]),
    HumanMessage("hi", additional_kwargs={"__x": BAD}),
]
ODD: list[Any] = [
    HumanMessage([{"type": ["text"], "text": BAD}]),
    HumanMessage([{"type": "tool_use", "id": ["x"], "name": BAD}]),
    HumanMessage("hi").model_copy(update={"additional_kwargs": {1: BAD}}),
    [(["a"], BAD)],
    [({"a": 1}, BAD)],
    [{"role": "assistant", "content": "ok", "tool_calls": f"x{BAD}"}],
    10**5000,
    {"a": 10**5000},
    AIMessage("", tool_calls=[calls("f", "1", x=nested(3000))]),
]


@pytest.mark.parametrize("value", [*COPIES, *NOTHING, *ODD], ids=range(len(COPIES + NOTHING + ODD)))
async def test_whatever_comes_is_read_or_counts_as_unreadable(value: Any) -> None:
    assert not guard().check(value).allowed
    assert not (await guard().acheck(value)).allowed


POISONS = [10**5000, nested(3000), {"role": "assistant", "content": "fine", "tool_calls": "none"}, b"\xff"]


@pytest.mark.parametrize("poison", POISONS, ids=range(len(POISONS)))
async def test_a_part_that_cannot_be_read_hides_nothing_beside_it(poison: Any) -> None:
    lax = guard(on_unreadable="allow")
    for value in ([BAD, poison], {"a": poison, "b": BAD}, HumanMessage(BAD, additional_kwargs={"x": poison})):
        assert not lax.check(value).allowed
        assert not (await lax.acheck(value)).allowed


def test_a_copy_of_a_call_and_technical_fields_say_nothing_new() -> None:
    copy = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": "ok"}}
    message = AIMessage(
        [copy], tool_calls=[calls("f", "toolu_1", x="ok")], additional_kwargs={"__sig__": {"toolu_1": "Ab+3/dE="}}
    )
    assert read(message).text == 'f {"x": "ok"}'
    assert read(AIMessage("Hello.", name="support_agent")).text == "Hello."


Pair = collections.namedtuple("Pair", ["one", "two"])
CLEANABLE: list[Any] = [
    Document(page_content=f"hi{TAGS}"),
    [Document(page_content=f"hi{TAGS}")],
    {f"hi{TAGS}"},
    {f"a{TAGS}": "x"},
    Pair(f"hi{TAGS}", "x"),
    HumanMessage("x", name=f"A b{TAGS}"),
    AIMessage("", tool_calls=[calls("send", text=f"ok{TAGS}")]),
]


@pytest.mark.parametrize("value", CLEANABLE, ids=range(len(CLEANABLE)))
def test_what_goes_on_is_what_was_checked(value: Any) -> None:
    got: list[Any] = []
    chain = guarded(RunnableLambda(got.append), input_guards=guard())
    for call in (
        chain.invoke,
        lambda given: asyncio.run(chain.ainvoke(given)),
        lambda given: list(chain.stream(given)),
    ):
        call(value)
    assert len(got) == 3
    assert not has_invisible(read(got).text)


def test_what_cannot_be_cleaned_is_blocked() -> None:
    class Stubborn(HumanMessage):
        def model_copy(self, **_: Any) -> Any:
            return self

    assert not guard().check(Stubborn(f"hi{TAGS}")).allowed
    assert guard(invisible_text="keep").check(Stubborn(f"hi{TAGS}")).allowed


@pytest.mark.parametrize("sync", [True, False])
def test_arguments_reach_the_tool_without_what_nobody_sees(sync: bool) -> None:
    made, _ = agent(says("", calls("send", text=f"ok{TAGS}")), stages=("tool_call",))
    state = run(made, [HumanMessage("go")], sync)
    assert "sent: ok" in str(state["messages"])
    assert not has_invisible(read([m.content for m in state["messages"]]).text)


@pytest.mark.parametrize("code", [0x378, 0x40068, 0xE0068, 0x600, 0x13430, 0x200B, 0x2800, 0x34F])
def test_what_the_student_does_not_read_goes_no_further(code: int) -> None:
    assert strip_invisible(f"a{chr(code)}b") == "ab"


@pytest.mark.parametrize("row", ["\ufe0f\u200d" * 10, "\u200d\u200c" * 20, "\u200d\U000e0041\u200d"])
def test_cleaning_twice_changes_nothing(row: str) -> None:
    once = strip_invisible(f"x{row}")
    assert strip_invisible(once) == once
    assert len(once) <= 3


# --- streams

Chunk = AIMessageChunk
CHANNELS = [
    [
        Chunk([{"type": "text", "text": "FORB"}]),
        Chunk([{"type": "reasoning", "reasoning": "x"}]),
        Chunk([{"type": "text", "text": "IDDEN"}]),
    ],
    [
        Chunk("a", additional_kwargs={"reasoning_content": "FORB"}),
        Chunk("b", additional_kwargs={"reasoning_content": "IDDEN"}),
    ],
    [
        Chunk("", tool_call_chunks=[{"name": "FORB", "args": "", "id": "1", "index": 0}]),
        Chunk("", tool_call_chunks=[{"name": "IDDEN", "args": "{}", "id": None, "index": 0}]),
    ],
    [
        Chunk(
            [{"type": "server_tool_use", "id": "z", "name": BAD}],
            tool_call_chunks=[{"name": "f", "args": "{}", "id": "1", "index": 0}],
        )
    ],
    [
        Chunk(
            "",
            additional_kwargs={"tool_calls": [{"function": {"arguments": BAD}, "index": 0}]},
            tool_call_chunks=[{"name": "f", "args": "{}", "id": "1", "index": 0}],
        )
    ],
    [Chunk("", tool_call_chunks=[{"name": "f", "args": '{"x": "\\u0046ORBIDDEN"}', "id": "1", "index": 0}])],
    [
        Chunk("", additional_kwargs={"reasoning_content": "FORB"}),
        Chunk([{"type": "reasoning", "reasoning": "x"}]),
        Chunk("", additional_kwargs={"reasoning_content": "IDDEN"}),
    ],
    [Chunk("Good morning, dear people. ", name=BAD), Chunk("How do you do? ")],
]


@pytest.mark.parametrize("chunks", CHANNELS, ids=range(len(CHANNELS)))
def test_each_channel_of_a_stream_is_read_by_itself(chunks: list[Any]) -> None:
    whole = guard_stream(iter(chunks), guard())
    out = list(whole)
    total = out[0]
    for chunk in out[1:]:
        total = total + chunk
    shown = read(total).text + str(total.text) + str(total.tool_calls)
    assert BAD not in shown
    assert "rules of this service" in shown


def test_reasoning_is_streamed_and_then_the_text() -> None:
    sentence = "This is one quite harmless sentence of some length. "
    chunks = [Chunk([{"type": "reasoning", "reasoning": sentence}])] * 2 + [Chunk(sentence)] * 2
    checked = guard()
    assert len(list(guard_stream(iter(chunks), checked))) == 4
    assert len(checked.classifier.student.asked) == 4  # type: ignore[attr-defined]


STEADY: list[Any] = [
    ("\n", StreamBuffer()),
    (Chunk(""), StreamBuffer()),
    ("a ", StreamBuffer(by="all")),
    (Chunk("", tool_call_chunks=[{"name": None, "args": " ", "id": None, "index": 0}]), StreamBuffer()),
]


@pytest.mark.parametrize(("chunk", "buffer"), STEADY, ids=range(len(STEADY)))
def test_a_stream_takes_time_with_its_length_and_not_with_the_square(chunk: Any, buffer: StreamBuffer) -> None:
    def seconds(length: int) -> float:
        started = time.process_time()
        list(guard_stream([chunk] * length, guard(), buffer=buffer))
        return time.process_time() - started

    assert seconds(8_000) < 10 * seconds(2_000) + 0.2


# --- tools


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("stages", [("tool_call",), ALL])
def test_the_name_of_a_refused_call_is_not_repeated(sync: bool, stages: Any) -> None:
    made, model = agent(says("", calls(BAD, "q", text="a")), stages=stages)
    state = run(made, [HumanMessage("go")], sync)
    assert BAD not in str(model.asked) + str(state)


async def test_no_event_shows_a_tools_result_before_its_check() -> None:
    made, _ = agent(says("", calls("page")), stages=("tool_result",))
    events = [event async for event in made.astream_events({"messages": [("user", "go")]}, CONFIG, version="v2")]
    assert BAD not in str(events)


@pytest.mark.parametrize("sync", [True, False])
def test_an_error_that_a_retry_words_is_checked_before_any_stream(sync: bool) -> None:
    retry = ToolRetryMiddleware(max_retries=1, initial_delay=0)
    made, _ = agent(says("", calls("fail")), stages=ALL, before=[retry])
    modes = ["values", "updates", "messages", "debug", "tasks", "checkpoints"]
    given: Any = {"messages": [("user", "go")]}
    if sync:
        shown = list(made.stream(given, CONFIG, stream_mode=modes))
    else:

        async def collect() -> list[Any]:
            return [part async for part in made.astream(given, CONFIG, stream_mode=modes)]

        shown = asyncio.run(collect())
    assert BAD not in str(shown)


# --- verdicts, audit, threads


def test_a_threshold_for_a_classifier_without_probabilities_is_refused() -> None:
    structured = PLDClassifier(artifact=artifact(scorer="structured"), student=FakeChatModel(script=by_word))
    with pytest.raises(InputError, match="answers read as structured have no probabilities"):
        Guard(structured, GuardrailPolicy(block_labels={"sad": 0.3}))


@pytest.mark.parametrize(
    "fields",
    [{"status": "decided", "label": None}, {"status": "decided", "label": ["sad"]}, {"probabilities": {"sad": "x"}}],
)
async def test_a_verdict_that_nobody_validated_is_an_error(fields: Any) -> None:
    forged = Verdict.model_construct(**{**verdict("glad").__dict__, **fields})
    checked = Guard(RunnableLambda(lambda _: forged), POLICY, labels=LABELS)
    assert checked.check("hi").outcome == (await checked.acheck("hi")).outcome == "error"


def test_an_audit_log_survives_an_error_that_ends_threads(caplog: pytest.LogCaptureFixture) -> None:
    records: list[str] = []

    class Dying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not records:
                records.append("")
                raise SystemExit
            records.append(record.getMessage())

    with AuditWriter(Dying()):
        guard().check("hi")
        guard().check("hi")
    assert len(records) == 2
    assert "audit record could not be written" in caplog.text


async def test_a_classifier_that_only_blocks_leaves_the_executor_and_other_threads_alone() -> None:
    go = threading.Event()
    before = threading.active_count()
    checked = Guard(RunnableLambda(lambda _: go.wait(20)), POLICY.model_copy(update={"deadline_s": 0.2}), labels=LABELS)
    await asyncio.gather(*(checked.acheck("hi") for _ in range(60)))
    started = time.perf_counter()
    await asyncio.to_thread(lambda: None)
    assert time.perf_counter() - started < 0.5
    assert threading.active_count() - before < 45
    go.set()


def test_a_guard_and_its_classifier_have_one_breaker_and_one_deadline() -> None:
    asked: list[float] = []

    def script(_: Any) -> Any:
        asked.append(time.perf_counter())
        return ConnectionError()

    checked = guard(script)
    for _ in range(8):
        decision = checked.check("hi")
    assert len(asked) == 5
    assert "circuit_open" in decision.reason
    failure = checked.classifier.invoke("hi").failure
    assert failure is not None
    assert failure.kind == "circuit_open", "the classifier's own"
