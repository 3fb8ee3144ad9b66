"""Modes 1, 2, 3, 10 and 17: no verdict is an error, closed by default, and what a guard sets reaches the model."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import ollama
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_google_genai.chat_models import ChatGoogleGenerativeAIError
from langchain_ollama import ChatOllama

from langchain_pld import PLDClassifier
from langchain_pld.artifact import Gate, ModelFingerprint
from langchain_pld.guardrail import Guard, GuardrailPolicy
from langchain_pld.guardrail.decision import Decision
from langchain_pld.student.failures import RetryPolicy
from tests.fakes import scored, tokens
from tests.guardrail.failure_modes.call_styles import BLOCKED, UNCHECKED, CallStyle, each_style, watch
from tests.servers.fake_answers import FakeAnswer, Faults
from tests.servers.ollama import OllamaServer
from tests.student.small_artifact import EVIDENCE, WORDS, artifact

OPEN_TO_VIOLATIONS = {"on_violation": "allow", "on_uncertain": "allow"}
"""A policy under which only an error is blocked: what still is, was treated as an error."""
ONLY_VIOLATIONS = {"on_error": "allow", "on_uncertain": "allow"}
"""A policy under which an error passes: what does not, was treated as a violation."""

CHATTY: list[tuple[str, dict[str, Any], AIMessage]] = [
    ("logprobs", {}, AIMessage("")),
    ("logprobs", {}, AIMessage("glad")),
    ("logprobs", {}, scored({"Sure": 0.95, "glad": 0.04})),
    ("logprobs", {}, scored({"The": 0.9, "gl": 0.1})),
    ("logprobs", {"answer": EVIDENCE}, tokens("I", " am", " glad")),
    ("logprobs", {"answer": EVIDENCE}, tokens("words", " =>", done_reason="length")),
    ("text", {}, AIMessage("Sure! This text is glad, I think.")),
    ("text", {}, AIMessage("glad or sad")),
    ("text", {}, AIMessage("not glad")),
    ("text", {}, AIMessage("glad\nsad")),
    ("structured", {}, AIMessage('{"label": "glad"')),
    ("structured", {}, AIMessage('Sure: {"label": "glad"}')),
    ("structured", {}, AIMessage('{"label": "happy"}')),
    ("structured", {}, AIMessage('{"label": ["glad"]}')),
    ("structured", {}, AIMessage('{"label": "sad", "label": "glad"}')),
]


@each_style()
def test_mode_01_an_unreadable_or_chatty_answer_is_not_allowed(style: CallStyle) -> None:
    for scorer, changes, reply in CHATTY[::4]:
        watched = watch(lambda _, reply=reply: reply, scorer=scorer, policy=OPEN_TO_VIOLATIONS, **changes)
        result = style(watched, "good morning")
        assert not result.reached, reply
        assert UNCHECKED in str(result)
        assert BLOCKED not in str(result)


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_01_nor_is_any_other_of_its_kind(sync: bool) -> None:
    for scorer, changes, reply in CHATTY:
        watched = watch(lambda _, reply=reply: reply, scorer=scorer, policy=OPEN_TO_VIOLATIONS, **changes)
        assert (await decided(watched, sync)).outcome == "error", reply


ERRORS: list[tuple[Exception, str]] = [
    (httpx.ConnectError("refused"), "connection"),
    (httpx.RemoteProtocolError("Server disconnected without sending a response."), "connection"),
    (ConnectionResetError(), "connection"),
    (httpx.ReadTimeout("slow"), "timeout"),
    (TimeoutError(), "timeout"),
    (ollama.ResponseError("overloaded", 503), "server"),
    (ollama.ResponseError("out of memory", 500), "server"),
    (ollama.ResponseError("slow down", 429), "rate_limit"),
    (ChatGoogleGenerativeAIError("no API key"), "unexpected"),
    (KeyError("GOOGLE_API_KEY"), "unexpected"),
    (ValueError("api_key must be set"), "unexpected"),
]


@each_style()
def test_mode_02_an_error_is_neither_safe_nor_a_violation(style: CallStyle) -> None:
    for error, kind in ERRORS[::3]:
        result = style(watch(lambda _, error=error: error, policy=OPEN_TO_VIOLATIONS), "good morning")
        assert not result.reached, kind
        assert UNCHECKED in str(result)
        passed = style(watch(lambda _, error=error: error, policy=ONLY_VIOLATIONS), "good morning")
        assert passed.reached, "an error is no violation, and this policy lets errors pass"


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_02_each_error_has_its_kind(sync: bool) -> None:
    for error, kind in ERRORS:
        decision = await decided(watch(lambda _, error=error: error), sync)
        assert (decision.action, decision.outcome, decision.label) == ("block", "error", None)
        assert decision.verdicts[0].failure is not None
        assert decision.verdicts[0].failure.kind == kind


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (FakeAnswer(status=500, error="out of memory"), "server"),
        (FakeAnswer(break_off="drop"), "connection"),
        (FakeAnswer(content="glad", break_off="drop", after_parts=1), "connection"),
        (FakeAnswer(content="glad", break_off="hang"), "timeout"),
        (FakeAnswer(body=b"<html>a proxy's page</html>"), "unreadable"),
        (FakeAnswer(content="glad"), "decided"),
    ],
    ids=["500", "dropped", "dropped midway", "hangs", "a proxy's page", "works"],
)
async def test_mode_02_what_a_real_client_makes_of_a_broken_server(sync: bool, answer: FakeAnswer, kind: str) -> None:
    with OllamaServer(answer) as server:
        decision = await decided(served(server, timeout_s=0.3), sync)
    assert decision.allowed == (kind == "decided")
    assert decision.outcome == ("clear" if kind == "decided" else "error")
    failure = decision.verdicts[0].failure
    assert failure is None if kind == "decided" else (failure is not None and failure.kind == kind)


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_02_a_server_that_is_not_there_is_an_error(sync: bool) -> None:
    with OllamaServer(FakeAnswer(content="glad")) as server:
        watched = served(server)
    decision = await decided(watched, sync)
    assert (decision.action, decision.outcome) == ("block", "error")


@each_style()
@pytest.mark.parametrize("status", [401, 403])
def test_mode_03_a_401_does_not_open_the_gate(style: CallStyle, status: int) -> None:
    with OllamaServer(FakeAnswer(status=status, error="unauthorized")) as server:
        result = style(served(server), "good morning")
        assert server.count("/api/chat") == 1, "asking again would not bring a key"
    assert not result.reached
    assert UNCHECKED in str(result)


THOUGHTS: list[tuple[str, dict[str, Any], AIMessage]] = [
    (scorer, {"answer": WORDS.model_copy(update={"thinking_tokens": room})}, reply)
    for scorer in ("logprobs", "text", "structured")
    for room in (0, 50)
    for reply in (
        AIMessage("<think>The writer is glad", response_metadata={"done_reason": "length"}),
        AIMessage("<think>glad", response_metadata={"done_reason": "length"}),
        AIMessage("", additional_kwargs={"reasoning_content": "glad"}, response_metadata={"done_reason": "length"}),
        tokens("<think>", "glad", done_reason="length"),
        tokens("<|channel|>", "analysis", "<|message|>", "glad", done_reason="length"),
    )
]


@each_style()
def test_mode_10_a_student_that_runs_out_of_tokens_while_it_thinks_does_not_pass(style: CallStyle) -> None:
    for scorer, changes, reply in THOUGHTS[::8]:
        watched = watch(lambda _, reply=reply: reply, scorer=scorer, policy=OPEN_TO_VIOLATIONS, **changes)
        result = style(watched, "good morning")
        assert not result.reached, (scorer, reply)
        assert UNCHECKED in str(result)


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_10_nor_does_any_other_of_its_kind(sync: bool) -> None:
    for scorer, changes, reply in THOUGHTS:
        watched = watch(lambda _, reply=reply: reply, scorer=scorer, policy=OPEN_TO_VIOLATIONS, **changes)
        assert (await decided(watched, sync)).outcome == "error", (scorer, reply)


@each_style()
def test_mode_17_each_default_reaches_the_model(style: CallStyle) -> None:
    with OllamaServer(FakeAnswer.picking({"glad": 0.9, "sad": 0.1})) as server:
        assert style(served(server), "good morning").reached
        (request,) = [found for found in server.requests if found.path == "/api/chat"]
    body = request.body or {}
    assert body["messages"] == [
        {"role": "system", "content": artifact().system_prompt},
        {"role": "user", "content": "<<<\ngood morning\n>>>"},
    ]
    options = body["options"]
    assert (options["temperature"], options["num_predict"]) == (0.0, 1)
    assert options["num_ctx"] >= 4096, "not Ollama's own default, which may be half of the prompt"
    assert (body["logprobs"], body["top_logprobs"], body["think"]) == (True, 20, False)


@each_style()
@pytest.mark.parametrize("limit", ["call", "check"])
def test_mode_17_each_time_limit_reaches_the_model(style: CallStyle, limit: str) -> None:
    """The client of `ollama` waits for ever by default; the classifier's limit and the policy's both end that."""
    with OllamaServer(FakeAnswer(content="glad"), faults=Faults(hang_rate=1.0)) as server:
        limits: Any = {"timeout_s": 0.2} if limit == "call" else {"deadline_s": 0.2}
        watched = served(server, **limits)
        started = time.perf_counter()
        result = style(watched, "good morning")
        assert time.perf_counter() - started < 3
    assert not result.reached
    assert UNCHECKED in str(result)


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_17_each_action_of_a_policy_is_done(sync: bool) -> None:
    """A setting that is accepted is used: each outcome under each action."""
    gate = Gate(alpha=0.05, threshold=0.95, rows=100)
    replies: dict[str, tuple[Any, dict[str, Any]]] = {
        "on_violation": (scored({"sad": 0.9, "glad": 0.1}), {}),
        "on_uncertain": (scored({"sad": 0.9, "glad": 0.1}), {"gate": gate}),
        "on_error": (httpx.ConnectError("down"), {}),
    }
    for field, (reply, changes) in replies.items():
        for action in ("block", "allow", "flag", "interrupt", "raise"):
            watched = watch(lambda _, reply=reply: reply, policy={field: action}, **changes)
            assert (await decided(watched, sync)).action == action, field


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_17_each_setting_of_a_policy_about_others_is_used(sync: bool) -> None:
    picture = {"type": "image", "url": "https://example.org/x.png"}
    message = HumanMessage([{"type": "text", "text": "look"}, picture])
    for action in ("block", "allow", "flag", "interrupt", "raise"):
        media = watch(policy={"on_unreadable": action})
        decision = media.check([message]) if sync else await media.acheck([message])
        assert decision.action == action
        sad = watch(lambda _: scored({"sad": 0.9, "glad": 0.1})).classifier
        policy = GuardrailPolicy(block_labels=["sad"], on_violation="escalate", after_escalation=action)
        decision = await decided(Guard(sad, policy, escalate_to=sad), sync)
        assert (decision.action, len(decision.verdicts)) == (action, 2)


def served(server: OllamaServer, *, timeout_s: float = 20.0, deadline_s: float = 10.0) -> Guard:
    """A guard whose student is Ollama's client, built as a user would: without any option."""
    classifier = PLDClassifier(
        artifact=artifact(student=ModelFingerprint(spec="ollama:fake")),
        student=ChatOllama(model="fake", base_url=server.url),
        timeout_s=timeout_s,
        retry=RetryPolicy(attempts=1, initial_s=0),
    )
    return Guard(classifier, GuardrailPolicy(block_labels=["sad"], deadline_s=deadline_s))


async def decided(watched: Guard, sync: bool) -> Decision:
    decision = watched.check("good morning") if sync else await watched.acheck("good morning")
    if not sync:
        await asyncio.sleep(0.02)  # a call that was cancelled closes its connection
    return decision
