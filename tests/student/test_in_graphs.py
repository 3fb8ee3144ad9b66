"""A classifier inside LangGraph and LangChain: what streams show of it, and as a tool."""

from __future__ import annotations

import warnings
from typing import Any, NotRequired

import pytest
from langchain_core._api import LangChainBetaWarning
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.tools import BaseTool
from langgraph.graph import START, MessagesState, StateGraph

from langchain_pld import Label, PLDClassifier, Task
from langchain_pld.artifact import DistilledPrompt
from tests.student.small_artifact import TASK

LABEL = TASK.label_names[0]


def text_classifier(task: Task = TASK) -> PLDClassifier:
    student = FakeListChatModel(responses=[task.label_names[0]])
    prompt = PLDClassifier.zero_shot(task, student).artifact
    artifact = DistilledPrompt.model_validate({**prompt.model_dump(), "scorer": "text"})
    return PLDClassifier(artifact=artifact, student=student)


class State(MessagesState):
    label: NotRequired[str | None]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_students_label_is_not_in_the_stream_of_messages(asynchronous: bool) -> None:
    classifier = text_classifier()

    def check(state: State) -> dict[str, Any]:
        return {"label": classifier.invoke(state["messages"]).label}

    async def acheck(state: State) -> dict[str, Any]:
        return {"label": (await classifier.ainvoke(state["messages"])).label}

    graph = StateGraph(State)
    graph.add_node("check", acheck if asynchronous else check)
    graph.add_edge(START, "check")
    compiled = graph.compile()
    events = [
        event
        async for event in compiled.astream({"messages": [("user", "hello")]}, stream_mode=["messages", "updates"])
    ]
    assert events == [("updates", {"check": {"label": LABEL}})]


def tool_of(classifier: PLDClassifier) -> BaseTool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        return classifier.as_tool()


def test_a_classifier_is_a_tool_without_further_arguments() -> None:
    tool = tool_of(text_classifier())
    assert tool.name == f"classify_{TASK.name}"
    assert LABEL in tool.description
    assert tool.invoke({"text": "hello"}).label == LABEL


def test_the_tool_of_a_task_with_fields_takes_the_fields() -> None:
    task = Task(
        name="nda/v2",
        instructions="Decide.",
        labels=(Label(name="yes"), Label(name="no")),
        fields=("premise", "hypothesis"),
    )
    tool = tool_of(text_classifier(task))
    assert tool.name == "classify_nda_v2"
    assert set(tool.args) == {"premise", "hypothesis"}
    assert tool.invoke({"premise": "a", "hypothesis": "b"}).label == "yes"
