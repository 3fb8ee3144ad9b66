"""Audit records, and replaying them against an artifact."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from langchain_pld import DistilledPrompt, PLDClassifier
from langchain_pld.guardrail import AuditTrail, AuditWriter, Guard, GuardrailPolicy, check_all, create_guardrail_graph
from langchain_pld.student.providers import model_spec
from tests.cli.conftest import Run, artifact, pld
from tests.guardrail.factories import POLICY, answering, failed, guard, mood_guard, verdict
from tests.servers.ollama import OllamaServer
from tests.student.small_artifact import RULES
from tests.teams import ollama_script

__all__ = ["artifact", "pld"]

TEXT = "so much grief, says Ann"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The file that audit records go to."""
    path = tmp_path / "audit.jsonl"
    handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=1, encoding="utf-8")
    with AuditWriter(handler, background=False):
        yield path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("sync", [True, False])
async def test_a_check_is_one_line_that_says_who_decided_what(log: Path, sync: bool) -> None:
    watch = mood_guard()
    decision = watch.check(TEXT) if sync else await watch.acheck(TEXT)
    (line,) = lines_of(log)
    assert datetime.fromisoformat(line["time"]).tzinfo is not None
    assert line["input_hash"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert line["artifact"] == decision.verdicts[0].artifact_id
    assert line["probabilities"]["sad"] == decision.verdicts[0].confidence
    expected = {
        "event": "check",
        "guard": "mood",
        "stage": "input",
        "outcome": "violation",
        "action": "block",
        "label": "sad",
        "status": "decided",
        "verdict": "sad",
        "rules": [RULES[0].id],
        "failure": None,
        "escalated": False,
        "decided_by": "fake-chat:fake",
        "hash": "sha256",
    }
    assert line | expected == line
    assert line["latency_ms"] > 0


@pytest.mark.parametrize("answer", [verdict("sad"), failed(), ValueError(TEXT), verdict("sad", 0.4)])
def test_no_word_of_the_text_is_written_unless_asked_for(log: Path, answer: Any) -> None:
    guard(answer, policy=GuardrailPolicy(block_labels={"sad": 0.5})).check(TEXT)
    assert "Ann" not in log.read_text(encoding="utf-8")
    guard(answer, audit=AuditTrail(text=True)).check(TEXT)
    assert lines_of(log)[-1]["text"] == TEXT


def test_a_line_stays_a_line_whatever_the_text_holds(log: Path) -> None:
    odd = 'a\nb\u2028c\x1b[31m"\ud800'
    guard(verdict("glad"), audit=AuditTrail(text=True)).check(odd)
    (raw,) = log.read_bytes().splitlines()
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert json.loads(raw)["text"] == odd


def test_a_score_that_is_no_number_leaves_the_line_readable(log: Path) -> None:
    guard(verdict("glad").model_copy(update={"probabilities": {"glad": float("nan"), "sad": 0.1}})).check(TEXT)
    assert "NaN" not in log.read_text(encoding="utf-8")
    assert lines_of(log)[0]["probabilities"] == {"glad": None, "sad": 0.1}


def test_a_keyed_hash_needs_its_key(log: Path) -> None:
    guard(verdict("glad"), audit=AuditTrail(key=b"k")).check(TEXT)
    (line,) = lines_of(log)
    assert line["hash"] == "hmac-sha256"
    assert line["input_hash"] == hmac.new(b"k", TEXT.encode(), hashlib.sha256).hexdigest()


def test_every_guard_of_a_check_has_its_line(log: Path) -> None:
    policy = POLICY.model_copy(update={"on_error": "escalate"})
    watch = [
        guard(verdict("glad"), name="one"),
        guard(failed(), name="two", policy=policy, escalate_to=answering(verdict("sad"))),
        guard(failed("timeout"), name="three"),
    ]
    check_all(watch, TEXT)
    found = {line["guard"]: (line["escalated"], line["decided_by"], line["failure"]) for line in lines_of(log)}
    assert found == {
        "one": (False, "fake:student", None),
        "two": (True, "fake:student", None),
        "three": (False, "policy", "timeout"),
    }


async def test_a_persons_answer_is_written(log: Path) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node(
        "guard", create_guardrail_graph(mood_guard(policy=POLICY.model_copy(update={"on_violation": "interrupt"})))
    )
    builder.add_edge(START, "guard")
    builder.add_edge("guard", END)
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1", "langgraph_auth_user_id": "eve"}}
    await graph.ainvoke({"messages": [HumanMessage(TEXT)]}, config)
    await graph.ainvoke(Command(resume={"decisions": [{"type": "reject"}]}), config)
    check, person = lines_of(log)
    assert (check["event"], check["action"]) == ("check", "interrupt")
    assert (person["event"], person["answer"], person["label"], person["decided_by"]) == (
        "person",
        "reject",
        "sad",
        "eve",
    )
    assert person["input_hash"] == check["input_hash"]


def test_without_a_handler_nothing_is_written_and_nobody_else_hears(caplog: pytest.LogCaptureFixture) -> None:
    guard(verdict("sad")).check(TEXT)
    assert caplog.records == []


async def test_records_are_written_without_blocking_an_event_loop(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logger = logging.getLogger("langchain_pld.audit")
    before = (logger.level, logger.propagate, list(logger.handlers))
    threads: set[str] = set()

    class NotingHandler(logging.FileHandler):
        def emit(self, record: logging.LogRecord) -> None:
            threads.add(threading.current_thread().name)
            super().emit(record)

    with AuditWriter(NotingHandler(path)):
        for _ in range(50):
            await guard(verdict("glad")).acheck(TEXT)
    assert len(lines_of(path)) == 50
    assert threading.current_thread().name not in threads
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


@pytest.mark.parametrize("background", [False, True])
def test_what_the_application_does_to_its_logging_does_not_silence_the_audit_log(
    tmp_path: Path, background: bool
) -> None:
    path, logger = tmp_path / "audit.jsonl", logging.getLogger("langchain_pld.audit")
    with AuditWriter(logging.FileHandler(path), background=background):
        logger.disabled = True  # as logging.config does to every logger that it is not told of
        try:
            guard(verdict("glad")).check(TEXT)
        finally:
            logger.disabled = False
    assert len(lines_of(path)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("background", [False, True])
def test_a_forked_process_writes_its_own_records(tmp_path: Path, background: bool) -> None:
    path = tmp_path / "audit.jsonl"

    def work(writer: AuditWriter) -> None:
        guard(verdict("sad")).check(TEXT)
        writer.close()

    with AuditWriter(logging.FileHandler(path), background=background) as writer:
        guard(verdict("glad")).check(TEXT)
        child = multiprocessing.get_context("fork").Process(target=work, args=(writer,))
        child.start()
        child.join(30)
    assert child.exitcode == 0
    assert sorted(line["verdict"] for line in lines_of(path)) == ["glad", "sad"]


def checked(artifact: Path, texts: list[str], **options: Any) -> None:
    """Leaves records of a guard whose student is behind the server of `ollama_script`."""
    with OllamaServer(ollama_script) as server:
        from langchain_ollama import ChatOllama

        student = ChatOllama(model="fake", base_url=server.url)
        assert model_spec(student) == "ollama:fake"
        classifier = PLDClassifier(artifact=DistilledPrompt.load(artifact), student=student)
        watch = Guard(classifier, GuardrailPolicy(block_labels=["green"]), **options)
        for text in texts:
            watch.check(text)


def test_a_replay_with_the_same_artifact_differs_in_nothing(
    pld: Run, artifact: Path, log: Path, tmp_path: Path
) -> None:
    checked(artifact, ["an invoice", "my password", "not at hand"])
    texts = tmp_path / "texts.txt"
    texts.write_text("my password\nunrelated\nan invoice\n", encoding="utf-8")
    with OllamaServer(ollama_script) as server:
        done = pld("replay", log, "--artifact", artifact, "--texts", texts, "--all", "--json", host=server.url)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"] == {"records": 3, "without_text": 1, "same": 2, "differs": 0}
    assert [(line["label"]["now"], line["probability_change"]) for line in told["lines"]] == [
        ("amber", 0),
        ("green", 0),
    ]


def test_a_replay_shows_what_another_artifact_changes(pld: Run, artifact: Path, log: Path, tmp_path: Path) -> None:
    checked(artifact, ["an invoice", "my password"], audit=AuditTrail(text=True, key=b"k"))
    old = DistilledPrompt.load(artifact)
    rules = tuple(rule for rule in old.rules if rule.label != "green")
    without = old.model_copy(update={"rules": rules, "system_prompt": old.system_prompt.replace("password", "word")})
    changed = without.save(tmp_path / "changed.pld.json")
    policy = tmp_path / "policy.yaml"
    policy.write_text("block_labels: [green]", encoding="utf-8")
    with OllamaServer(ollama_script) as server:
        done = pld("replay", log, "--artifact", changed, "--policy", policy, host=server.url)
    assert done.exit_code == 1
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["label"] == {"then": "green", "now": "amber"}
    assert line["action"] == {"then": "block", "now": "allow"}
    assert line["artifact"] == {"then": old.id, "now": without.id}
    assert "records 2, without text 0, same 1, differs 1" in done.stderr
    assert "password" not in done.stdout


def test_keyed_records_are_found_with_their_key_alone(
    pld: Run, artifact: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked(artifact, ["an invoice"], audit=AuditTrail(key=b"k"))
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "an invoice"}\n', encoding="utf-8")
    monkeypatch.setenv("AUDIT_KEY", "k")
    with OllamaServer(ollama_script) as server:
        arguments = ("replay", log, "--artifact", artifact, "--texts", texts)
        assert "the texts of all 1 records are missing" in pld(*arguments, host=server.url).stderr
        done = pld(*arguments, "--key-env", "AUDIT_KEY", host=server.url)
    assert (done.exit_code, done.stdout) == (0, "")
    assert pld(*arguments, "--key-env", "NO_SUCH_KEY").exit_code == 2


@pytest.mark.parametrize(
    ("content", "told"), [("{", "line 1: not JSON"), ('\n{"a": 1}', "line 2: not an audit record")]
)
def test_a_log_that_is_none_is_bad_input(pld: Run, artifact: Path, tmp_path: Path, content: str, told: str) -> None:
    wrong = tmp_path / "audit.jsonl"
    wrong.write_text(content, encoding="utf-8")
    done = pld("replay", wrong, "--artifact", artifact)
    assert done.exit_code == 2
    assert told in done.stderr
