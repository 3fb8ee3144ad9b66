"""The guard as a subgraph: check, ask a person, settle."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from typing_extensions import TypedDict

from langchain_pld.errors import InputError
from langchain_pld.guardrail import Guard, GuardrailError, create_guardrail_graph, reviewed_examples
from tests.fakes import scored
from tests.guardrail.factories import POLICY, answering, failed, guard, mood_guard, verdict
from tests.student.small_artifact import TASK, classifier

ASKS = POLICY.model_copy(update={"on_violation": "interrupt", "on_uncertain": "interrupt", "on_error": "interrupt"})
CONFIG: RunnableConfig = {"configurable": {"thread_id": "1"}}


class State(MessagesState):
    guardrail: dict[str, Any]


class TextState(TypedDict, total=False):
    question: str
    checked: dict[str, Any]


def chat_graph(watch: Any, *, checkpointer: Any = True, **options: Any) -> Any:
    """The subgraph as a node, then a model that answers what it was passed."""
    builder = StateGraph(State)
    builder.add_node("guard", create_guardrail_graph(watch, **options))
    builder.add_node("model", lambda state: {"messages": [AIMessage(f"re: {state['messages'][-1].text}")]})
    builder.add_edge(START, "guard")
    builder.add_conditional_edges("guard", lambda state: "model" if state["guardrail"]["allowed"] else END)
    builder.add_edge("model", END)
    return builder.compile(checkpointer=InMemorySaver() if checkpointer else None, store=InMemoryStore())


async def run(graph: Any, value: Any, *, sync: bool) -> Any:
    return graph.invoke(value, CONFIG) if sync else await graph.ainvoke(value, CONFIG)


def answer(**decision: Any) -> Command[Any]:
    return Command(resume={"decisions": [decision]})


def edit(**arguments: Any) -> Command[Any]:
    return answer(type="edit", edited_action={"name": "pass_input", "args": arguments})


def texts(end: dict[str, Any]) -> list[str]:
    return [message.text for message in end["messages"]]


@pytest.mark.parametrize("sync", [True, False])
async def test_what_is_clear_passes_without_a_question(sync: bool) -> None:
    end = await run(chat_graph(mood_guard(policy=ASKS)), {"messages": [HumanMessage("what a day")]}, sync=sync)
    assert texts(end) == ["what a day", "re: what a day"]
    assert end["guardrail"]["allowed"] is True
    assert set(end) == {"messages", "guardrail"}


@pytest.mark.parametrize("sync", [True, False])
async def test_a_blocked_message_leaves_the_history_of_the_graph_around(sync: bool) -> None:
    graph = chat_graph(mood_guard())
    end = await run(graph, {"messages": [HumanMessage("grief")]}, sync=sync)
    assert texts(end) == [POLICY.violation_message]
    end = await run(graph, {"messages": [HumanMessage("what a day")]}, sync=sync)
    assert texts(end) == [POLICY.violation_message, "what a day", "re: what a day"]
    assert end["guardrail"]["allowed"] is True


@pytest.mark.parametrize("sync", [True, False])
async def test_a_person_is_asked_in_the_shape_of_langchains_middleware(sync: bool) -> None:
    from langchain.agents.middleware.human_in_the_loop import ActionRequest, HITLRequest, ReviewConfig
    from pydantic import TypeAdapter

    end = await run(chat_graph(mood_guard(policy=ASKS)), {"messages": [HumanMessage("grief")]}, sync=sync)
    (asked,) = end["__interrupt__"]
    TypeAdapter(HITLRequest).validate_python(asked.value)
    assert set(asked.value) == set(HITLRequest.__annotations__)
    (request,), (config,) = asked.value["action_requests"], asked.value["review_configs"]
    assert set(request) <= set(ActionRequest.__annotations__)
    assert set(config) <= set(ReviewConfig.__annotations__)
    assert config == {
        "action_name": request["name"],
        "allowed_decisions": ["approve", "edit", "reject", "respond"],
    }
    assert request["args"] | {"text": "grief", "label": "sad", "labels": list(TASK.label_names)} == request["args"]
    assert "grief" not in request["description"]


ANSWERS = [
    (answer(type="approve"), ["grief", "re: grief"], None),  # glad or calm: nobody said which
    (answer(type="reject"), [POLICY.violation_message], "sad"),
    (answer(type="respond", message="Talk to Ann."), ["Talk to Ann."], "sad"),
    (answer(type="respond", message="calm"), ["grief", "re: grief"], "calm"),
    (answer(type="respond", message="sad"), [POLICY.violation_message], "sad"),
    (edit(text="grief", label="glad"), ["grief", "re: grief"], "glad"),
    (edit(label="sad"), [POLICY.violation_message], "sad"),
    (edit(text="a hard day", label="sad"), ["a hard day", "re: a hard day"], None),
    (edit(text="a hard day", label="calm"), ["a hard day", "re: a hard day"], "calm"),
]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(("decision", "shown", "label"), ANSWERS, ids=lambda value: None)
async def test_a_persons_answer_decides_and_is_kept(
    decision: Command[Any], shown: list[str], label: str | None, sync: bool
) -> None:
    graph = chat_graph(mood_guard(policy=ASKS))
    await run(graph, {"messages": [HumanMessage("grief")]}, sync=sync)
    end = await run(graph, decision, sync=sync)
    assert texts(end) == shown
    assert end["guardrail"]["allowed"] == (len(shown) == 2)
    assert end["guardrail"]["answers"][0]["label"] == label

    (item,) = graph.store.search(("pld", "examples", TASK.name))
    assert item.value["example"]["input"] == "grief"
    assert item.value["verdict"]["label"] == "sad"
    examples = reviewed_examples(graph.store, TASK)
    assert [(example.input, example.label) for example in examples] == ([("grief", label)] if label else [])


@pytest.mark.parametrize("name", ["chat.v2", "team/chat:2", "检查" * 40])
async def test_a_person_answers_for_a_task_of_any_name(name: str) -> None:
    task = TASK.model_copy(update={"name": name})
    asks = Guard(classifier(lambda _: scored({"sad": 0.9, "glad": 0.1}), task=task), ASKS)
    graph = chat_graph(asks)
    await run(graph, {"messages": [HumanMessage("grief")]}, sync=False)
    await run(graph, answer(type="reject"), sync=False)
    assert [(one.input, one.label) for one in reviewed_examples(graph.store, task)] == [("grief", "sad")]
    assert reviewed_examples(graph.store, task.model_copy(update={"name": f"{name}x"})) == ()


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    "resume",
    [
        "yes",
        {"decision": "approve"},
        {"decisions": []},
        {"decisions": [{"type": "approve"}, {"type": "approve"}]},
        {"decisions": ["approve"]},
        {"decisions": [{"type": "allow"}]},
        {"decisions": [{"type": "respond"}]},
        {"decisions": [{"type": "edit", "edited_action": {"name": "pass_input"}}]},
        {"decisions": [{"type": "edit", "edited_action": {"name": "pass_input", "args": {"text": " "}}}]},
        {"decisions": [{"type": "edit", "edited_action": {"name": "pass_input", "args": {"label": "none"}}}]},
        {"decisions": [{"type": "edit", "edited_action": {"name": "pass_input", "args": {"text": "grief"}}}]},
    ],
)
async def test_an_answer_that_nobody_understands_is_asked_for_again(resume: Any, sync: bool) -> None:
    graph = chat_graph(mood_guard(policy=ASKS))
    await run(graph, {"messages": [HumanMessage("grief")]}, sync=sync)
    end = await run(graph, Command(resume=resume), sync=sync)
    [request] = end["__interrupt__"][0].value["action_requests"]
    assert "The last answer could not be used" in request["description"]
    assert graph.store.search(("pld", "examples", TASK.name)) == []
    end = await run(graph, answer(type="approve"), sync=sync)
    assert texts(end)[0] == "grief"


@pytest.mark.parametrize("sync", [True, False])
async def test_resuming_asks_no_student_again(sync: bool) -> None:
    asked: list[Any] = []

    def count(value: Any) -> Any:
        asked.append(value)
        return verdict("sad")

    graph = chat_graph(guard(count, policy=ASKS))
    await run(graph, {"messages": [HumanMessage("hello")]}, sync=sync)
    await run(graph, answer(type="approve"), sync=sync)
    assert len(asked) == 1


@pytest.mark.parametrize("sync", [True, False])
async def test_each_guard_that_asks_needs_its_approval(sync: bool) -> None:
    watch = [
        mood_guard(policy=ASKS, name="one"),
        guard(verdict("glad"), name="two"),
        guard(failed(), policy=ASKS, name="three"),
    ]
    graph = chat_graph(watch)
    end = await run(graph, {"messages": [HumanMessage("grief")]}, sync=sync)
    assert len(end["__interrupt__"][0].value["action_requests"]) == 2
    decisions = [{"type": "approve"}, {"type": "reject"}]
    end = await run(graph, Command(resume={"decisions": decisions}), sync=sync)
    assert end["guardrail"]["allowed"] is False
    assert [given["allowed"] for given in end["guardrail"]["answers"]] == [True, False]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_stricter_guard_leaves_nothing_to_ask(sync: bool) -> None:
    graph = chat_graph([mood_guard(policy=ASKS), guard(failed())])
    end = await run(graph, {"messages": [HumanMessage("grief")]}, sync=sync)
    assert "__interrupt__" not in end
    assert texts(end) == [POLICY.error_message]


@pytest.mark.parametrize("sync", [True, False])
async def test_without_a_checkpointer_nothing_passes(sync: bool) -> None:
    graph = chat_graph(mood_guard(policy=ASKS), checkpointer=None)
    end = await run(graph, {"messages": [HumanMessage("grief")]}, sync=sync)
    assert "__interrupt__" in end
    assert texts(end) == ["grief"]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_text_under_the_users_own_key_works_too(sync: bool) -> None:
    builder = StateGraph(TextState)
    builder.add_node(
        "guard", create_guardrail_graph(mood_guard(policy=ASKS), input_key="question", output_key="checked")
    )
    builder.add_edge(START, "guard")
    graph = builder.compile(checkpointer=InMemorySaver())
    await run(graph, {"question": "grief"}, sync=sync)
    end = await run(graph, edit(text="a hard day"), sync=sync)
    assert end["question"] == "a hard day"
    assert end["checked"]["allowed"] is True
    assert end["checked"]["message"] == ""


@pytest.mark.parametrize("sync", [True, False])
async def test_an_edit_of_one_of_several_messages_leaves_none_of_them(sync: bool) -> None:
    graph = chat_graph(mood_guard(policy=ASKS))
    await run(graph, {"messages": [HumanMessage("grief"), HumanMessage("and more")]}, sync=sync)
    end = await run(graph, edit(text="a hard day"), sync=sync)
    assert texts(end) == ["a hard day", "re: a hard day"]


@pytest.mark.parametrize("sync", [True, False])
async def test_edited_text_never_stands_for_a_tool_calls_arguments(sync: bool) -> None:
    call = {"name": "pay", "args": {"to": "grief"}, "id": "1"}
    graph = chat_graph(mood_guard(policy=ASKS, stage="tool_call"))
    end = await run(graph, {"messages": [AIMessage("", tool_calls=[call])]}, sync=sync)
    assert end["__interrupt__"][0].value["action_requests"][0]["args"]["text"] == 'pay {"to": "grief"}'
    end = await run(graph, edit(text='pay {"to": "Ann"}'), sync=sync)
    assert "could not be used" in end["__interrupt__"][0].value["action_requests"][0]["description"]
    end = await run(graph, answer(type="reject"), sync=sync)
    assert end["guardrail"]["allowed"] is False
    assert end["messages"][-1].tool_calls == []


async def test_messages_as_a_server_sends_them_are_understood() -> None:
    end = await create_guardrail_graph(mood_guard()).ainvoke({"messages": [{"role": "user", "content": "grief"}]})
    assert end["guardrail"]["label"] == "sad"
    assert texts(end)[-1] == POLICY.violation_message


async def test_raising_ends_the_run() -> None:
    graph = create_guardrail_graph(mood_guard(policy=POLICY.model_copy(update={"on_violation": "raise"})))
    with pytest.raises(GuardrailError):
        await graph.ainvoke({"messages": [HumanMessage("grief")]})


def test_studio_draws_check_ask_and_done() -> None:
    drawn = create_guardrail_graph(mood_guard()).get_graph()
    assert set(drawn.nodes) == {"__start__", "check", "ask", "done", "__end__"}
    assert {(edge.source, edge.target) for edge in drawn.edges} >= {
        ("check", "ask"),
        ("check", "done"),
        ("ask", "done"),
    }
    inner = chat_graph(mood_guard()).get_graph(xray=True)
    assert {"guard:check", "guard:ask", "guard:done"} <= set(inner.nodes)


def test_its_own_schema_shows_the_two_shared_keys_only() -> None:
    graph = create_guardrail_graph(mood_guard(), input_key="question", output_key="checked")
    assert set(graph.get_input_jsonschema()["properties"]) == {"question", "checked"}
    assert set(graph.get_output_jsonschema()["properties"]) == {"question", "checked"}


def test_guards_of_two_stages_are_refused() -> None:
    with pytest.raises(InputError, match="one stage"):
        create_guardrail_graph([mood_guard(), guard(answering(None), stage="output")])


async def test_checkpoints_hold_plain_values_only(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    graph = chat_graph(mood_guard(policy=ASKS))
    await graph.ainvoke({"messages": [HumanMessage("grief")]}, CONFIG)
    await graph.ainvoke(answer(type="approve"), CONFIG)
    assert not [record for record in caplog.records if "unregistered" in record.getMessage().lower()]
