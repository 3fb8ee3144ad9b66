"""One check: asking, judging, deciding; sync and async."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Command

from langchain_pld.errors import InputError
from langchain_pld.guardrail import Decision, Guard, GuardrailError, GuardrailPolicy, acheck_all, check_all
from langchain_pld.guardrail.content import stage_messages, stage_value
from tests.fakes import FakeChatModel
from tests.guardrail.factories import LABELS, POLICY, answering, both, failed, guard, mood_guard, verdict
from tests.student.small_artifact import artifact, classifier


async def test_a_violation_is_blocked_and_the_rest_is_allowed() -> None:
    watch = [mood_guard()]
    assert (await both(watch, "what a day")).allowed
    decision = await both(watch, "so much grief")
    assert not decision.allowed
    assert (decision.action, decision.outcome, decision.label) == ("block", "violation", "sad")
    assert decision.reason == "mood: 'sad' was found"
    assert decision.message == POLICY.violation_message


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (failed("authentication"), "authentication"),
        (failed("unreadable"), "unreadable"),
        (failed("cut"), "cut"),
        (httpx.ConnectError("refused"), "connection"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (ValueError("the user's text"), "unexpected"),
        ("allowed", "unexpected"),
        (None, "unexpected"),
        (verdict("glad").model_copy(update={"probabilities": {"glad": float("nan")}}), "scores or label unreadable"),
    ],
)
async def test_what_is_no_verdict_is_an_error_and_never_a_pass(answer: Any, reason: str) -> None:
    decision = await both([guard(answer)], "hello")
    assert (decision.action, decision.outcome, decision.label) == ("block", "error", None)
    assert decision.reason == f"mood: there is no verdict ({reason})"
    opened = await both([guard(answer, policy=POLICY.model_copy(update={"on_error": "flag"}))], "hello")
    assert opened.allowed
    assert (opened.action, opened.message) == ("flag", "")


async def test_a_guard_in_a_running_event_loop_works_without_await() -> None:
    assert mood_guard().check("so much grief").label == "sad"


async def test_the_deadline_holds_for_a_classifier_that_hangs() -> None:
    slow = guard(verdict("glad"), latency_s=1.5, policy=POLICY.model_copy(update={"deadline_s": 0.05}))
    started = time.perf_counter()
    decision = await both([slow], "hello")
    assert time.perf_counter() - started < 1.2
    assert (decision.action, decision.outcome) == ("block", "error")
    assert decision.verdicts[0].failure.kind == "timeout"


async def test_the_deadline_holds_for_a_classifier_that_does_not_heed_its_cancellation() -> None:
    async def stubborn(_: Any) -> Any:
        ends = time.monotonic() + 0.8
        while time.monotonic() < ends:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue
        raise ValueError

    watch = Guard(RunnableLambda(stubborn), POLICY.model_copy(update={"deadline_s": 0.05}), labels=LABELS)
    started = time.perf_counter()
    assert (await watch.acheck("hello")).outcome == "error"
    assert time.perf_counter() - started < 0.6


async def test_one_slow_check_stalls_no_other() -> None:
    hangs = guard(verdict("glad"), latency_s=1.5, name="slow", policy=POLICY.model_copy(update={"deadline_s": 0.4}))
    quick = guard(verdict("glad"), name="quick")
    decision = await both([hangs, quick], "hello")
    assert [finding.outcome for finding in decision.findings] == ["error", "clear"]
    assert decision.findings[1].latency_ms < 350
    assert not decision.allowed


async def test_several_guards_run_side_by_side_and_the_strictest_wins() -> None:
    gate = threading.Barrier(3, timeout=2)

    def together(label: str) -> Any:
        def answer(_: Any) -> Any:
            gate.wait()
            return verdict(label)

        return answer

    asks = POLICY.model_copy(update={"on_violation": "interrupt"})
    watch = [
        guard(together("glad"), name="one"),
        guard(together("sad"), name="two", policy=asks),
        guard(together("sad"), name="three"),
    ]
    decision = check_all(watch, "hello")
    assert (decision.action, decision.reason) == ("block", "three: 'sad' was found")
    assert decision.guards == ("one", "two", "three")
    assert [finding.action for finding in decision.findings] == ["allow", "interrupt", "block"]
    assert [found.label for found in decision.verdicts] == ["glad", "sad", "sad"]


async def test_a_hundred_users_at_once_each_get_their_own_verdict() -> None:
    def answer(value: str) -> Any:
        return verdict("sad" if int(value) % 3 == 0 else "glad")

    watch = [guard(answer, latency_s=0.005), guard(answer, latency_s=0.001, name="second")]
    decisions = await asyncio.gather(*(acheck_all(watch, str(user)) for user in range(1, 100)))
    assert [decision.allowed for decision in decisions] == [user % 3 != 0 for user in range(1, 100)]


@pytest.mark.parametrize(
    "passing",
    [GraphInterrupt(()), GraphBubbleUp(), ParentCommand(Command()), KeyboardInterrupt(), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("others", [0, 1])
async def test_interrupts_and_cancellation_pass_through(passing: BaseException, others: int) -> None:
    watch = [guard(passing, policy=POLICY.model_copy(update={"on_error": "allow"}))]
    watch += [guard(verdict("glad"))] * others
    with pytest.raises(type(passing)):
        check_all(watch, "hello")
    if isinstance(passing, KeyboardInterrupt):
        return  # in a task it ends the event loop itself
    with pytest.raises(type(passing)):
        await acheck_all(watch, "hello")


async def test_cancelling_a_check_ends_it_at_once_and_its_calls_with_it() -> None:
    ended: list[str] = []

    async def hang(value: str) -> Any:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(value)

    watch = [Guard(RunnableLambda(hang), POLICY, labels=LABELS, name=str(number)) for number in range(2)]
    task = asyncio.create_task(acheck_all(watch, "hello"))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.02)
    assert ended == ["hello", "hello"]


async def test_an_interrupt_of_one_guard_ends_the_calls_of_the_others() -> None:
    ended: list[str] = []

    async def hang(value: str) -> Any:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append(value)

    async def interrupt(_: str) -> Any:
        await asyncio.sleep(0.02)
        raise GraphInterrupt(())

    watch = [Guard(RunnableLambda(call), POLICY, labels=LABELS, name=call.__name__) for call in (hang, interrupt)]
    with pytest.raises(GraphInterrupt):
        await acheck_all(watch, "hello")
    await asyncio.sleep(0.02)
    assert ended == ["hello"]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_classifier_that_keeps_hanging_is_no_longer_waited_for(sync: bool) -> None:
    asked: list[str] = []

    def answer(value: str) -> Any:
        asked.append(value)
        return httpx.ConnectError("down")

    watch = guard(answer)
    for _ in range(8):
        decision = watch.check("hello") if sync else await watch.acheck("hello")
        assert not decision.allowed
    assert len(asked) == 5
    assert "circuit_open" in decision.reason


async def test_deadlines_that_pass_open_the_circuit() -> None:
    hangs = guard(verdict("glad"), latency_s=0.3, policy=POLICY.model_copy(update={"deadline_s": 0.01}))
    for _ in range(5):
        assert "timeout" in (await hangs.acheck("hello")).reason
    assert "circuit_open" in (await hangs.acheck("hello")).reason


async def test_unreadable_answers_open_no_circuit() -> None:
    watch = guard(failed("unreadable"))
    assert ["unreadable" in (await watch.acheck("hello")).reason for _ in range(7)] == [True] * 7


async def test_an_escalation_asks_the_other_model_and_keeps_both_verdicts() -> None:
    policy = POLICY.model_copy(update={"on_uncertain": "escalate", "on_error": "escalate"})
    watch = guard(failed("server"), policy=policy, escalate_to=answering(verdict("glad")))
    decision = await both([watch], "hello")
    assert decision.allowed
    assert [found.status for found in decision.verdicts] == ["failed", "decided"]

    blocked = await both([guard(failed(), policy=policy, escalate_to=answering(verdict("sad")))], "hello")
    assert (blocked.action, blocked.outcome) == ("block", "violation")


async def test_an_escalation_that_settles_nothing_stays_closed() -> None:
    policy = POLICY.model_copy(update={"on_error": "escalate"})
    watch = guard(failed(), policy=policy, escalate_to=answering(failed("timeout")))
    assert (await both([watch], "hello")).action == "block"
    asks = policy.model_copy(update={"after_escalation": "interrupt"})
    watch = guard(failed(), policy=asks, escalate_to=answering(failed("timeout")))
    assert (await both([watch], "hello")).action == "interrupt"


def test_raising_is_left_to_who_enforces_the_decision() -> None:
    decision = guard(verdict("sad"), policy=POLICY.model_copy(update={"on_violation": "raise"})).check("hello")
    assert not decision.allowed
    with pytest.raises(GuardrailError, match="mood: 'sad' was found") as caught:
        decision.enforce()
    assert caught.value.decision is decision
    passed = guard(verdict("glad")).check("hello")
    assert passed.enforce() is passed


def test_a_policy_for_other_labels_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="blocks 'bad', which the task does not have; its labels are glad, sad, calm"):
        mood_guard(policy=GuardrailPolicy(block_labels=["bad"]))
    with pytest.raises(InputError, match="labels of this classifier are not known"):
        Guard(answering(verdict("glad")), POLICY)
    with pytest.raises(InputError, match="no escalate_to"):
        mood_guard(policy=POLICY.model_copy(update={"on_error": "escalate"}))
    with pytest.raises(InputError, match="pass at least one"):
        check_all([], "hello")


def test_the_task_is_found_behind_a_binding() -> None:
    bound = classifier(lambda messages: ValueError()).with_config(tags=["mine"])
    assert Guard(bound, POLICY).labels == LABELS


def test_the_users_text_stands_in_no_reason_and_no_summary() -> None:
    for answer in (verdict("sad"), failed(), ValueError("words of the text"), verdict("sad", 0.4)):
        decision = guard(answer).check("words of the text")
        assert "words" not in str(decision.summary()) + decision.reason + decision.message
    assert Decision.model_validate(decision.model_dump(mode="json")) == decision


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
CALL = {"name": "pay", "args": {"to": "Ann"}, "id": "1"}


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("", "clear"),
        ("  \n", "clear"),
        ([], "clear"),
        (HumanMessage(""), "clear"),
        ({"text": " "}, "clear"),
        (AIMessage("", tool_calls=[CALL]), "violation"),
        (AIMessage([{"type": "tool_use", "id": "1", "name": "pay", "input": {}}]), "violation"),
        (HumanMessage([{"type": "text", "text": "look"}, IMAGE]), "uncertain"),
        (HumanMessage([IMAGE]), "uncertain"),
        ([{"role": "user", "content": [IMAGE]}], "uncertain"),
        (HumanMessage([{"type": "reasoning", "reasoning": "hidden"}]), "violation"),
        ("look", "violation"),
        ({"text": "look"}, "violation"),
        ([("user", "look")], "violation"),
        ({"role": "user", "content": "look"}, "violation"),
    ],
)
async def test_empty_content_is_clear_and_unseen_content_is_not(value: Any, outcome: str) -> None:
    decision = await both([guard(verdict("sad"))], value)
    assert decision.outcome == outcome
    assert decision.allowed == (outcome == "clear")


async def test_a_picture_may_be_let_through_but_its_text_is_checked() -> None:
    open_ = POLICY.model_copy(update={"on_unreadable": "flag"})
    captioned = HumanMessage([{"type": "text", "text": "look"}, IMAGE])
    assert (await both([guard(verdict("glad"), policy=open_)], captioned)).action == "flag"
    assert (await both([guard(verdict("sad"), policy=open_)], captioned)).action == "block"
    assert (await both([guard(verdict("sad"), policy=open_)], HumanMessage([IMAGE]))).action == "flag"


def test_each_stage_checks_its_part_of_a_conversation() -> None:
    history = [
        SystemMessage("s"),
        HumanMessage("old"),
        AIMessage("o"),
        HumanMessage("one"),
        HumanMessage("two"),
        AIMessage("calling", tool_calls=[CALL]),
        ToolMessage("a", tool_call_id="1"),
        ToolMessage("b", tool_call_id="2"),
    ]
    assert [message.text for message in stage_messages(history, "input")] == ["one", "two"]
    assert [message.text for message in stage_messages(history, "output")] == ["calling"]
    assert [message.text for message in stage_messages(history, "tool_result")] == ["a", "b"]
    assert stage_value(history, "tool_call").text == 'pay {"to": "Ann"}'
    assert stage_value([HumanMessage("one")], "tool_call").text == ""


def test_arguments_that_no_tool_could_read_are_checked_too() -> None:
    broken = {"name": "pay", "args": "{to: Eve", "id": "1", "error": None, "type": "invalid_tool_call"}
    assert stage_value([AIMessage("", invalid_tool_calls=[broken])], "tool_call").text == "pay {to: Eve"


def test_a_guard_tells_which_text_it_reads() -> None:
    with_task, without = mood_guard(), guard(answering(verdict("glad")))
    assert with_task.text_of([("user", "alas")]) == "alas"
    assert with_task.text_of({"other": "alas"}) == "other: alas"
    assert with_task.text_of("a" * 1_000_000) is None, "too long"
    assert without.text_of("alas") == "alas"
    assert without.text_of([("user", "alas")]) == "alas"


def test_a_finding_names_who_decided() -> None:
    decision = mood_guard().check("grief")
    assert decision.findings[0].decided_by == "fake-chat:fake"
    assert mood_guard().check("").findings[0].decided_by is None


def test_an_artifact_and_a_model_may_be_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifact().save(tmp_path / "mood.pld.json")
    models = {
        "fake-chat:fake": FakeChatModel(script=lambda _: ConnectionError()),
        "other:big": FakeChatModel(script=lambda _: AIMessage("sad"), model="big"),
    }
    monkeypatch.setattr(
        "langchain_pld.student.classifier.resolve_chat_model",
        lambda spec: models[spec] if isinstance(spec, str) else spec,
    )
    watch = Guard(path, POLICY.model_copy(update={"on_error": "escalate"}), escalate_to="other:big")
    decision = watch.check("hi")
    assert (decision.label, decision.findings[0].decided_by) == ("sad", "fake-chat:big")
    with pytest.raises(InputError, match="no artifact to ask it with"):
        guard(failed(), policy=watch.policy, escalate_to="other:big")


def test_what_two_would_escalate_is_refused() -> None:
    own = classifier(lambda _: ConnectionError()).model_copy(update={"escalate_to": answering(verdict("sad"))})
    with pytest.raises(InputError, match="both the policy and the classifier escalate"):
        Guard(own, POLICY.model_copy(update={"on_error": "escalate"}), escalate_to=answering(verdict("sad")))
