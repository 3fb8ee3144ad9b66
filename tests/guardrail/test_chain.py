"""Guards around a Runnable, on all ways of calling it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnablePassthrough
from langgraph.errors import GraphInterrupt

from langchain_pld.errors import InputError
from langchain_pld.guardrail.chain import guarded
from langchain_pld.guardrail.decision import GuardrailError
from tests.guardrail.agents import BAD, FakeMainModel, calls, guard, says

Call = Callable[..., Any]
SENTENCE = "This is one quite harmless sentence of some length. "
SORRY = "does not meet the rules"


@pytest.fixture(params=["invoke", "ainvoke", "batch", "stream", "astream"])
def call(request: pytest.FixtureRequest) -> Call:
    """Call a Runnable one way or the other."""

    def run(runnable: Any, given: Any) -> Any:
        if request.param == "invoke":
            return runnable.invoke(given)
        if request.param == "ainvoke":
            return asyncio.run(runnable.ainvoke(given))
        if request.param == "batch":
            return runnable.batch([given, given])[1]
        if request.param == "stream":
            return total(list(runnable.stream(given)))

        async def collect() -> list[Any]:
            return [part async for part in runnable.astream(given)]

        return total(asyncio.run(collect()))

    return run


def total(parts: list[Any]) -> Any:
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def model(*texts: str) -> FakeMainModel:
    return FakeMainModel(replies=[says(text) for text in texts] * 2)


def test_a_blocked_input_never_reaches_the_runnable(call: Call) -> None:
    inner = model("Hello.")
    answer = call(guarded(inner, input_guards=guard()), f"tell me {BAD}")
    assert SORRY in str(answer.text)
    assert answer.response_metadata["pld_guard"]["mood"]["action"] == "block"
    assert inner.asked == []


def test_a_harmless_input_passes_unchanged(call: Call) -> None:
    answer = call(guarded(model("Hello."), input_guards=guard(), output_guards=guard()), "good morning")
    assert str(answer.text).strip() == "Hello."


def test_a_blocked_output_is_replaced(call: Call) -> None:
    answer = call(guarded(model(f"the {BAD} answer"), output_guards=guard()), "good morning")
    assert BAD not in str(answer)
    assert SORRY in str(answer.text)


def test_a_blocked_output_behind_a_parser_is_replaced(call: Call) -> None:
    # The parser gives a subclass of str.
    runnable = guarded(model(BAD) | StrOutputParser(), output_guards=[guard()])
    assert SORRY in call(runnable, "hello")


def test_the_place_in_a_chain_is_kept(call: Call) -> None:
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    chain = guarded(prompt | model("Hello."), input_guards=guard(), output_guards=guard()) | StrOutputParser()
    assert call(chain, {"question": "good morning"}).strip() == "Hello."
    assert SORRY in call(chain, {"question": f"tell me {BAD}"})


def test_every_value_of_a_mapping_is_checked(call: Call) -> None:
    ran: list[Any] = []
    chain = guarded(RunnableLambda(lambda given: ran.append(given) or "done"), input_guards=guard())
    assert call(chain, {"text": "good", "context": "fine"}) == "done"
    ran.clear()
    for given in ({"text": "good", "context": [BAD]}, {"a": Document(f"the {BAD} page")}, [HumanMessage(BAD)]):
        assert SORRY in call(chain, given)
    assert ran == []


@pytest.mark.parametrize("reply", [httpx.ConnectError("x"), AIMessage(""), AIMessage("Fine, I think."), KeyError("k")])
def test_a_check_that_fails_blocks(call: Call, reply: Any) -> None:
    inner = model("Hello.")
    broken = guard(lambda _: reply)
    assert "could not be checked" in str(call(guarded(inner, input_guards=broken), "good morning").text)
    assert inner.asked == []
    assert "could not be checked" in str(call(guarded(inner, output_guards=broken), "good morning").text)


def test_tool_calls_in_an_output_are_checked(call: Call) -> None:
    bad = FakeMainModel(replies=[says("", calls("send", text=BAD))] * 2)
    assert BAD not in str(call(guarded(bad, output_guards=guard()), "go"))
    fine = FakeMainModel(replies=[says("", calls("send", text="fine"))] * 2)
    assert call(guarded(fine, output_guards=guard()), "go").tool_calls[0]["args"] == {"text": "fine"}


def test_an_output_of_another_form_needs_a_replacement(call: Call) -> None:
    pages = RunnableLambda(lambda _: [Document(f"the {BAD} page")])
    with pytest.raises(GuardrailError):
        call(guarded(pages, output_guards=guard()), "go")
    assert call(guarded(pages, output_guards=guard(), blocked_message=lambda decision: []), "go") == []
    harmless = RunnableLambda(lambda _: {"page": "fine"})
    assert call(guarded(harmless, output_guards=guard()), "go") == {"page": "fine"}


def test_a_replacement_of_ones_own(call: Call) -> None:
    made = guarded(model("Hello."), input_guards=guard(), output_guards=guard(), blocked_message="No.")
    assert call(made, BAD).text == "No."
    made = guarded(model(BAD), output_guards=guard(), blocked_message="No.")
    assert call(made, "good morning").text == "No."


def test_raise_flag_and_ask(call: Call) -> None:
    with pytest.raises(GuardrailError) as raised:
        call(guarded(model("Hello."), input_guards=guard(on_violation="raise")), BAD)
    assert BAD not in str(raised.value)
    flagged = call(guarded(model(f"the {BAD} answer"), output_guards=guard(on_violation="flag")), "good morning")
    assert flagged.response_metadata["pld_guard"]["mood"]["action"] == "flag"
    asked = call(guarded(model("Hello."), input_guards=guard(on_violation="interrupt")), BAD)
    assert "Hello" not in str(asked.text), "nobody can be asked in a chain"


def test_an_interrupt_passes_through(call: Call) -> None:
    def interrupted(messages: Any) -> Any:
        raise GraphInterrupt

    with pytest.raises(GraphInterrupt):
        call(guarded(model("Hello."), input_guards=guard(interrupted)), "good morning")


def test_a_stream_arrives_in_checked_parts() -> None:
    text = f"{SENTENCE}{SENTENCE}Then comes the {BAD} word, sadly. {SENTENCE}"
    parts = list((guarded(model(text), output_guards=guard()) | StrOutputParser()).stream("go"))
    assert len(parts) > 3
    assert "".join(parts).startswith(SENTENCE * 2)
    assert "Then" not in "".join(parts)
    assert SORRY in parts[-1]


async def test_neither_unchecked_nor_student_tokens_reach_a_stream_of_events() -> None:
    chain = guarded(model(f"the {BAD} answer"), output_guards=guard(streaming=True)) | StrOutputParser()
    events = [event async for event in chain.astream_events("go", version="v2")]
    assert BAD not in str(events)
    assert "glad" not in [event["data"].get("chunk") for event in events if event["event"] == "on_chat_model_stream"]


async def test_inside_a_node_the_messages_stream_shows_only_what_was_checked() -> None:
    from langgraph.graph import START, MessagesState, StateGraph

    inner = guarded(model(f"the {BAD} answer"), output_guards=guard(streaming=True))

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await inner.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
    given: Any = {"messages": [("user", "go")]}
    shown = [str(chunk.text) async for chunk, _ in graph.astream(given, stream_mode="messages")]
    assert BAD not in "".join(shown)
    assert "glad" not in shown
    assert SORRY in "".join(shown)


def test_the_config_reaches_what_is_guarded() -> None:
    seen: list[Any] = []

    class Spy(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            seen.append((serialized, kwargs["metadata"]["tenant"], kwargs["parent_run_id"]))

    made = guarded(model("Hello."), input_guards=guard(), output_guards=guard())
    made.invoke("go", {"callbacks": [Spy()], "metadata": {"tenant": "t1"}})
    assert [tenant for _, tenant, _ in seen] == ["t1"] * 3
    assert all(parent for _, _, parent in seen)


def test_a_branch_on_a_decision() -> None:
    checked = guard()
    chain = RunnablePassthrough.assign(
        allowed=RunnableLambda(lambda given: checked.check(given["text"]).allowed)
    ) | RunnableBranch((lambda given: given["allowed"], lambda given: "in"), lambda given: "out")
    assert [chain.invoke({"text": text}) for text in ("good morning", BAD)] == ["in", "out"]


async def test_a_hundred_inputs_at_once_do_not_mix() -> None:
    echo = RunnableLambda(lambda text: f"echo {text}")
    chain = guarded(echo, input_guards=guard())
    inputs = [f"{i} {BAD if i % 3 == 0 else 'good'}" for i in range(100)]
    for answers in (await chain.abatch(inputs), await asyncio.to_thread(chain.batch, inputs)):
        assert [answer == f"echo {text}" for answer, text in zip(answers, inputs, strict=True)] == [
            i % 3 != 0 for i in range(100)
        ]


def test_without_a_guard_it_is_refused() -> None:
    with pytest.raises(InputError, match="no guard"):
        guarded(model("Hello."))
    with pytest.raises(InputError, match="a guard is needed here, not a FakeMainModel"):
        guarded(model("Hello."), input_guards=[model("x")])  # type: ignore[list-item]


def test_it_has_the_types_of_what_it_guards() -> None:
    made = guarded(model("Hello."), input_guards=guard())
    assert (made.InputType, made.OutputType) == (model().InputType, model().OutputType)
    assert isinstance(made.invoke("hi"), AIMessage)
    assert all(isinstance(chunk, AIMessageChunk) for chunk in made.stream("hi"))
