"""The guard as a node of a graph, and what its student's tokens must not do there."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from langchain_pld import PLDClassifier
from langchain_pld.errors import InputError
from langchain_pld.guardrail import Guard, GuardrailError, guardrail_node
from langchain_pld.guardrail.nostream import nostream_config
from langchain_pld.guardrail.policy import GuardrailPolicy
from tests.guardrail.factories import LABELS, POLICY, failed, guard, mood_guard, verdict
from tests.student.small_artifact import artifact

SECRET = "sad"
CALL = {"name": "pay", "args": {"to": "grief"}, "id": "1"}


class State(MessagesState):
    guardrail: dict[str, Any]


class TextState(TypedDict, total=False):
    question: str
    checked: dict[str, Any]
    log: Annotated[list[str], lambda old, new: [*old, *new]]


class FakeStreamingStudent(BaseChatModel):
    """Gives its answer as tokens wherever somebody listens, and tells its callbacks of each in any case."""

    model: str = "fake"

    @property
    def _llm_type(self) -> str:
        return "fake-chat"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        if run_manager is not None:
            run_manager.on_llm_new_token(SECRET, chunk=ChatGenerationChunk(message=AIMessageChunk(SECRET)))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(SECRET))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        chunk = ChatGenerationChunk(message=AIMessageChunk(SECRET))
        if run_manager is not None:
            run_manager.on_llm_new_token(SECRET, chunk=chunk)
        yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunk = ChatGenerationChunk(message=AIMessageChunk(SECRET))
        if run_manager is not None:
            await run_manager.on_llm_new_token(SECRET, chunk=chunk)
        yield chunk


class FakeForgetfulClassifier(Runnable[Any, Any]):
    """Asks its student without handing its config on."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        return verdict(FakeStreamingStudent().invoke("which?").text)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        return verdict((await FakeStreamingStudent().ainvoke("which?")).text)


def streaming_guard(*, forgetful: bool = False) -> Guard:
    """A guard whose student streams; a forgetful classifier does not hand its config on to it."""
    student = FakeStreamingStudent()
    if not forgetful:
        return Guard(
            PLDClassifier(artifact=artifact(scorer="text"), student=student), GuardrailPolicy(block_labels=["calm"])
        )

    return Guard(FakeForgetfulClassifier(), GuardrailPolicy(block_labels=["calm"]), labels=LABELS)


def chat_graph(watch: Any, **options: Any) -> Any:
    """Guard, then a model that streams, or a note that it was blocked."""
    model = GenericFakeChatModel(messages=iter([AIMessage("all is well")] * 9))

    def call_model(state: State) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def acall_model(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    node = guardrail_node(watch, goto_allowed="model", goto_blocked=END, **options)
    builder = StateGraph(State)
    builder.add_node("guard", node, destinations=node.destinations)
    builder.add_node("model", RunnableLambda(call_model, acall_model))
    builder.add_edge(START, "guard")
    builder.add_edge("model", END)
    return builder.compile()


async def runs(graph: Any, state: Any) -> list[Any]:
    """The end state of a sync and an async run."""
    return [graph.invoke(state), await graph.ainvoke(state)]


async def test_what_is_allowed_goes_on_and_what_is_blocked_reaches_no_model() -> None:
    graph = chat_graph(mood_guard())
    for end in await runs(graph, {"messages": [HumanMessage("what a day")]}):
        assert [message.text for message in end["messages"]] == ["what a day", "all is well"]
        assert end["guardrail"]["allowed"] is True
    for end in await runs(graph, {"messages": [HumanMessage("what grief")]}):
        assert end["guardrail"]["allowed"] is False
        assert end["guardrail"]["findings"][0]["label"] == "sad"
        assert [message.text for message in end["messages"]] == [POLICY.violation_message]


async def test_all_that_a_user_wrote_in_one_turn_is_checked() -> None:
    turn = [HumanMessage("earlier"), AIMessage("yes"), HumanMessage("grief"), HumanMessage("what a day")]
    for end in await runs(chat_graph(mood_guard()), {"messages": turn}):
        assert [message.text for message in end["messages"]] == ["earlier", "yes", POLICY.violation_message]


async def test_a_failing_student_opens_no_gate() -> None:
    for kind in ("authentication", "server", "timeout", "connection", "unreadable", "cut"):
        for end in await runs(chat_graph(guard(failed(kind))), {"messages": [HumanMessage("hello")]}):
            assert end["guardrail"]["outcome"] == "error"
            assert [message.text for message in end["messages"]] == [POLICY.error_message]


async def test_without_destinations_the_graph_routes_and_names_its_keys() -> None:
    builder = StateGraph(TextState)
    builder.add_node("guard", guardrail_node(mood_guard(), input_key="question", output_key="checked"))
    builder.add_node("answer", lambda state: {"log": ["answered"]})
    builder.add_edge(START, "guard")
    builder.add_conditional_edges("guard", lambda state: "answer" if state["checked"]["allowed"] else END)
    graph = builder.compile()
    assert [end.get("log") for end in await runs(graph, {"question": "what a day"})] == [["answered"]] * 2
    assert [end.get("log") for end in await runs(graph, {"question": "grief"})] == [[], []]


async def test_what_is_checked_may_be_selected() -> None:
    node = guardrail_node(mood_guard(), select=lambda state: state["a"] + state["b"])
    assert node.invoke({"a": "gr", "b": "ief"})["guardrail"]["allowed"] is False
    assert (await node.ainvoke({"a": "sun", "b": "ny"}))["guardrail"]["allowed"] is True


async def test_an_answer_is_replaced_in_its_place() -> None:
    node = guardrail_node(guard(verdict("sad"), stage="output"))
    messages = [HumanMessage("hello", id="1"), AIMessage("grief", id="2", tool_calls=[CALL])]
    update = await node.ainvoke({"messages": messages})
    (end,) = [message for message in add_messages(messages, update["messages"]) if message.id == "2"]
    assert (end.text, end.tool_calls) == (POLICY.violation_message, [])


def test_tool_calls_are_checked_by_their_arguments_and_taken_back() -> None:
    node = guardrail_node(mood_guard(stage="tool_call"))
    messages: list[AnyMessage] = [HumanMessage("pay", id="1"), AIMessage("", id="2", tool_calls=[CALL])]
    update = node.invoke({"messages": messages})
    assert update["guardrail"]["label"] == "sad"
    assert update["messages"][0].tool_calls == []
    harmless = AIMessage("", id="2", tool_calls=[{**CALL, "args": {"to": "Ann"}}])
    assert node.invoke({"messages": [harmless]})["guardrail"]["allowed"]


def test_a_tool_result_keeps_its_call_but_not_its_content() -> None:
    node = guardrail_node(mood_guard(stage="tool_result"))
    found = ToolMessage("grief", tool_call_id="1", id="3", artifact={"raw": "grief"})
    (replaced,) = node.invoke({"messages": [AIMessage("", id="2", tool_calls=[CALL]), found]})["messages"]
    assert (replaced.text, replaced.tool_call_id, replaced.artifact) == (POLICY.violation_message, "1", None)


def test_a_history_that_cannot_be_cleaned_is_an_error() -> None:
    with pytest.raises(InputError, match="add_messages"):
        guardrail_node(guard(verdict("sad"))).invoke({"messages": [HumanMessage("hello")]})
    kept = guardrail_node(guard(verdict("sad")), replace_blocked=False).invoke({"messages": [HumanMessage("hello")]})
    assert "messages" not in kept
    with pytest.raises(InputError, match=r"no 'messages' to check \(found text\)"):
        guardrail_node(guard(verdict("sad"))).invoke({"text": "hello"})


def test_a_gate_that_might_stand_open_is_refused() -> None:
    with pytest.raises(InputError, match="both goto_allowed and goto_blocked"):
        guardrail_node(mood_guard(), goto_blocked="end")
    with pytest.raises(InputError, match="goto_interrupt"):
        asks = POLICY.model_copy(update={"on_uncertain": "interrupt"})
        guardrail_node(mood_guard(policy=asks), goto_allowed="a", goto_blocked="b")
    with pytest.raises(InputError, match="one stage, got input, output"):
        guardrail_node([mood_guard(), mood_guard(stage="output")])
    with pytest.raises(InputError, match="no guard"):
        guardrail_node([])


async def test_asking_has_its_own_destination() -> None:
    asks = POLICY.model_copy(update={"on_violation": "interrupt"})
    node = guardrail_node(mood_guard(policy=asks), goto_allowed="a", goto_blocked="b", goto_interrupt="c")
    command = await node.ainvoke({"messages": [HumanMessage("grief")]})
    assert command.goto == "c"
    assert "messages" not in command.update
    assert node.destinations == ("a", "b", "c")


async def test_raising_ends_the_run() -> None:
    graph = chat_graph(mood_guard(policy=POLICY.model_copy(update={"on_violation": "raise"})))
    with pytest.raises(GuardrailError):
        graph.invoke({"messages": [HumanMessage("grief")]})
    with pytest.raises(GuardrailError):
        await graph.ainvoke({"messages": [HumanMessage("grief")]})


async def test_an_interrupt_below_the_guard_is_not_swallowed() -> None:
    node = guardrail_node(guard(GraphInterrupt(()), policy=POLICY.model_copy(update={"on_error": "allow"})))
    with pytest.raises(GraphInterrupt):
        node.invoke({"messages": [HumanMessage("hello")]})
    with pytest.raises(GraphInterrupt):
        await node.ainvoke({"messages": [HumanMessage("hello")]})


def test_studio_draws_where_the_node_goes() -> None:
    edges = {(edge.source, edge.target) for edge in chat_graph(mood_guard()).get_graph().edges}
    assert {("guard", "model"), ("guard", "__end__")} <= edges


@pytest.mark.parametrize("forgetful", [False, True])
async def test_student_tokens_are_in_no_message_stream(forgetful: bool) -> None:
    graph = chat_graph([streaming_guard(forgetful=forgetful), streaming_guard(forgetful=forgetful)])
    state = {"messages": [HumanMessage("hello")]}
    shown = [message.text for message, _ in graph.stream(state, stream_mode="messages")]
    ashown = [message.text async for message, _ in graph.astream(state, stream_mode="messages")]
    for texts in (shown, ashown):
        assert "".join(texts) == "all is well"


@pytest.mark.parametrize("forgetful", [False, True])
async def test_student_tokens_are_in_no_event_stream(forgetful: bool) -> None:
    graph = chat_graph(streaming_guard(forgetful=forgetful))
    state = {"messages": [HumanMessage("hello")]}
    events = [event async for event in graph.astream_events(state, version="v2")]
    chat = [event for event in events if event["event"].startswith("on_chat_model")]
    assert "".join(event["data"]["chunk"].text for event in chat if event["event"] == "on_chat_model_stream") == (
        "all is well"
    )
    assert not [event for event in chat if SECRET in str(event["data"].get("output"))]


async def test_student_tokens_are_in_no_experimental_event_stream() -> None:
    graph = chat_graph(streaming_guard())
    state = {"messages": [HumanMessage("hello")]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental is told once a process
        run = graph.stream_events(state, version="v3")
    assert SECRET not in " ".join(str(event) for event in run).replace("'sad' was", "")


class FakeTokenPrinter(BaseCallbackHandler):
    """What a user may have among the callbacks: prints tokens, and counts calls."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.calls = 0

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.calls += 1


class FakeTracer(BaseTracer):
    """Keeps the runs that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.runs.append(run)


async def test_a_users_handler_hears_of_the_call_but_not_of_its_tokens() -> None:
    printer = FakeTokenPrinter()
    watch = streaming_guard()
    watch.check("hello", {"callbacks": [printer]})
    await watch.acheck("hello", {"callbacks": [printer]})
    assert (printer.tokens, printer.calls) == ([], 2)


async def test_a_tracer_sees_the_student_with_guard_and_stage() -> None:
    tracer = FakeTracer()
    config: RunnableConfig = {"callbacks": [tracer], "tags": ["mine"], "run_name": "turn", "metadata": {"user": "7"}}
    node = guardrail_node([streaming_guard(), mood_guard(name="second")], name="gate")
    await node.ainvoke({"messages": [HumanMessage("hello")]}, config)
    (root,) = tracer.runs
    assert root.name == "turn"
    children = {run.extra["metadata"]["pld_guard"]: run for run in root.child_runs}
    assert set(children) == {"mood", "second"}
    for run in children.values():
        assert run.name == "PLDClassifier"
        assert {"mine", TAG_NOSTREAM} <= set(run.tags)
        assert run.extra["metadata"] | {"user": "7", "pld_stage": "input"} == run.extra["metadata"]
        assert [child.run_type for child in run.child_runs] == ["llm"]


def test_a_silent_config_changes_nothing_of_the_callers() -> None:
    printer = FakeTokenPrinter()
    config: RunnableConfig = {"callbacks": [printer], "tags": ["mine"]}
    assert nostream_config(nostream_config(config))["tags"] == ["mine", "nostream"]
    assert config == {"callbacks": [printer], "tags": ["mine"]}
