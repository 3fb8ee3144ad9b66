"""Escalation: who decides, who thought what, and how often somebody else is asked."""

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.errors import GraphInterrupt

from langchain_pld import PLDClassifier, Task
from langchain_pld.artifact import Gate
from langchain_pld.errors import ModelSetupError
from langchain_pld.student.escalation import Escalation, EscalationBudget
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.verdict import Failure, Verdict
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import artifact, classifier

UNSURE = scored({"sad": 0.6, "glad": 0.4})
GATE = Gate(alpha=0.1, threshold=0.7)


def escalating(to: Any, script: Any = lambda _: UNSURE, **changes: Any) -> PLDClassifier:
    return PLDClassifier(
        artifact=artifact(gate=GATE, **changes),
        student=FakeChatModel(script=script),
        retry=RetryPolicy(attempts=1),
        escalate_to=to,
    )


async def both(judge: PLDClassifier, value: str = "alas") -> Verdict:
    verdict = judge.invoke(value)
    assert await judge.ainvoke(value) == verdict
    return verdict


async def test_another_classifier_decides_what_the_student_leaves_open() -> None:
    verdict = await both(escalating(classifier(lambda _: scored({"glad": 0.9, "sad": 0.1}))))
    assert (verdict.status, verdict.label, verdict.decided_by) == ("decided", "glad", "fake-chat:fake")
    assert [(one.status, one.label) for one in verdict.opinions] == [("abstained", "sad"), ("decided", "glad")]
    assert (verdict.usage.calls, verdict.usage.input_tokens) == (2, 200)


async def test_what_the_student_decides_is_not_escalated() -> None:
    asked: list[str] = []
    judge = escalating(RunnableLambda(lambda text: asked.append(text) or "glad"), lambda _: scored({"sad": 0.9}))
    verdict = await both(judge)
    assert (verdict.label, verdict.opinions, asked) == ("sad", (), [])


async def test_a_chat_model_is_asked_with_the_artifacts_prompt_and_read_as_text() -> None:
    model = FakeChatModel(script=lambda _: AIMessage("glad"), model="large")
    judge = escalating(model)
    verdict = await both(judge)
    assert (verdict.label, verdict.decided_by) == ("glad", "fake-chat:large")
    assert [str(message.text) for message in model.asked[0]] == [judge.artifact.system_prompt, "<<<\nalas\n>>>"]


@pytest.mark.parametrize(
    ("given", "label"),
    [("glad", "glad"), (Verdict(status="decided", label="calm"), "calm"), ("angry", None), (3, None)],
)
async def test_any_runnable_that_gives_a_verdict_or_a_label(given: Any, label: str | None) -> None:
    verdict = await both(escalating(RunnableLambda(lambda _: given, name="desk")))
    assert verdict.label == label
    assert verdict.opinions[1].decider == "desk"
    if label is None:
        assert (verdict.status, verdict.predicted_label) == ("abstained", "sad")
        assert verdict.opinions[1].failure is not None
        assert verdict.opinions[1].failure.kind == "unreadable"
    else:
        assert verdict.decided_by == "desk"


@pytest.mark.parametrize("student", [UNSURE, AIMessage("")])
async def test_a_failed_escalation_keeps_the_first_verdict(student: AIMessage) -> None:
    def down(_: Any) -> str:
        raise httpx.ConnectError("x")

    first = escalating(None, lambda _: student).invoke("alas")
    verdict = await both(escalating(RunnableLambda(down), lambda _: student))
    assert (verdict.status, verdict.label, verdict.predicted_label) == (first.status, None, first.predicted_label)
    assert verdict.failure == first.failure
    assert verdict.opinions[1].failure is not None
    assert verdict.opinions[1].failure.kind == "connection"


async def test_only_the_chosen_verdicts_are_escalated_and_never_a_wrong_input() -> None:
    to = RunnableLambda(lambda _: "glad")
    assert (await both(escalating(Escalation(to=to, on=("failed",))))).status == "abstained"
    assert (await both(escalating(Escalation(to=to, on=("failed",)), lambda _: AIMessage("")))).label == "glad"
    wrong = await both(escalating(to), "")
    assert (wrong.status, wrong.opinions) == ("failed", ())


async def test_the_budget_holds_for_a_hundred_at_once() -> None:
    judge = escalating(Escalation(to=RunnableLambda(lambda _: "glad"), budget=7))
    verdicts = await judge.abatch(["alas"] * 50) + await asyncio.to_thread(judge.batch, ["alas"] * 50)
    assert sum(verdict.label == "glad" for verdict in verdicts) == 7
    assert {verdict.status for verdict in verdicts} == {"decided", "abstained"}


def test_a_budget_a_minute_comes_back() -> None:
    now = [0.0]
    escalation = Escalation(to=RunnableLambda(str), budget=2, per="minute")
    budget = EscalationBudget(escalation, clock=lambda: now[0])
    taken = []
    for moment in (0, 30, 59, 60, 61, 90):
        now[0] = moment
        taken.append(budget.take())
    assert taken == [True, True, False, True, False, True]


async def test_config_reaches_the_other() -> None:
    seen: list[Any] = []

    def other(_: Any, config: RunnableConfig) -> str:
        seen.append((config["tags"], config["metadata"]["tenant"]))
        return "glad"

    class Spy(BaseCallbackHandler):
        def __init__(self) -> None:
            self.parents: list[Any] = []

        def on_chain_start(self, serialized: Any, inputs: Any, *, parent_run_id: Any = None, **kwargs: Any) -> None:
            self.parents.append(parent_run_id)

    spy = Spy()
    judge = escalating(RunnableLambda(other))
    config: RunnableConfig = {"tags": ["night"], "metadata": {"tenant": "t1"}, "callbacks": [spy]}
    judge.invoke("alas", config)
    await judge.ainvoke("alas", config)
    judge.invoke("alas", {"tags": ["night"], "metadata": {"tenant": "t1"}})
    assert seen == [(["night", "nostream"], "t1")] * 3
    assert [parent is None for parent in spy.parents] == [True, False, True, False]


async def test_a_hanging_other_times_out_and_an_interrupt_passes() -> None:
    def slow(_: Any) -> str:
        time.sleep(1)
        return "glad"

    async def aslow(_: Any) -> str:
        await asyncio.sleep(1)
        return "glad"

    verdict = await both(escalating(Escalation(to=RunnableLambda(slow, aslow), timeout_s=0.05)))
    assert verdict.opinions[1].failure is not None
    assert verdict.opinions[1].failure.kind == "timeout"

    def interrupt(_: Any) -> str:
        raise GraphInterrupt(())

    with pytest.raises(GraphInterrupt):
        escalating(RunnableLambda(interrupt)).invoke("alas")
    with pytest.raises(GraphInterrupt):
        await escalating(RunnableLambda(interrupt)).ainvoke("alas")


async def test_a_hundred_that_hang_leave_the_applications_threads_alone() -> None:
    released = threading.Event()
    to = Escalation(to=RunnableLambda(lambda _: released.wait(10)), timeout_s=0.2)
    judge = escalating(to)
    try:
        verdicts = await judge.abatch(["alas"] * 100)
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0), 2)
    finally:
        released.set()
    assert {verdict.opinions[-1].failure.kind for verdict in verdicts if verdict.opinions[-1].failure} == {"timeout"}


async def test_students_in_a_row_tell_all_opinions() -> None:
    last = RunnableLambda(lambda _: "calm", name="desk")
    verdict = await both(escalating(escalating(last)))
    assert [one.label for one in verdict.opinions] == ["sad", "sad", "calm"]
    assert (verdict.label, verdict.decided_by) == ("calm", "desk")


def test_a_failure_of_the_student_says_so_in_its_opinion() -> None:
    verdict = escalating(RunnableLambda(lambda _: "glad"), lambda _: httpx.ConnectError("x")).invoke("alas")
    assert verdict.opinions[0].failure == Failure(kind="connection", message=verdict.opinions[0].failure.message)  # type: ignore[union-attr]
    assert verdict.label == "glad"


def test_a_classifier_of_another_task_is_refused_when_it_is_built() -> None:
    task = Task(name="tone", instructions="Judge.", labels=[{"name": "HOSTILE"}, {"name": "fine"}])
    other = PLDClassifier.zero_shot(task, FakeChatModel(script=lambda _: scored({"HOSTILE": 0.9})))
    for to in (other, other.with_config(tags=["x"]), other.with_retry()):
        with pytest.raises(ValueError, match=r"escalate_to decides between HOSTILE, fine.* both need the same labels"):
            PLDClassifier(artifact=artifact(), student=FakeChatModel(script=None), escalate_to=to)


def test_a_wrapped_chat_model_is_refused_when_it_is_built() -> None:
    with pytest.raises(ModelSetupError, match="RetryPolicy"):
        PLDClassifier(
            artifact=artifact(),
            student=FakeChatModel(script=None),
            escalate_to=FakeChatModel(script=None).with_retry(),
        )
