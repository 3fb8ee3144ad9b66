"""The decision model inside LangChain's own middleware that takes one."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_pld import Label, Task
from langchain_pld.errors import StudentError
from langchain_pld.models.catalogue import DEFAULT_MODEL
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.models.fetch import model_path
from langchain_pld.student.failures import RetryPolicy
from tests.decision.fake_agents import FakeMainModel, calls_then_tells, recording_tool
from tests.decision.task_artifact import artifact_of
from tests.fakes import FakeChatModel, scored, text_of

pytest.importorskip("langchain_core.decisions", reason="needs langchain-core 1.8: run tests/decision/environment.sh")

from langchain.agents import create_agent
from langchain.agents.middleware import AutoModeMiddleware, ModelChoice, ModelRouterMiddleware
from langchain_core.decisions import Noul, NoulCriteria, Score

from langchain_pld.student.decision_model import PLDDecisionModel

# The middleware is LangChain's beta and says so.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
ASK: Any = {"messages": [{"role": "user", "content": "Tidy up."}]}


def decision_model(script: Any, **options: Any) -> PLDDecisionModel:
    return PLDDecisionModel(student=FakeChatModel(script=script), retry=RetryPolicy(attempts=1), **options)


def by_path(messages: list[BaseMessage]) -> AIMessage:
    return scored({"yes": 0.9, "no": 0.1} if "/etc" in text_of(messages) else {"yes": 0.1, "no": 0.9})


def guarded(classifier: PLDDecisionModel, path: str, **options: Any) -> tuple[Any, list[str]]:
    delete_file, deleted = recording_tool()
    auto_mode = AutoModeMiddleware(tools=[delete_file], classifier=classifier, **options)
    main = calls_then_tells("delete_file", {"path": path})
    return create_agent(main, tools=[delete_file], middleware=[auto_mode]), deleted


@pytest.mark.parametrize(("path", "runs"), [("/scratch/a", True), ("/etc/passwd", False)])
async def test_auto_mode_runs_a_harmless_tool_call_and_blocks_a_risky_one(path: str, runs: bool) -> None:
    classifier = decision_model(by_path)
    agent, deleted = guarded(classifier, path)
    for result in (agent.invoke(ASK), await agent.ainvoke(ASK)):
        said = str(result["messages"][-1].text)
        assert said == f"done: deleted {path}" if runs else "was blocked because it was classified as risky" in said
    assert deleted == ([path, path] if runs else [])
    # It was asked about the call, its description and the conversation.
    read = text_of(classifier.student.asked[0])  # type: ignore[attr-defined]
    assert all(part in read for part in (f'"args": {{"path": "{path}"}}', "Delete a file.", "Tidy up."))


@pytest.mark.parametrize("reply", [AIMessage("Hard to say."), ConnectionError("x"), scored({"maybe": 1.0})])
async def test_auto_mode_runs_no_tool_when_the_student_gives_no_readable_answer(reply: Any) -> None:
    agent, deleted = guarded(decision_model(lambda _: reply), "/scratch/a")
    with pytest.raises(StudentError, match="question 'is_risky'"):
        agent.invoke(ASK)
    with pytest.raises(StudentError, match="question 'is_risky'"):
        await agent.ainvoke(ASK)
    assert deleted == []


@pytest.mark.parametrize(
    ("options", "none_label"),
    [({}, "harmless"), ({"criteria": NoulCriteria(true=["destroys", "leaks"])}, None)],
)
def test_auto_mode_decides_with_a_distilled_prompt(options: dict[str, Any], none_label: str | None) -> None:
    task = Task(
        name="risk",
        instructions="What would the call do?",
        labels=(Label(name="destroys"), Label(name="leaks"), Label(name="harmless")),
        none_label=none_label,
    )

    def script(messages: list[BaseMessage]) -> AIMessage:
        assert str(messages[0].text) == "The distilled prompt."
        return scored({"destroys": 0.35, "leaks": 0.35, "harmless": 0.3})

    classifier = decision_model(script, artifacts={"risk": artifact_of(task)})
    agent, deleted = guarded(classifier, "/scratch/a", instructions="artifact:risk", **options)
    # Neither label alone is above the middleware's 0.5: the two together are.
    assert "risky (probability: 0.70)" in str(agent.invoke(ASK)["messages"][-1].text)
    assert deleted == []


async def test_the_student_s_tokens_do_not_appear_in_the_agent_s_stream() -> None:
    agent, _ = guarded(decision_model(by_path), "/scratch/a")
    seen = [str(message.text) for message, _ in agent.stream(ASK, stream_mode="messages")]
    assert seen[-1] == "done: deleted /scratch/a"
    assert not {"yes", "no"} & set(seen)
    assert [str(message.text) async for message, _ in agent.astream(ASK, stream_mode="messages")] == seen


def routed(classifier: PLDDecisionModel, **options: Any) -> Any:
    small = FakeMainModel(script=lambda _: AIMessage("from the small model"))
    large = FakeMainModel(script=lambda _: AIMessage("from the large model"))
    choices = {"small": ModelChoice(small, "Simple tasks."), "large": ModelChoice(large, "Hard tasks.")}
    router = ModelRouterMiddleware(
        choices=choices, instructions={"goal": "Choose the cheapest model that can do it."}, classifier=classifier
    )
    unused = FakeMainModel(script=lambda _: AssertionError("the agent's own model was asked"))
    return create_agent(unused, middleware=[router])


@pytest.mark.parametrize("route", ["small", "large"])
async def test_the_router_takes_the_model_that_the_student_chooses(route: str) -> None:
    classifier = decision_model(lambda messages: scored({text_of(messages).split()[-1]: 0.8, "a": 0.1}))
    agent = routed(classifier)
    request = {"messages": [HumanMessage("the large one?"), AIMessage("Well."), HumanMessage(f"this is {route}")]}
    for result in (agent.invoke(request), await agent.ainvoke(request)):
        assert str(result["messages"][-1].text) == f"from the {route} model"
    prompt = str(classifier.student.asked[0][0].text)  # type: ignore[attr-defined]
    assert all(part in prompt for part in ("cheapest model", "- small: Simple tasks.", "- large: Hard tasks."))


async def test_the_router_asks_no_model_when_the_student_gives_no_readable_answer() -> None:
    agent = routed(decision_model(lambda _: AIMessage("either")))
    with pytest.raises(StudentError, match="question 'model_route'"):
        agent.invoke(ASK)
    with pytest.raises(StudentError, match="question 'model_route'"):
        await agent.ainvoke(ASK)


@pytest.mark.model
async def test_a_real_small_model_answers_every_kind_and_guards_an_agent() -> None:
    model_path(DEFAULT_MODEL)
    student = EmbeddedChatModel(n_ctx=2048, slots=1, timeout=120)
    classifier = PLDDecisionModel(student=student)
    request: Any = {
        "state": "I love my cat. She sleeps all day.",
        "questions": {
            "pet": Noul(instructions="Does the text speak of an animal?"),
            "fear": Score(instructions="How afraid is the writer?", criteria=["Not at all.", "A little.", "Very."]),
        },
    }
    response = classifier.invoke(request)
    assert 0 < response.nouls["pet"].noul < 1
    assert 0 < response.scores["fear"].score < 2
    assert sum(response.scores["fear"].probabilities.values()) == pytest.approx(1)
    assert response.usage is not None
    assert response.usage["output_tokens"] == 2
    assert (await classifier.ainvoke(request)).answers == response.answers  # what was cached differs
    agent, deleted = guarded(classifier, "/scratch/a")
    said = str(agent.invoke(ASK)["messages"][-1].text)
    assert ("was blocked" in said) == (deleted == [])
