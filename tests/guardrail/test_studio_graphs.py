"""The graphs for Studio with what a person or an operator gets wrong."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from graphs import contract_review, moderation_agent
from langchain_pld import PLDClassifier, Task, Verdict
from langchain_pld.errors import InputError
from tests.fakes import FakeChatModel, scored

ROOT = Path(__file__).parents[2]
CONFIG = {"configurable": {"thread_id": "1"}}
WRONG: list[Any] = [
    "yes",
    {"decisions": []},
    {"decisions": [{"type": "respond", "message": "perhaps"}]},
    {"decisions": [{"type": "edit"}]},
    {"decisions": ["approve"]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_a_review_asks_again_after_an_answer_that_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    task = Task.from_yaml(ROOT / "examples" / "nda_review.yaml")
    even = dict.fromkeys(task.label_names, 1 / len(task.label_names))
    monkeypatch.setattr(
        contract_review, "_classifier",
        lambda _: PLDClassifier.zero_shot(task, FakeChatModel(script=lambda _: scored(even))),
    )  # fmt: skip
    graph = contract_review.graph.builder.compile(checkpointer=InMemorySaver())
    await graph.ainvoke({"contract": "The duties end.", "hypotheses": ["They end."]}, CONFIG)
    end = await graph.ainvoke(Command(resume=wrong), CONFIG)
    [request] = end["__interrupt__"][0].value["action_requests"]
    assert "The last answer could not be used" in request["description"]
    right = {"decisions": [{"type": "respond", "message": task.label_names[0]}]}
    end = await graph.ainvoke(Command(resume=right), CONFIG)
    assert end["findings"][0]["verdict"] == task.label_names[0]


@pytest.mark.parametrize("given", [{}, {"contract": " "}, {"hypotheses": ["They end."]}])
def test_a_review_without_a_contract_says_what_is_missing(given: Any) -> None:
    with pytest.raises(InputError, match="give its text as `contract`"):
        asyncio.run(contract_review.graph.ainvoke(given))


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_main_model_that_is_not_there_is_said_to_the_user(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def dead(messages: Any) -> AIMessage:
        raise httpx.ConnectError("refused")

    harmless = Verdict(status="decided", label="ordinary", predicted_label="ordinary", probabilities={"ordinary": 1.0})

    class Calm:
        def invoke(self, value: Any, config: Any) -> Verdict:
            return harmless

        async def ainvoke(self, value: Any, config: Any) -> Verdict:
            return harmless

    class Dead(FakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    monkeypatch.setattr(moderation_agent, "_classifier", Calm)
    monkeypatch.setattr(moderation_agent, "_main_model", lambda spec: Dead(script=dead))
    given: Any = {"messages": [("user", "Where does Ana sit?")]}
    context = moderation_agent.AgentContext(model="ollama:missing")
    graph = moderation_agent.graph
    end = (
        graph.invoke(given, context=context) if how == "invoke" else asyncio.run(graph.ainvoke(given, context=context))
    )
    assert "no connection to the model ollama:missing" in end["messages"][-1].text
