"""The agent and its guard, without any model: the main model follows a script, the student is a few words."""

import re
from typing import Any

import pytest
from agent import POLICY, build_agent, load_guard
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_pld import Verdict
from langchain_pld.guardrail import Guard

CARD = "My card is 4929 1837 2264 0519, please book the order."
HOURS = "We are open until six."


class ScriptedModel(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **kwargs: Any) -> "ScriptedModel":  # noqa: ARG002
        return self


def fake_student(text: str) -> Verdict:
    label = "payment" if re.search(r"\d{4} \d{4}", text) else "person" if "refund" in text else "answer"
    return Verdict(status="decided", label=label, confidence=1, probabilities={label: 1})


@pytest.fixture
def desk() -> Any:
    guard = Guard(RunnableLambda(fake_student), POLICY, name="desk", labels=["answer", "person", "payment"])
    return build_agent(ScriptedModel(messages=iter([AIMessage(HOURS)])), guard, checkpointer=InMemorySaver())


def says(desk: Any, given: Any) -> Any:
    return desk.invoke(given, {"configurable": {"thread_id": "1"}})


def test_the_agent_answers_what_the_guard_clears(desk: Any) -> None:
    ended = says(desk, {"messages": "Are you open now?"})
    assert ended["messages"][-1].text == HOURS


def test_a_card_number_waits_for_a_person_and_does_not_reach_the_agent(desk: Any) -> None:
    assert "__interrupt__" in says(desk, {"messages": CARD})
    ended = says(desk, Command(resume={"decisions": [{"type": "reject"}]}))
    assert ended["messages"][-1].text == POLICY.violation_message
    assert not any("4929" in message.text for message in ended["messages"])


def test_a_person_writes_the_answer(desk: Any) -> None:
    waiting = says(desk, {"messages": "I want a refund."})
    (request,) = waiting["__interrupt__"][0].value["action_requests"]
    assert request["args"]["label"] == "person"
    ended = says(desk, Command(resume={"decisions": [{"type": "respond", "message": "You have it tomorrow."}]}))
    assert ended["messages"][-1].text == "You have it tomorrow."


def test_without_an_artifact_the_error_tells_the_command(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"pld distill task\.yaml"):
        load_guard(tmp_path / "guard.pld.json")
