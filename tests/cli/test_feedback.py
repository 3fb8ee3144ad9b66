"""`pld feedback import`: people's answers to a guard, from its audit log and its Store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.sqlite import SqliteStore
from langgraph.types import Command
from typer.testing import CliRunner

from langchain_pld.cli import app
from langchain_pld.distillation.roles import text_key
from langchain_pld.examples import read_examples
from langchain_pld.guardrail import AuditWriter, create_guardrail_graph
from langchain_pld.guardrail.audit import AuditTrail, input_hash
from tests.cli.conftest import Run
from tests.guardrail.factories import POLICY, mood_guard
from tests.student.small_artifact import TASK

ASKS = POLICY.model_copy(update={"on_violation": "interrupt"})


class State(MessagesState):
    guardrail: dict[str, Any]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "mood.yaml"
    path.write_text(yaml.safe_dump(TASK.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    return path


def asked(
    texts: Iterable[str], *, log: Path, store: Path | None = None, answer: str = "sad", trail: AuditTrail | None = None
) -> None:
    """A guardrail graph blocks each text, and a person says what its label is."""
    builder = StateGraph(State)
    watch = mood_guard(policy=ASKS, audit=trail or AuditTrail(text=True))
    builder.add_node("guard", create_guardrail_graph(watch))
    builder.add_edge(START, "guard")
    with (
        AuditWriter(logging.FileHandler(log), background=False),
        SqliteStore.from_conn_string(str(store) if store else ":memory:") as kept,
    ):
        kept.setup()
        graph = builder.compile(checkpointer=InMemorySaver(), store=kept)
        for number, text in enumerate(texts):
            config = {"configurable": {"thread_id": str(number)}}
            graph.invoke({"messages": [HumanMessage(text)]}, config)  # type: ignore[arg-type]
            resume = Command(resume={"decisions": [{"type": "respond", "message": answer}]})
            graph.invoke(resume, config)  # type: ignore[arg-type]


def rows(path: Path) -> list[tuple[str, str]]:
    return [(row["text"], row["label"]) for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def jsonl(path: Path, texts: Iterable[str], label: str = "glad") -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_answers_from_log_and_store_become_rows_once_and_never_those_of_other_roles(
    pld: Run, task: Path, tmp_path: Path
) -> None:
    log, store, out = tmp_path / "audit.jsonl", tmp_path / "store.sqlite", tmp_path / "new.jsonl"
    asked(["my grief", "grief\u2028again", "so much grief", "old grief"], log=log, store=store)
    validation = jsonl(tmp_path / "validation.jsonl", ["SO  much grief"])
    test = jsonl(tmp_path / "test.jsonl", ["Old grief "])
    sources = ("--audit", log, "--store", store)
    done = pld("feedback", "import", "--task", task, *sources, "--validation", validation, "--test", test, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert sorted(rows(out)) == [("grief\u2028again", "sad"), ("my grief", "sad")]
    assert [row.id[:7] for row in read_examples(out, TASK)] == ["person-"] * 2
    told = done.stdout.splitlines()
    assert "8 answers of people" in told
    assert "4 that repeat another" in told
    assert "1 texts that are validation rows, left out" in told
    assert told[-1] == "2 rows written"


def test_texts_are_found_by_the_keyed_hashes_of_a_log_that_holds_none(
    pld: Run, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = tmp_path / "audit.jsonl", tmp_path / "new.jsonl"
    asked(["my grief", "lost grief"], log=log, trail=AuditTrail(key=b"secret"))
    texts = jsonl(tmp_path / "texts.jsonl", ["my grief", "a joy"])
    arguments = ("feedback", "import", "--task", task, "--audit", log, "--texts", texts, "--out", out, "--json")
    monkeypatch.setenv("AUDIT_KEY", "secret")
    done = pld(*arguments, "--key-env", "AUDIT_KEY")
    assert done.exit_code == 0, done.stderr
    assert rows(out) == [("my grief", "sad")]
    report = json.loads(done.stdout)
    assert (report["counts"]["without_text"], report["counts"]["written"], report["labels"]) == (1, 1, {"sad": 1})
    assert "without --validation and --test nobody can tell" in done.stderr
    assert json.loads(pld(*arguments).stdout)["counts"]["without_text"] == 2


def test_people_who_disagree_make_no_row_and_a_later_answer_replaces_an_earlier_one(
    pld: Run, task: Path, tmp_path: Path
) -> None:
    one, other, out = tmp_path / "one.jsonl", tmp_path / "other.jsonl", tmp_path / "new.jsonl"
    asked(["my grief", "old grief"], log=one, answer="sad")
    asked(["old grief"], log=one, answer="calm")
    asked(["MY grief"], log=other, answer="glad")
    done = pld("feedback", "import", "--task", task, "--audit", one, "--audit", other, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert rows(out) == [("old grief", "calm")]
    assert "people gave different labels: sad, glad" in done.stderr
    assert "1 texts with different labels, left out" in done.stdout


def record(**changes: Any) -> str:
    made = {"event": "person", "guard": "mood", "answer": "respond", "label": "sad", "text": "grief"}
    return json.dumps({**made, "input_hash": input_hash(str(changes.get("text"))), **changes})


def test_only_readable_answers_about_this_task_count(pld: Run, task: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "audit.jsonl", tmp_path / "new.jsonl"
    lines = [
        record(text="first"),
        record(text="of another guard", guard="other"),
        record(text="no label", label=None),
        record(text="a strange label", label="angry"),
        record(text="not understood", answer="unreadable"),
        record(text="a check", event="check"),
        record(text=" "),
    ]
    log.write_text("\n".join([*lines, ""]), encoding="utf-8")
    done = pld("feedback", "import", "--task", task, "--audit", log, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert rows(out) == [("first", "sad")]
    assert "2 that give no label of the task" in done.stdout
    assert "the text is empty" in done.stderr
    again = pld("feedback", "import", "--task", task, "--audit", log, "--out", out, "--guard", "other")
    assert again.exit_code == 0
    assert rows(out) == [("of another guard", "sad")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "line 1: not JSON"), ("[]", "line 1: not an audit record"), ('{"x": 1}', "line 1: not an audit record")],
)
def test_a_log_that_is_none_is_refused(pld: Run, task: Path, tmp_path: Path, content: str, expected: str) -> None:
    log, out = tmp_path / "audit.jsonl", tmp_path / "new.jsonl"
    log.write_text(content, encoding="utf-8")
    done = pld("feedback", "import", "--task", task, "--audit", log, "--out", out)
    assert done.exit_code == 2
    assert expected in done.stderr
    assert not out.exists()


def test_a_store_that_is_none_and_a_call_without_a_source_are_refused(pld: Run, task: Path, tmp_path: Path) -> None:
    arguments = ("feedback", "import", "--task", task, "--out", tmp_path / "new.jsonl")
    no_store = tmp_path / "no.sqlite"
    no_store.write_text("this is no database, whatever its name may say", encoding="utf-8")
    assert "is no SQLite Store of LangGraph" in pld(*arguments, "--store", no_store).stderr
    assert "no Store at" in pld(*arguments, "--store", tmp_path / "missing.sqlite").stderr
    assert not (tmp_path / "missing.sqlite").exists()
    none = pld(*arguments)
    assert none.exit_code == 2
    assert "nothing to import from" in none.stderr


def test_a_log_without_answers_is_told(pld: Run, task: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text("", encoding="utf-8")
    done = pld("feedback", "import", "--task", task, "--audit", log, "--out", tmp_path / "new.jsonl")
    assert done.stdout == "0 answers of people\n0 rows written\n"


words = st.sampled_from(["grief", "GRIEF", " grief", "ｇrief", "a  day", "A day", "joy\n", "joy"])


@settings(deadline=None, max_examples=25)
@given(
    answers=st.lists(st.tuples(words, st.sampled_from(["glad", "sad", "calm"])), max_size=8),
    forbidden=st.lists(words, min_size=1, max_size=3),
)
def test_whatever_people_said_rows_are_unique_agreed_and_in_no_other_file(
    answers: list[tuple[str, str]], forbidden: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("import")
    log, out = folder / "audit.jsonl", folder / "new.jsonl"
    lines = [record(text=text, label=label) for text, label in answers]
    log.write_text("\n".join(lines), encoding="utf-8")
    task_file = folder / "mood.yaml"
    task_file.write_text(yaml.safe_dump(TASK.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    test = jsonl(folder / "test.jsonl", forbidden)
    arguments = ["feedback", "import", "--task", task_file, "--audit", log, "--test", test, "--out", out]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.stderr
    keys = [text_key(TASK, text) for text, _ in rows(out)]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {text_key(TASK, text) for text in forbidden}
    for text, label in rows(out):
        last = {said: given_label for said, given_label in answers if text_key(TASK, said) == text_key(TASK, text)}
        assert set(last.values()) == {label}
