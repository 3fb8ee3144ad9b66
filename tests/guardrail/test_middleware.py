"""Guards inside `create_agent`: nothing gets past them, in sync and async, in invoke and every stream."""

import asyncio
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelFallbackMiddleware
from langchain.agents.middleware.human_in_the_loop import HITLRequest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from pydantic import BaseModel, TypeAdapter

from langchain_pld.errors import InputError, MissingExtraError
from langchain_pld.guardrail.decision import GuardrailError
from langchain_pld.guardrail.human_review import reviewed_examples
from langchain_pld.guardrail.message_edits import WITHHELD
from langchain_pld.guardrail.middleware import PLDGuardrailMiddleware
from langchain_pld.guardrail.policy import GuardrailPolicy
from tests.fakes import FakeChatModel, scored
from tests.guardrail.agents import BAD, FakeMainModel, at, by_word, calls, guard, says
from tests.student.small_artifact import TASK, artifact

Run = Callable[..., Any]
RAN: list[str] = []
SORRY = "does not meet the rules"


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Invoke an agent one way or the other."""

    def invoke(agent: Any, given: Any, config: Any = None) -> Any:
        given = {"messages": [("user", given)]} if isinstance(given, str) else given
        if request.param == "sync":
            return agent.invoke(given, config)
        return asyncio.run(agent.ainvoke(given, config))

    return invoke


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@tool
def send(text: str) -> str:
    """Send a text."""
    RAN.append(text)
    return f"sent: {text}"


@tool
def read() -> str:
    """Read a page."""
    return f"a page that says {BAD}"


def agent(*replies: AIMessage, guards: Any, **options: Any) -> tuple[Any, FakeMainModel]:
    model = FakeMainModel(replies=list(replies))
    return create_agent(model, [send, read], middleware=guards, **options), model


def texts(state: Any) -> list[str]:
    return [str(message.text) for message in state["messages"]]


# --- input


def test_a_blocked_message_never_reaches_the_model_and_leaves_the_history(run: Run) -> None:
    made, model = agent(guards=[PLDGuardrailMiddleware(guard())])
    state = run(made, f"tell me {BAD} things")
    assert model.asked == []
    assert BAD not in str(state)
    assert [message.type for message in state["messages"]] == ["human", "ai"]
    assert state["messages"][0].content == WITHHELD
    assert SORRY in texts(state)[1]


def test_the_conversation_goes_on_after_a_blocked_message(run: Run) -> None:
    made, model = agent(says("Hello."), guards=[PLDGuardrailMiddleware(guard())], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    run(made, f"tell me {BAD} things", config)
    state = run(made, "good morning", config)
    assert texts(state)[-1] == "Hello."
    assert BAD not in str(model.asked)


def test_each_message_is_checked_once(run: Run) -> None:
    checked = guard()
    made, _ = agent(
        says("", calls("read")), says("One."), says("Two."), guards=[PLDGuardrailMiddleware(checked)],
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    config = {"configurable": {"thread_id": "1"}}
    run(made, "first", config)
    run(made, "second", config)
    assert len(checked.classifier.student.asked) == 2


def test_a_blocked_message_sent_again_as_history_gives_way(run: Run) -> None:
    made, model = agent(says("Hello."), guards=[PLDGuardrailMiddleware(guard())])
    history = [("user", f"{BAD}"), ("ai", "no"), ("user", "good morning")]
    state = run(made, {"messages": history})
    assert texts(state)[-1] == "Hello."
    assert BAD not in str(model.asked)


@pytest.mark.parametrize(
    "reply",
    [
        httpx.ConnectError("x"),
        httpx.ReadTimeout("x"),
        KeyError("no key"),
        AIMessage("Sure! This text is glad, I think."),
        AIMessage(""),
        AIMessage("<think>let me", response_metadata={"done_reason": "length"}),
    ],
)
def test_a_check_that_fails_blocks(run: Run, reply: Any) -> None:
    made, model = agent(says("Hello."), guards=[PLDGuardrailMiddleware(guard(lambda _: reply))])
    state = run(made, "good morning")
    assert model.asked == []
    assert "could not be checked" in texts(state)[-1]


def test_allow_on_error_is_a_choice(run: Run) -> None:
    open_guard = guard(lambda _: httpx.ConnectError("x"), on_error="allow")
    made, _ = agent(says("Hello."), guards=[PLDGuardrailMiddleware(open_guard)])
    assert texts(run(made, "good morning"))[-1] == "Hello."


def test_a_flagged_message_goes_on_with_a_note_that_holds_no_text(run: Run) -> None:
    made, model = agent(says("Hello."), guards=[PLDGuardrailMiddleware(guard(on_violation="flag"), name="tone")])
    state = run(made, f"tell me {BAD}")
    note = state["messages"][0].response_metadata["pld_guard"]["PLDGuardrailMiddleware[input tone]"]
    assert (note["action"], note["label"]) == ("flag", "sad")
    assert BAD not in str(note)
    assert len(model.asked) == 1


def test_raise_ends_the_run(run: Run) -> None:
    made, model = agent(guards=[PLDGuardrailMiddleware(guard(on_violation="raise"))])
    with pytest.raises(GuardrailError) as raised:
        run(made, f"tell me {BAD}")
    assert BAD not in str(raised.value)
    assert model.asked == []


def test_a_picture_is_blocked_unless_the_policy_lets_it_pass(run: Run) -> None:
    picture = {"type": "image", "url": "https://example.org/x.png"}
    given = {"messages": [HumanMessage([{"type": "text", "text": "look"}, picture])]}
    made, model = agent(guards=[PLDGuardrailMiddleware(guard())])
    run(made, given)
    assert model.asked == []


# --- a person is asked


def resume(run: Run, made: Any, config: Any, *decisions: Any) -> Any:
    state = run(made, Command(resume={"decisions": list(decisions)}), config)
    assert "__interrupt__" not in state, "a question is put once"
    return state


@pytest.mark.parametrize(("answer", "asked"), [("approve", 2), ("reject", 0)])
def test_a_person_decides_about_a_message(run: Run, answer: str, asked: int) -> None:
    checked = guard(on_violation="interrupt")
    replies = says("", calls("send", text="fine")), says("Hello.")
    made, model = agent(*replies, guards=[PLDGuardrailMiddleware(checked)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    [interrupt] = run(made, f"tell me {BAD}", config)["__interrupt__"]
    [action] = interrupt.value["action_requests"]
    TypeAdapter(HITLRequest).validate_python(interrupt.value)
    assert action["name"] == "pass_input"
    assert (
        action["args"] | {"text": f"tell me {BAD}", "label": "sad", "labels": list(TASK.label_names)} == action["args"]
    )
    assert interrupt.value["review_configs"][0]["allowed_decisions"] == ["approve", "edit", "reject", "respond"]
    state = resume(run, made, config, {"type": answer})
    assert len(model.asked) == asked
    assert (BAD in str(state)) == bool(asked)
    assert len(checked.classifier.student.asked) == 1, "the answer must not depend on a second check"


def test_a_person_edits_a_message(run: Run) -> None:
    made, model = agent(
        says("Hello."), guards=[PLDGuardrailMiddleware(guard(on_violation="interrupt"))], checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    run(made, f"tell me {BAD}", config)
    edit = {"type": "edit", "edited_action": {"name": "pass_input", "args": {"text": "tell me"}}}
    state = resume(run, made, config, edit)
    assert texts(state) == ["tell me", "Hello."]
    assert BAD not in str(model.asked)


@pytest.mark.parametrize("answer", ["yes", {"decisions": []}, {"decisions": [{"type": "maybe"}]}])
def test_an_answer_that_fits_not_opens_nothing_and_can_be_given_again(run: Run, answer: Any) -> None:
    made, model = agent(
        says("Hello."), guards=[PLDGuardrailMiddleware(guard(on_violation="interrupt"))], checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    run(made, f"tell me {BAD}", config)
    [interrupt] = run(made, Command(resume=answer), config)["__interrupt__"]
    assert "The last answer could not be used" in interrupt.value["action_requests"][0]["description"]
    assert model.asked == []
    assert texts(resume(run, made, config, {"type": "approve"}))[-1] == "Hello."


def test_a_person_decides_about_an_answer_that_nobody_sees_before(run: Run) -> None:
    for answer, last in (("approve", f"the {BAD} answer"), ("reject", "This content was not passed on")):
        made, _ = agent(
            says(f"the {BAD} answer"), checkpointer=InMemorySaver(),
            guards=[PLDGuardrailMiddleware(guard(on_violation="interrupt"), **at("output"))],
        )  # fmt: skip
        config = {"configurable": {"thread_id": "1"}}
        waiting = run(made, "good morning", config)
        assert BAD not in str(waiting["messages"])
        assert texts(resume(run, made, config, {"type": answer}))[-1].startswith(last)


@pytest.mark.parametrize(
    ("answer", "ran"), [("approve", [BAD, "fine"]), ("reject", ["fine"]), ("edit", ["mild", "fine"])]
)
def test_a_person_decides_about_a_tool_call(run: Run, answer: str, ran: list[str]) -> None:
    made, _ = agent(
        says("", calls("send", "1", text=BAD), calls("send", "2", text="fine")), says("Done."),
        guards=[PLDGuardrailMiddleware(guard(on_violation="interrupt"), **at("tool_call"))],
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    config = {"configurable": {"thread_id": "1"}}
    [interrupt] = run(made, "go", config)["__interrupt__"]
    assert interrupt.value["action_requests"][0]["args"]["arguments"] == {"text": BAD}
    assert RAN == []
    args = {**interrupt.value["action_requests"][0]["args"], "arguments": {"text": "mild"}}
    decision = {"type": answer, "edited_action": {"name": "pass_tool_call", "args": args}}
    state = resume(run, made, config, decision)
    assert sorted(RAN) == sorted(ran)
    assert (BAD in str(state)) == (answer == "approve"), "the history tells what was run"
    assert texts(state)[-1] == "Done."


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_a_person_decides_about_a_tool_result(run: Run, answer: str) -> None:
    made, model = agent(
        says("", calls("read")), says("Done."), checkpointer=InMemorySaver(),
        guards=[PLDGuardrailMiddleware(guard(on_violation="interrupt"), **at("tool_result"))],
    )  # fmt: skip
    config = {"configurable": {"thread_id": "1"}}
    assert BAD not in str(run(made, "go", config)["messages"])
    resume(run, made, config, {"type": answer})
    assert (BAD in str(model.asked[1])) == (answer == "approve")


RESPONDED: list[tuple[Any, list[AIMessage], str, Any, list[str], str | None]] = [
    ("input", [says("Hello.")], f"so {BAD}", "glad", [f"so {BAD}", "Hello."], "glad"),
    ("input", [], f"so {BAD}", "sad", [WITHHELD, SORRY], "sad"),
    ("input", [], f"so {BAD}", "Talk to Ann.", [WITHHELD, "Talk to Ann."], "sad"),
    ("output", [says(f"so {BAD}")], "hi", "glad", ["hi", f"so {BAD}"], "glad"),
    ("output", [says(f"so {BAD}")], "hi", "Talk to Ann.", ["hi", "Talk to Ann."], "sad"),
    ("tool_call", [says("", calls("send", text=BAD)), says("Ok.")], "hi", "glad", [f"sent: {BAD}", "Ok."], "glad"),
    ("tool_call", [says("", calls("send", text=BAD)), says("Ok.")], "hi", "Not so.", ["Not so.", "Ok."], "sad"),
    ("tool_result", [says("", calls("read")), says("Ok.")], "hi", "glad", [f"a page that says {BAD}", "Ok."], "glad"),
    ("tool_result", [says("", calls("read")), says("Ok.")], "hi", "A page.", ["A page.", "Ok."], "sad"),
]


@pytest.mark.parametrize(
    ("stage", "replies", "said", "response", "last", "label"),
    RESPONDED,
    ids=[f"{case[0]}-{case[3]}" for case in RESPONDED],
)
def test_a_person_responds_and_the_answer_is_kept_as_an_example(
    run: Run, stage: Any, replies: list[AIMessage], said: str, response: str, last: list[str], label: str | None
) -> None:
    store = InMemoryStore()
    made, _ = agent(
        *replies, guards=[PLDGuardrailMiddleware(guard(on_violation="interrupt"), **at(stage))],
        checkpointer=InMemorySaver(), store=store,
    )  # fmt: skip
    config = {"configurable": {"thread_id": "1"}}
    run(made, said, config)
    assert reviewed_examples(store, TASK) == ()
    state = resume(run, made, config, {"type": "respond", "message": response})
    assert all(expected in text for expected, text in zip(last, texts(state)[-2:], strict=True))
    [example] = reviewed_examples(store, TASK)
    assert (example.label, BAD in str(example.input)) == (label, True)


def test_one_question_holds_what_several_guards_and_messages_ask(run: Run) -> None:
    checked = [guard(on_violation="interrupt"), guard(on_violation="interrupt")]
    made, model = agent(says("Hello."), guards=[PLDGuardrailMiddleware(checked)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    given = {"messages": [("user", f"one {BAD}"), ("user", f"two {BAD}")]}
    [interrupt] = run(made, given, config)["__interrupt__"]
    shown = [action["args"]["text"] for action in interrupt.value["action_requests"]]
    assert shown == [f"one {BAD}", f"one {BAD}", f"two {BAD}", f"two {BAD}"]
    approve, reject = {"type": "approve"}, {"type": "reject"}
    state = resume(run, made, config, approve, approve, approve, reject)
    assert texts(state)[:2] == [f"one {BAD}", WITHHELD], "all guards must let a message pass"
    assert model.asked == []


# --- output


def test_a_blocked_answer_is_replaced_and_its_tool_calls_do_not_run(run: Run) -> None:
    made, _ = agent(
        says(f"the {BAD} answer", calls("send", text="x")), guards=[PLDGuardrailMiddleware(guard(), **at("output"))],
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    config = {"configurable": {"thread_id": "1"}}
    state = run(made, "good morning", config)
    assert RAN == []
    assert BAD not in str(state)
    assert state["messages"][-1].tool_calls == []
    assert not any(BAD in str(step.values) for step in made.get_state_history(config)), "nor in any checkpoint"


def test_an_answer_without_text_is_no_violation_and_asks_nobody(run: Run) -> None:
    checked = guard()
    made, _ = agent(
        says("", calls("send", text="fine")), says("Done."), guards=[PLDGuardrailMiddleware(checked, **at("output"))]
    )
    assert texts(run(made, "go"))[-1] == "Done."
    assert RAN == ["fine"]
    assert len(checked.classifier.student.asked) == 1


def test_reasoning_is_checked_as_well(run: Run) -> None:
    reply = AIMessage([{"type": "reasoning", "reasoning": f"they want {BAD}"}, {"type": "text", "text": "Sure."}])
    made, _ = agent(reply, guards=[PLDGuardrailMiddleware(guard(), **at("output"))])
    assert BAD not in str(run(made, "go"))


class Page(BaseModel):
    title: str


def test_a_blocked_structured_answer_ends_the_run(run: Run) -> None:
    model = FakeMainModel(replies=[says("", calls("Page", title=f"the {BAD} page"))])
    made = create_agent(model, middleware=[PLDGuardrailMiddleware(guard(), **at("output"))], response_format=Page)
    state = run(made, "go")
    assert state.get("structured_response") is None
    assert BAD not in str(state)
    assert len(model.asked) == 1


# --- tools


def test_a_blocked_tool_call_does_not_run_and_the_model_is_told_why(run: Run) -> None:
    made, model = agent(
        says("", calls("send", "1", text=BAD), calls("send", "2", text="fine")), says("Done."),
        guards=[PLDGuardrailMiddleware(guard(), **at("tool_call"))],
    )  # fmt: skip
    state = run(made, "go")
    assert RAN == ["fine"]
    assert BAD not in str(state), "the arguments do not stay in the history"
    told = [message for message in model.asked[1] if isinstance(message, ToolMessage)]
    [blocked] = [message for message in told if message.status == "error"]
    assert "was not run" in str(blocked.text)
    assert blocked.tool_call_id == "1"
    assert texts(state)[-1] == "Done."


def test_copies_of_blocked_arguments_go_too(run: Run) -> None:
    reply = AIMessage(
        [{"type": "tool_use", "id": "1", "name": "send", "input": {"text": BAD}}],
        tool_calls=[calls("send", "1", text=BAD)],
        additional_kwargs={"tool_calls": [{"id": "1", "function": {"name": "send", "arguments": BAD}}]},
    )
    made, _ = agent(reply, says("Done."), guards=[PLDGuardrailMiddleware(guard(), **at("tool_call"))])
    assert BAD not in str(run(made, "go"))


def test_arguments_that_another_middleware_changed_are_checked_again(run: Run) -> None:
    made, _ = agent(
        says("", calls("send", text="fine")), says("Done."), checkpointer=InMemorySaver(),
        guards=[
            HumanInTheLoopMiddleware(interrupt_on={"send": True}),
            PLDGuardrailMiddleware(guard(), **at("tool_call")),
        ],
    )  # fmt: skip
    config = {"configurable": {"thread_id": "1"}}
    run(made, "go", config)
    edit = {"type": "edit", "edited_action": {"name": "send", "args": {"text": BAD}}}
    state = resume(run, made, config, edit)
    assert RAN == []
    assert "was not run" in str(state)


def test_a_tool_result_is_checked_before_the_model_sees_it(run: Run) -> None:
    made, model = agent(
        says("", calls("read")), says("Done."), guards=[PLDGuardrailMiddleware(guard(), **at("tool_result"))]
    )
    state = run(made, "go")
    assert BAD not in str(state)
    assert BAD not in str(model.asked)
    assert state["messages"][2].content == WITHHELD


def test_messages_in_a_tools_command_are_checked(run: Run) -> None:
    @tool
    def fetch() -> Command[Any]:
        """Fetch."""
        return Command(update={"messages": [ToolMessage(f"a {BAD} page", tool_call_id="call-1")]})

    model = FakeMainModel(replies=[says("", calls("fetch")), says("Done.")])
    made = create_agent(model, [fetch], middleware=[PLDGuardrailMiddleware(guard(), **at("tool_result"))])
    assert BAD not in str(run(made, "go"))


def test_errors_of_the_student_block_tools_too(run: Run) -> None:
    broken = guard(lambda _: httpx.ConnectError("x"))
    made, _ = agent(
        says("", calls("send", text="fine")), says("Done."), guards=[PLDGuardrailMiddleware(broken, **at("tool_call"))]
    )
    run(made, "go")
    assert RAN == []


# --- together


def test_all_stages_and_several_guards_fit_in_one_agent(run: Run) -> None:
    stages: Any = ("input", "output", "tool_call", "tool_result")
    guards = [PLDGuardrailMiddleware(guard(), **at(stage), name=name) for stage in stages for name in ("a: b", "c")]
    made, _ = agent(says("", calls("send", text="fine")), says("Done."), guards=guards)
    assert texts(run(made, "go")) == ["go", "", "sent: fine", "Done."]


def test_several_guards_in_one_middleware_decide_together(run: Run) -> None:
    both = [guard(lambda _: scored({"glad": 0.9})), guard()]
    made, model = agent(guards=[PLDGuardrailMiddleware(both)])
    run(made, f"tell me {BAD}")
    assert model.asked == []


def test_interrupts_of_others_pass_through(run: Run) -> None:
    guards: list[Any] = [HumanInTheLoopMiddleware(interrupt_on={"send": True}, interrupt_mode="per_call")]
    guards += [PLDGuardrailMiddleware(guard(), **at("tool_result")), PLDGuardrailMiddleware(guard(), **at("tool_call"))]
    made, _ = agent(says("", calls("send", text="fine")), says("Done."), guards=guards, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert run(made, "go", config)["__interrupt__"]
    state = run(made, Command(resume={"type": "approve"}), config)
    assert RAN == ["fine"]
    assert texts(state)[-1] == "Done."


async def test_fifty_users_at_once_get_their_own_answers() -> None:
    def reply(messages: Any) -> AIMessage:
        return scored({"sad": 0.9} if "bad" in str(messages[-1].text) else {"glad": 0.9})

    model = FakeMainModel(replies=[says("Hello.")] * 50)
    made = create_agent(model, middleware=[PLDGuardrailMiddleware(guard(reply))])
    inputs = [{"messages": [("user", "bad" if i % 3 == 0 else "good")]} for i in range(50)]
    states = await asyncio.gather(*(made.ainvoke(given) for given in inputs))
    assert [texts(state)[-1] == "Hello." for state in states] == [i % 3 != 0 for i in range(50)]


def test_a_call_that_another_guard_took_away_is_not_asked_about(run: Run) -> None:
    guards = [
        PLDGuardrailMiddleware(guard(), **at("output")),
        PLDGuardrailMiddleware(guard(on_violation="interrupt"), **at("tool_call")),
    ]
    reply = says(f"the {BAD} answer", calls("send", text=BAD))
    made, _ = agent(reply, guards=guards, checkpointer=InMemorySaver())
    state = run(made, "go", {"configurable": {"thread_id": "1"}})
    assert "__interrupt__" not in state
    assert [message.type for message in state["messages"]] == ["human", "ai"]
    assert RAN == []


def test_from_artifact_and_policy(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mood.pld.json"
    artifact().save(path)
    middleware = PLDGuardrailMiddleware.from_artifact(
        path, GuardrailPolicy(block_labels=["sad"]), student=FakeChatModel(script=by_word), **at("output")
    )
    made, _ = agent(says(f"the {BAD} answer"), guards=[middleware])
    assert BAD not in str(run(made, "go"))


def test_without_langchain_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    monkeypatch.delitem(sys.modules, "langchain_pld.guardrail.middleware")
    with pytest.raises(MissingExtraError, match=r"langchain-pld\[agents\]"):
        importlib.import_module("langchain_pld.guardrail.middleware")


def test_a_middleware_that_checks_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="the guard applies to nothing; set apply_to_input"):
        PLDGuardrailMiddleware(guard(), apply_to_input=False)
    with pytest.raises(InputError, match="no guard"):
        PLDGuardrailMiddleware([])


# --- streams

ALL_MODES = ["messages", "updates", "values", "debug", "tasks", "custom"]


def bad_answer(**options: Any) -> Any:
    guards = [*options.pop("first", ()), PLDGuardrailMiddleware(guard(streaming=True), **at("output"))]
    return agent(says(f"hello there {BAD} world"), guards=[*guards, *options.pop("last", ())], **options)[0]


GIVEN: Any = {"messages": [("user", "good morning")]}


@pytest.mark.parametrize("mode", ALL_MODES)
async def test_no_stream_mode_shows_a_blocked_answer(mode: Any) -> None:
    shown = list(bad_answer().stream(GIVEN, stream_mode=mode))
    shown += [part async for part in bad_answer().astream(GIVEN, stream_mode=mode)]
    assert BAD not in str(shown)
    assert SORRY in str(shown) or mode == "custom"


async def test_no_stream_of_events_shows_a_blocked_answer() -> None:
    events = [event async for event in bad_answer().astream_events(GIVEN, version="v2")]
    assert BAD not in str(events)
    assert SORRY in str(events)


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
async def test_the_third_version_of_events_shows_no_blocked_answer() -> None:
    with bad_answer().stream_events(GIVEN, version="v3") as stream:
        shown = [str(event) for event in stream]
    async with await bad_answer().astream_events(GIVEN, version="v3") as stream:
        ashown = [str(event) async for event in stream]
    for events in (shown, ashown):
        assert SORRY in str(events)
        assert BAD not in str(events)


async def test_a_model_that_another_middleware_puts_in_is_kept_out_of_the_stream_too() -> None:
    broken = FakeMainModel(replies=[])
    fallback = ModelFallbackMiddleware(FakeMainModel(replies=[says(f"the {BAD} answer")]))
    made = create_agent(broken, middleware=[PLDGuardrailMiddleware(guard(), **at("output")), fallback])
    assert BAD not in str([part async for part in made.astream(GIVEN, stream_mode="messages")])


@pytest.mark.parametrize("stage", ["input", "output"])
async def test_a_students_tokens_appear_in_no_stream(stage: Any) -> None:
    def made() -> Any:
        guards = [PLDGuardrailMiddleware(guard(streaming=True), **at(stage))]
        return agent(says("Good day to you."), guards=guards)[0]

    shown = [chunk for chunk, _ in made().stream(GIVEN, stream_mode="messages")]
    shown += [chunk async for chunk, _ in made().astream(GIVEN, stream_mode="messages")]
    assert "glad" not in "".join(str(chunk.text) for chunk in shown)
    events = [event async for event in made().astream_events(GIVEN, version="v2")]
    spoken = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "glad" not in spoken


async def test_an_input_guard_leaves_the_answers_stream_alone() -> None:
    made, _ = agent(says("Good day to you."), guards=[PLDGuardrailMiddleware(guard())])
    shown = [str(chunk.text) async for chunk, _ in made.astream(GIVEN, stream_mode="messages")]
    assert len(shown) > 2
    assert "".join(shown).strip() == "Good day to you."
