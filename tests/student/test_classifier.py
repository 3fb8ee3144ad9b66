"""The classifier: one verdict on all ways of calling it, and a failed one whatever goes wrong."""

import asyncio
import math
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import ollama
import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_ollama import ChatOllama
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph

from langchain_pld import Label, PLDClassifier
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, Gate, ModelFingerprint
from langchain_pld.errors import ModelSetupError, StudentError
from langchain_pld.student.deadlines import remaining_s, set_deadline
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.verdict import Verdict
from tests.fakes import FakeChatModel, scored, text_of
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaModel, OllamaServer
from tests.student.small_artifact import LETTERS, RULES, TASK, WORDS, artifact, classifier

SAD = scored({"sad": 0.8, "glad": 0.2})


def by_text(messages: list[Any]) -> AIMessage:
    label = text_of(messages).split()[0]
    return scored({label: 0.8, "the": 0.1})


async def test_all_ways_of_calling_give_the_same_verdict() -> None:
    judge = classifier(lambda _: SAD)
    verdict = judge.invoke("alas")
    assert (verdict.status, verdict.label, verdict.decided_by) == ("decided", "sad", "fake-chat:fake")
    assert verdict.confidence == pytest.approx(0.8, abs=1e-4)
    assert sum((verdict.probabilities or {}).values()) == pytest.approx(1)
    assert verdict.calibrated
    assert verdict.artifact_id == judge.artifact.id
    assert (verdict.usage.calls, verdict.usage.input_tokens) == (1, 100)
    assert await judge.ainvoke("alas") == verdict
    assert judge.batch(["alas"])[0] == (await judge.abatch(["alas"]))[0] == verdict
    assert list(judge.stream("alas"))[-1] == verdict
    assert [part async for part in judge.astream("alas")][-1] == verdict


async def test_a_hundred_concurrent_inputs_never_mix() -> None:
    judge = classifier(by_text, latency_s=0.01)
    names = ["glad", "sad", "calm"]
    inputs = [f"{names[i % 3]} {i}" for i in range(100)]
    expected = [names[i % 3] for i in range(100)]
    assert [verdict.label for verdict in await judge.abatch(inputs)] == expected
    assert [verdict.label for verdict in await asyncio.to_thread(judge.batch, inputs)] == expected


async def test_config_reaches_the_student() -> None:
    seen: list[tuple[Any, Any]] = []

    class Spy(BaseCallbackHandler):
        def on_chat_model_start(
            self, serialized: Any, messages: Any, *, parent_run_id: Any = None, **kwargs: Any
        ) -> None:
            assert parent_run_id is not None
            seen.append((kwargs["tags"], kwargs["metadata"].get("tenant")))

    judge = classifier(lambda _: SAD)
    config: Any = {"callbacks": [Spy()], "tags": ["night"], "metadata": {"tenant": "t1"}}
    judge.invoke("alas", config)
    await judge.ainvoke("alas", config)
    assert len(seen) == 2
    assert all("night" in tags and tenant == "t1" for tags, tenant in seen)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (httpx.ConnectError("x"), "connection"),
        (httpx.ReadTimeout("x"), "timeout"),
        (ollama.ResponseError("x", 401), "authentication"),
        (ollama.ResponseError("x", 404), "model_missing"),
        (ollama.ResponseError("x", 429), "rate_limit"),
        (ollama.ResponseError("x", 500), "server"),
        (ValueError("x"), "unexpected"),
        (AIMessage(""), "empty"),
        (AIMessage("sad"), "unreadable"),
        (scored({"the": 0.9, "sad": 0.01}), "unreadable"),
    ],
)
async def test_each_failure_is_a_failed_verdict_and_never_a_label(reply: Any, kind: str) -> None:
    judge = classifier(lambda _: reply)
    for verdict in (judge.invoke("alas"), await judge.ainvoke("alas")):
        assert (verdict.status, verdict.label, verdict.predicted_label) == ("failed", None, None)
        assert verdict.failure is not None
        assert verdict.failure.kind == kind


@pytest.mark.parametrize("value", ["", 3, "x" * 5_001, {"body": 1}])
def test_a_wrong_input_is_a_failed_verdict_without_a_call(value: Any) -> None:
    judge = classifier(lambda _: SAD)
    verdict = judge.invoke(value)
    assert verdict.failure is not None
    assert verdict.failure.kind == "input"
    assert judge.student.asked == []  # type: ignore[attr-defined]


async def test_a_hanging_model_times_out() -> None:
    judge = classifier(lambda _: SAD, latency_s=2, timeout_s=0.05)
    started = time.monotonic()
    for verdict in (judge.invoke("alas"), await judge.ainvoke("alas")):
        assert verdict.failure is not None
        assert verdict.failure.kind == "timeout"
    assert time.monotonic() - started < 1.9


async def test_a_deadline_of_the_caller_ends_retries_and_escalation_too() -> None:
    other = FakeChatModel(script=lambda _: AIMessage("glad"), latency_s=5)
    judge = PLDClassifier(
        artifact=artifact(),
        student=FakeChatModel(script=lambda _: SAD, latency_s=5),
        retry=RetryPolicy(attempts=5),
        escalate_to=other,
    )

    def sync() -> Verdict:
        set_deadline(0.2)
        return judge.invoke("alas")

    async def awaited() -> Verdict:
        set_deadline(0.2)
        return await judge.ainvoke("alas")

    started = time.monotonic()
    for verdict in (await asyncio.to_thread(sync), await asyncio.create_task(awaited())):
        assert [one.failure.kind for one in verdict.opinions if one.failure] == ["timeout", "timeout"]
    assert time.monotonic() - started < 2
    assert remaining_s() == math.inf


async def test_cancellation_passes_at_once() -> None:
    task = asyncio.create_task(classifier(lambda _: SAD, latency_s=5).ainvoke("alas"))
    await asyncio.sleep(0.05)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 0.5


async def test_a_graph_interrupt_passes_through() -> None:
    judge = classifier(lambda _: GraphInterrupt(()), attempts=3)
    with pytest.raises(GraphInterrupt):
        judge.invoke("alas")
    with pytest.raises(GraphInterrupt):
        await judge.ainvoke("alas")
    assert len(judge.student.asked) == 2  # type: ignore[attr-defined]


async def test_a_transient_failure_is_tried_again() -> None:
    replies: list[Any] = [httpx.ConnectError("x"), SAD, ollama.ResponseError("x", 503), SAD]
    judge = classifier(lambda _: replies.pop(0), attempts=2)
    assert judge.invoke("alas").label == "sad"
    assert (await judge.ainvoke("alas")).label == "sad"


def test_a_model_that_keeps_failing_is_no_longer_asked() -> None:
    judge = classifier(lambda _: httpx.ConnectError("x"))
    kinds = [(judge.invoke("alas").failure or pytest.fail("no failure")).kind for _ in range(7)]
    assert kinds == ["connection"] * 5 + ["circuit_open"] * 2
    assert len(judge.student.asked) == 5  # type: ignore[attr-defined]


def test_first_tokens_of_one_student_say_nothing_about_another_ones() -> None:
    known = WORDS.model_copy(update={"first_tokens": {"sad": ("s",)}})

    def says_s(_: Any) -> AIMessage:
        return scored({"s": 0.8, "glad": 0.1})

    assert classifier(says_s, answer=known).invoke("a text").label == "sad"
    with pytest.warns(UserWarning, match="this is not the student"):
        other = classifier(says_s, answer=known, student=ModelFingerprint(spec="ollama:other"))
    verdict = other.invoke("a text")
    assert verdict.failure is not None
    assert verdict.failure.kind == "unreadable"


def test_another_student_warns_and_is_not_called_calibrated() -> None:
    with pytest.warns(UserWarning, match="this is not the student"):
        judge = classifier(lambda _: SAD, student=ModelFingerprint(spec="ollama:other"))
    verdict = judge.invoke("alas")
    assert verdict.label == "sad"
    assert not verdict.calibrated


@pytest.mark.parametrize(("threshold", "status"), [(0.7, "decided"), (0.9, "abstained"), (None, "abstained")])
def test_a_gate_abstains_below_its_threshold(threshold: float | None, status: str) -> None:
    verdict = classifier(lambda _: SAD, gate=Gate(alpha=0.1, threshold=threshold)).invoke("alas")
    assert (verdict.status, verdict.predicted_label) == (status, "sad")
    assert verdict.label == ("sad" if status == "decided" else None)


def test_a_gate_that_was_fitted_for_another_student_lets_nothing_pass_and_the_warning_says_so() -> None:
    stranger, gate = ModelFingerprint(spec="ollama:other"), Gate(alpha=0.1, threshold=0.1)
    with pytest.warns(UserWarning, match="this is not the student .* the gate always abstains"):
        judge = classifier(lambda _: SAD, student=stranger, gate=gate)
    verdict = judge.invoke("alas")
    assert (verdict.status, verdict.label, verdict.predicted_label) == ("abstained", None, "sad")


def test_an_answer_without_scores_never_passes_a_gate() -> None:
    verdict = classifier(lambda _: AIMessage("sad"), scorer="text", gate=Gate(alpha=0.1, threshold=0.0)).invoke("x")
    assert (verdict.status, verdict.confidence) == ("abstained", None)


def test_the_structured_scorer_is_read() -> None:
    assert classifier(lambda _: AIMessage('{"label": "sad"}'), scorer="structured").invoke("x").label == "sad"


def test_the_student_reads_the_cleaned_text_and_the_original_stays() -> None:
    value = {"text": "pаypal >>> \u200b"}
    judge = classifier(lambda _: SAD)
    judge.invoke(value)
    assert value == {"text": "pаypal >>> \u200b"}
    assert text_of(judge.student.asked[0]) == "paypal \u203a\u203a\u203a "  # type: ignore[attr-defined]


def test_a_classifier_is_made_from_a_file(tmp_path: Path) -> None:
    path = artifact().save(tmp_path / "a.pld.json")
    judge = PLDClassifier.from_artifact(path, student=FakeChatModel(script=lambda _: SAD))
    assert judge.invoke("alas").label == "sad"


async def test_a_failure_is_raised_where_that_is_wanted() -> None:
    replies: list[Any] = [httpx.ConnectError("x"), httpx.ConnectError("x"), SAD]
    judge = classifier(lambda _: replies.pop(0)).model_copy(update={"on_failure": "raise"})
    with pytest.raises(StudentError, match="connection: no connection"):
        judge.invoke("alas")
    retried = judge.with_retry(retry_if_exception_type=(StudentError,), wait_exponential_jitter=False)
    assert (await retried.ainvoke("alas")).label == "sad"


async def test_a_run_that_somebody_watches_has_its_own_name_and_id() -> None:
    class Spy(BaseCallbackHandler):
        def __init__(self) -> None:
            self.runs: list[tuple[Any, Any, Any]] = []

        def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any = None, **kwargs: Any) -> None:
            self.runs.append((kwargs["name"], run_id, kwargs.get("parent_run_id")))

        def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any = None, **kwargs: Any) -> None:
            self.runs.append((kwargs["name"], run_id, kwargs.get("parent_run_id")))

    judge, own = classifier(lambda _: SAD), uuid4()
    watched, unwatched = Spy(), Spy()
    judge.invoke("alas", {"run_id": own, "run_name": "guard", "callbacks": [watched]})
    assert [(name, run == own, parent == own) for name, run, parent in watched.runs] == [
        ("guard", True, False),
        (None, False, True),
    ]
    # Only the student's own callbacks see this one: neither name nor id of the classifier's run may be taken for its.
    judge.student.callbacks = [unwatched]
    for verdict in (
        judge.invoke("alas", {"run_id": own, "run_name": "guard"}),
        await judge.ainvoke("alas", {"run_id": own, "run_name": "guard"}),
    ):
        assert verdict.label == "sad"
    assert [(name, run == own) for name, run, _ in unwatched.runs] == [(None, False)] * 2


async def test_tokens_are_counted_by_langchains_own_counter() -> None:
    judge = classifier(lambda _: scored({"sad": 0.8}, model_name="fake"))
    with get_usage_metadata_callback() as counted:
        judge.invoke("alas")
        await judge.ainvoke("alas")
    assert counted.usage_metadata["fake"]["input_tokens"] == 200


def test_a_client_that_hangs_does_not_keep_the_process_alive() -> None:
    program = """
import time
from tests.student.small_artifact import classifier
judge = classifier(lambda _: time.sleep(60), timeout_s=0.1)
print(judge.invoke("alas").failure.kind, judge.invoke("alas").failure.kind)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (run.stdout.split(), run.returncode) == (["timeout", "timeout"], 0)


def test_a_client_with_a_time_out_of_its_own_is_called_in_the_callers_thread() -> None:
    class FakeService(FakeChatModel):
        timeout: float | None = None

    threads: list[Any] = []

    def script(_: Any) -> AIMessage:
        threads.append(threading.current_thread())
        return SAD

    for seconds in (5.0, 500.0, None):
        PLDClassifier(artifact=artifact(), student=FakeService(script=script, timeout=seconds)).invoke("alas")
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [True, False, False]


async def test_the_context_of_the_caller_reaches_a_watched_client() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    seen: list[str] = []

    def script(_: Any) -> AIMessage:
        seen.append(tenant.get())
        return SAD

    judge = classifier(script)
    for name in ("a", "b"):
        tenant.set(name)
        judge.invoke("alas")
        await judge.ainvoke("alas")
    assert seen == ["a", "a", "b", "b"]


def test_two_stages_are_asked_as_the_artifact_says() -> None:
    task = TASK.model_copy(update={"labels": tuple(Label(name=name) for name in ("glad", "sad", "calm", "wild"))})
    answer = AnswerFormat.two_stage(task)
    parts: dict[str, Any] = {
        "task": task,
        "rules": (),
        "answer": answer,
        "system_prompt": compile_prompt(task, (), answer),
        "calibration": Calibration.identity(task.label_names),
    }
    verdict = classifier(lambda _: scored({"B": 0.95, "A": 0.05}), **parts).invoke("alas")
    assert (verdict.label, verdict.usage.calls) == ("wild", 3)


def test_the_same_weights_under_another_name_are_the_same_student(tmp_path: Path) -> None:
    path = artifact(student=ModelFingerprint(spec="ollama:gemma3:4b", digest="a" * 64)).save(tmp_path / "a.pld.json")
    entry = OllamaModel(name="mine:latest", digest="a" * 64)
    with OllamaServer(FakeAnswer.picking({"sad": 0.9}), models=(entry,)) as server:
        # A warning would be an error here.
        judge = PLDClassifier.from_artifact(path, student=ChatOllama(model="mine", base_url=server.url))
        assert judge.invoke("alas").calibrated
        asked = [request for request in server.requests if request.path == "/api/chat"]
    assert asked[0].body["options"]["num_ctx"] == 4_096


def test_what_is_known_of_the_student_is_not_taken_for_the_one_that_is_escalated_to(tmp_path: Path) -> None:
    path = artifact().save(tmp_path / "a.pld.json")
    other = FakeChatModel(script=lambda _: AIMessage("glad"), model="large")
    # A warning that the other is not the artifact's student would be an error here.
    judge = PLDClassifier.from_artifact(path, student=FakeChatModel(script=lambda _: AIMessage("")), escalate_to=other)
    assert judge.invoke("alas").label == "glad"
    assert judge.model_copy(update={"timeout_s": 5.0}).calibrated


async def test_a_zero_shot_classifier_is_made_from_a_task_and_a_model() -> None:
    model = FakeChatModel(script=lambda _: SAD)
    judge = PLDClassifier.zero_shot(TASK, model, timeout_s=5)
    verdict = await judge.ainvoke("alas")
    assert (verdict.label, verdict.calibrated, verdict.rule_ids) == ("sad", False, ())
    assert judge.artifact.notes == ("zero-shot, not measured",)
    letters = PLDClassifier.zero_shot(
        TASK, FakeChatModel(script=lambda _: scored({"B": 0.9, "A": 0.1})), answer=LETTERS
    )
    assert letters.invoke("alas").label == "sad"


def test_a_verdict_names_the_rules_of_its_label() -> None:
    judge = classifier(lambda _: scored({"sad": 0.6, "glad": 0.4}))
    assert judge.invoke("alas").rule_ids == (RULES[0].id,)
    assert classifier(lambda _: scored({"calm": 0.9, "sad": 0.1})).invoke("alas").rule_ids == ()
    assert classifier(lambda _: AIMessage("")).invoke("alas").rule_ids == ()


def test_how_a_classifier_prints_tells_no_password_and_no_rules() -> None:
    student = ChatOllama(model="gemma3:4b", base_url="http://ann:hunter2@127.0.0.1:9")
    classifier = PLDClassifier.zero_shot(TASK, student)
    assert (
        repr(classifier)
        == str(classifier)
        == f"PLDClassifier(artifact='{classifier.artifact.id}', student='ollama:gemma3:4b')"
    )


def test_a_tie_abstains_instead_of_falling_to_the_first_label() -> None:
    plain = Calibration.identity(TASK.label_names)
    verdict = classifier(lambda _: scored({"glad": 0.4, "sad": 0.4}), calibration=plain).invoke("alas")
    assert (verdict.status, verdict.label) == ("abstained", None)


async def test_an_input_that_is_refused_does_not_make_a_dead_model_look_alive() -> None:
    def dead(messages: list[BaseMessage]) -> Exception:
        return ContextOverflowError("x") if "long" in text_of(messages) else httpx.ConnectError("x")

    judge = classifier(dead)
    for _ in range(20):
        judge.invoke("alas")
        await judge.ainvoke("a long one")
    assert len([chat for chat in judge.student.asked if "alas" in text_of(chat)]) <= 5  # type: ignore[attr-defined]
    assert (judge.invoke("alas").failure or pytest.fail("no failure")).kind == "circuit_open"


class Plain(FakeChatModel):
    """Has no structured output, as a chat model without tools has none."""

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def test_a_student_without_structured_output_is_told_when_it_is_built() -> None:
    with pytest.raises(ModelSetupError, match="fake-chat:fake has no structured output; use the scorer"):
        PLDClassifier(artifact=artifact(scorer="structured"), student=Plain(script=lambda _: SAD))


def test_zero_shot_takes_the_scorer_that_it_advises() -> None:
    student = FakeChatModel(script=lambda _: AIMessage("sad"))
    failure = PLDClassifier.zero_shot(TASK, student).invoke("alas").failure
    assert failure is not None
    assert "use the scorer 'structured' or 'text'" in failure.message
    assert PLDClassifier.zero_shot(TASK, student, scorer="text").invoke("alas").label == "sad"


async def test_the_students_answer_is_no_message_of_a_graphs_stream() -> None:
    judge = classifier(lambda _: SAD)

    def sync_node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"felt {judge.invoke(state['messages'][-1].text).label}")]}

    async def async_node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"felt {(await judge.ainvoke(state['messages'][-1].text)).label}")]}

    graph = StateGraph(MessagesState).add_node("judge", RunnableLambda(sync_node, async_node))
    graph.add_edge(START, "judge")
    app, start = graph.compile(), {"messages": [("human", "alas")]}
    assert [part.text for part, _ in app.stream(start, stream_mode="messages")] == ["felt sad"]
    assert [part.text async for part, _ in app.astream(start, stream_mode="messages")] == ["felt sad"]


async def test_an_answer_as_another_kind_of_message_is_read() -> None:
    judge = classifier(lambda _: ChatMessage(role="assistant", content="sad"), scorer="text")
    assert judge.invoke("alas").label == (await judge.ainvoke("alas")).label == "sad"


@pytest.mark.parametrize("key", ["text", "input", "messages"])
async def test_an_input_of_a_thousand_mappings_in_each_other_is_refused(key: str) -> None:
    value: Any = "alas"
    for _ in range(1_200):
        value = {key: value}
    judge = classifier(lambda _: SAD)
    for verdict in (judge.invoke(value), await judge.ainvoke(value)):
        assert verdict.failure is not None
        assert verdict.failure.kind == "input"
    assert judge.invoke({"input": {"messages": [("human", "alas")]}}).label == "sad"


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def test_behind_a_prompt_the_last_message_of_a_person_is_read_or_all_of_them() -> None:
    prompt = ChatPromptTemplate([("system", "You are a poet."), ("human", "{text}")])
    student = FakeChatModel(script=lambda _: scored({"glad": 0.8, "sad": 0.1}))
    for select, expected in (
        ("last_human", "alas"),
        ("all", "system: You are a poet.\nhuman: alas"),
    ):
        (prompt | PLDClassifier.zero_shot(TASK, student, select=select)).invoke({"text": "alas"})
        assert student.asked[-1][-1].text == f"<<<\n{expected}\n>>>"


@pytest.mark.parametrize(
    ("message", "unread"),
    [
        (HumanMessage([{"type": "text", "text": "look"}, IMAGE]), ("image_url",)),
        (AIMessage("done", tool_calls=[{"name": "rm", "args": {}, "id": "1"}]), ("tool_call",)),
        (HumanMessage("look"), ()),
    ],
)
def test_parts_that_a_student_cannot_read_are_told(message: BaseMessage, unread: tuple[str, ...]) -> None:
    judge = PLDClassifier.zero_shot(TASK, FakeChatModel(script=lambda _: scored({"glad": 0.8, "sad": 0.1})))
    assert judge.invoke([message]).unread == unread


def test_a_message_without_any_text_says_what_it_has() -> None:
    judge = PLDClassifier.zero_shot(TASK, FakeChatModel(script=lambda _: scored({"glad": 0.8, "sad": 0.1})))
    failure = judge.invoke([HumanMessage([IMAGE])]).failure
    assert failure is not None
    assert failure.message == "the text is empty; it has parts that cannot be read: image_url"
