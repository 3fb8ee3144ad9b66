"""The repository's `langgraph.json` on a real development server, as LangGraph Studio sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from langchain_pld import DistilledPrompt
from langchain_pld.distillation.templates import NAMES, default_text
from langchain_pld.errors import ArtifactError
from langchain_pld.models.fetch import model_path
from tests.integration.server import ROOT, Studio, serving
from tests.teams import TASK, jsonl, ollama_script, rows

NODES = ["generate", "extract", "critique", "consolidate", "validate"]
MODELS = {"teacher": "ollama:fake", "student": "ollama:fake"}
PLAN = {"train_examples": 6, "rules_per_label": 1, "contrast_examples": 2, "trials": 0}
INLINE = {
    "task": TASK.model_dump(mode="json"),
    "plan": PLAN,
    **{
        f"{role}_rows": [{"id": row.id, "text": row.input, "label": row.label} for row in rows(role, count)]
        for role, count in {"train": 18, "validation": 60}.items()
    },
}
EDITED = "If somebody asks what became of a parcel"
PARENT = """
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph
from langchain_pld import build_distillation_graph

class State(TypedDict, total=False):
    task_file: str

graph = StateGraph(State).add_node("distil", build_distillation_graph()).add_edge(START, "distil").compile()
"""
"""A graph of somebody's own, with the distillation as one of its nodes."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with serving(ollama_script, tmp_path_factory.mktemp("studio"), more={"parent": PARENT}) as served:
        yield served


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Task and rows as files, by the name of the input."""
    written = {
        "task_file": ("task.yaml", yaml.safe_dump(TASK.model_dump(mode="json", exclude_defaults=True))),
        "train_file": ("train.jsonl", jsonl(rows("train", 18))),
        "validation_file": ("validation.jsonl", jsonl(rows("validation", 60))),
        "test_file": ("test.jsonl", jsonl(rows("test", 15))),
    }
    for name, content in written.values():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return {key: str(tmp_path / name) for key, (name, _) in written.items()}


def asked(studio: Studio, since: int) -> list[str]:
    """What the teacher was asked after that many requests: the system prompts, in order."""
    bodies = [request.body for request in studio.ollama.requests[since:] if request.body]
    return [body["messages"][0]["content"] for body in bodies if body.get("format")]


def new_thread(studio: Studio) -> str:
    return str(studio.client.threads.create()["thread_id"])


def run(studio: Studio, thread: str, **given: Any) -> dict[str, Any]:
    """The end of a run, or its error under `__error__`."""
    ended = studio.client.runs.wait(thread, studio.assistant(), raise_error=False, **given)
    assert isinstance(ended, dict)
    return ended


@pytest.fixture(scope="module")
def finished(studio: Studio) -> str:
    """A thread whose run has ended; its input was JSON alone."""
    thread = new_thread(studio)
    run(studio, thread, input=INLINE, context=MODELS)
    return thread


def ended_with(studio: Studio, thread: str) -> list[dict[str, Any]]:
    """The states at the ends of a thread's branches, newest first."""
    return [dict(state["values"]) for state in studio.client.threads.get_history(thread, limit=50) if not state["next"]]


def waiting(studio: Studio, thread: str) -> dict[str, Any]:
    """What the person is asked."""
    (task,) = studio.client.threads.get_state(thread)["tasks"]
    (found,) = task["interrupts"]
    return dict(found["value"])


def decisions(request: dict[str, Any]) -> list[str]:
    """One edit, one rejection and approval of the others, as the example takes them."""
    numbers = {action["args"]["label"]: str(n) for n, action in enumerate(request["action_requests"], 1)}
    return ["--edit", f"{numbers['violet']}={EDITED}", "--reject", numbers["green"]]


def example(studio: Studio, *arguments: str) -> str:
    """What `examples/drive_with_sdk.py` says."""
    script = ROOT / "examples" / "drive_with_sdk.py"
    command = [sys.executable, str(script), "--url", studio.url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def checkpoint_before(studio: Studio, thread: str, node: str) -> Any:
    """The first checkpoint of a thread after which a node came next."""
    history = studio.client.threads.get_history(thread, limit=50)
    return next(state["checkpoint"] for state in reversed(history) if node in state["next"])


def test_the_graph_is_drawn_with_its_loop_and_its_review(studio: Studio) -> None:
    drawn = studio.client.assistants.get_graph(studio.assistant())
    assert {(edge["source"], edge["target"]) for edge in drawn["edges"]} == {
        *pairwise(["__start__", *NODES, "__end__"]),
        ("critique", "validate"),
        ("validate", "critique"),
        ("validate", "review"),
        ("review", "validate"),
        ("review", "__end__"),
    }
    assert {str(node["id"]) for node in drawn["nodes"]} == {"__start__", *NODES, "review", "__end__"}


def test_inside_another_graph_it_is_drawn_as_one_node_or_with_all_of_its_own(studio: Studio) -> None:
    (parent,) = studio.client.assistants.search(graph_id="parent")
    closed = studio.client.assistants.get_graph(parent["assistant_id"])
    opened = studio.client.assistants.get_graph(parent["assistant_id"], xray=True)
    assert {str(node["id"]) for node in closed["nodes"]} == {"__start__", "distil", "__end__"}
    assert {f"distil:{node}" for node in (*NODES, "review")} <= {str(node["id"]) for node in opened["nodes"]}
    assert ("distil:validate", "distil:critique") in {(edge["source"], edge["target"]) for edge in opened["edges"]}
    assert list(studio.client.assistants.get_subgraphs(parent["assistant_id"])) == ["distil"]


def test_every_setting_is_shown_with_what_it_is_and_at_which_nodes(studio: Studio) -> None:
    context = studio.client.assistants.get_schemas(studio.assistant())["context_schema"]
    assert context is not None
    fields: dict[str, Any] = context["properties"]
    prompts = {f"{name}_prompt": default_text(name) for name in NAMES}
    assert {name: field["default"] for name, field in fields.items()} == {
        "teacher": "embedded:qwen2.5-coder-1.5b",
        "student": "embedded:qwen2.5-coder-1.5b",
        "embeddings": "",
        "effort": "light",
        "seed": 0,
        **dict.fromkeys(["max_calls", "max_tokens", "max_usd", "max_minutes", "max_risk"]),
        "require_review": False,
        "reviewer": "",
        **prompts,
    }
    assert all(len(field["description"]) > 15 for field in fields.values())
    assert all(set(field["langgraph_nodes"]) <= {*NODES, "review"} for field in fields.values())
    assert {name for name, field in fields.items() if field.get("langgraph_type") == "prompt"} == set(prompts)
    assert fields["effort"]["enum"] == ["light", "medium", "heavy"]


def test_the_input_names_files_or_holds_rows_and_the_output_is_the_artifact(studio: Studio) -> None:
    schemas = studio.client.assistants.get_schemas(studio.assistant())
    given, ended = schemas["input_schema"], schemas["output_schema"]
    assert given is not None
    assert ended is not None
    roles = {f"{role}_{kind}" for role in ("train", "validation", "test") for kind in ("file", "rows")}
    assert {"task_file", "task", "run_id", *roles} <= set(given["properties"])
    assert set(ended["properties"]) == {"artifact", "finish_reason", "measured", "overview", "log"}


def test_a_run_on_the_server_ends_with_an_artifact_and_never_blocks_its_loop(
    studio: Studio, files: dict[str, str]
) -> None:
    thread = new_thread(studio)
    ended = run(studio, thread, input={**files, "run_id": "whole", "plan": PLAN}, context={**MODELS, "seed": 3})
    assert ended["finish_reason"] == "ceiling"
    artifact = ended["artifact"]
    assert {rule["label"] for rule in artifact["rules"]} == set(TASK.label_names)
    assert (artifact["seed"], artifact["student"]["spec"]) == (3, "ollama:fake")
    assert artifact["student"]["digest"] == "0" * 64
    assert artifact["data"]["validation"]["rows"] == 60
    assert any(card["role"] == "test" and card["name"] == "distilled" for card in artifact["scores"])
    state = studio.client.threads.get_state(thread)
    assert state["values"]["artifact"] == artifact
    assert state["next"] == []
    assert studio.lines_with("BlockingError", "Blocking call", "unregistered type", "not serializable") == []


def test_progress_and_what_each_node_made_of_it_are_streamed(studio: Studio, files: dict[str, str]) -> None:
    events = list(
        studio.client.runs.stream(
            None,
            studio.assistant(),
            input={**files, "plan": PLAN},
            context=MODELS,
            stream_mode=["custom", "updates"],
        )
    )
    updates = [next(iter(event.data.items())) for event in events if event.event == "updates"]
    progress = [event.data for event in events if event.event == "custom"]
    assert [node for node, _ in updates] == NODES, events[-1]
    assert {event["node"] for event in progress} == {*NODES, "test"}
    assert all(event["done"] <= event["total"] for event in progress)
    shown = {node: update["overview"] for node, update in updates}
    assert shown["generate"]["rows"] == {"train": 18, "validation": 60, "test": 15}
    assert shown["generate"]["labels"] == {"amber": 2, "violet": 2, "green": 2}
    assert "it says so" in shown["generate"]["explanations"][0]
    assert shown["extract"]["micro_rules"] == {"amber": 2, "violet": 2, "green": 2}
    assert len(shown["consolidate"]["rules"]) == 3
    assert "prompt" not in shown["consolidate"]
    assert "If the text is about the invoice that somebody sent -> amber (2 examples)" in shown["validate"]["rules"]
    assert "If the text is about the invoice" in shown["validate"]["prompt"]
    assert dict(updates)["validate"]["measured"]["best so far"]["macro_f1"] == 1.0
    assert dict(updates)["validate"]["measured"]["zero-shot"]["macro_f1"] < 0.5


def test_the_whole_input_can_be_written_as_json_and_the_state_stays_small(studio: Studio, finished: str) -> None:
    values = studio.client.threads.get_state(finished)["values"]
    assert values["artifact"]["task"]["name"] == TASK.name
    assert any("6 of 6 examples explained" in line for line in values["log"])
    assert values["train_rows"] == values["validation_rows"] == []
    assert values["run_id"].startswith(f"{finished}-")
    assert values["settings"] == MODELS
    assert len(json.dumps({**values, "artifact": None})) < 20_000


def test_a_wrong_row_is_named(studio: Studio) -> None:
    bad = [*INLINE["train_rows"][:2], {"text": "who knows", "label": "purple"}]
    ended = run(studio, new_thread(studio), input={**INLINE, "train_rows": bad}, context=MODELS)
    assert "train_rows, row 3: unknown label 'purple'" in ended["__error__"]["message"]


def test_a_wrong_setting_is_named_before_anything_is_asked(studio: Studio) -> None:
    before = len(studio.ollama.requests)
    wrong = {"effort": "enormous", "merge_prompt": "Merge them. $instructions $labels $tone"}
    ended = run(studio, new_thread(studio), input=INLINE, context={**MODELS, **wrong})
    assert "effort" in ended["__error__"]["message"]
    assert "merge_prompt" in ended["__error__"]["message"]
    assert "placeholders it does not know: $tone" in ended["__error__"]["message"]
    ended = run(studio, new_thread(studio), input=INLINE, context={**MODELS, "student": "gemma3"})
    assert "'gemma3' names no model" in ended["__error__"]["message"]
    assert len(studio.ollama.requests) == before


def test_a_second_run_needs_a_thread_of_its_own(studio: Studio, finished: str) -> None:
    again = run(studio, finished, input=INLINE, context=MODELS)
    assert "start another one in a new thread" in again["__error__"]["message"]


def test_a_fork_with_an_edited_prompt_asks_with_it_and_pays_for_nothing_before(studio: Studio, finished: str) -> None:
    first = ended_with(studio, finished)
    fork = checkpoint_before(studio, finished, "consolidate")
    before = len(studio.ollama.requests)
    edited = f"{default_text('merge')}\nBe brief, as on a telegram."
    run(studio, finished, input=None, checkpoint=fork, context={"merge_prompt": edited})
    questions = asked(studio, before)
    assert questions
    assert all(question.endswith("Be brief, as on a telegram.") for question in questions)
    values = studio.client.threads.get_state(finished)["values"]
    assert values["settings"] == {**MODELS, "merge_prompt": edited}
    # Both ends stand in the thread's history.
    assert ended_with(studio, finished)[-len(first) :] == first
    assert len(ended_with(studio, finished)) == len(first) + 1


def test_a_fork_from_the_beginning_leaves_what_the_first_run_found_out(studio: Studio, finished: str) -> None:
    first = ended_with(studio, finished)[-1]
    begin = checkpoint_before(studio, finished, "generate")
    extract = checkpoint_before(studio, finished, "extract")
    run(studio, finished, input=None, checkpoint=begin, context={**MODELS, "seed": 9})
    forked = studio.client.threads.get_state(finished)["values"]
    assert forked["run_id"] != first["run_id"]
    assert forked["artifact"]["seed"] == 9
    before = len(studio.ollama.requests)
    run(studio, finished, input=None, checkpoint=extract)
    again = studio.client.threads.get_state(finished)["values"]
    assert again["run_id"] == first["run_id"]
    assert again["artifact"]["rules"] == first["artifact"]["rules"]
    assert asked(studio, before) == []


@pytest.mark.model
def test_a_student_inside_the_server_does_not_block_it(studio: Studio) -> None:
    model_path("smollm2-135m")  # the run itself fetches nothing
    given = {**INLINE, "validation_rows": INLINE["validation_rows"][:15]}
    student = "embedded:smollm2-135m"
    ended = run(studio, new_thread(studio), input=given, context={**MODELS, "student": student})
    assert ended["artifact"]["student"]["spec"] == student
    assert all(card["prompt_tokens"] for card in ended["artifact"]["scores"] if card["role"] == "validation")
    assert studio.lines_with("BlockingError", "Blocking call") == []


def test_a_run_that_waits_for_its_reviewer_outlives_the_server_and_can_be_answered_twice(
    studio: Studio, tmp_path: Path
) -> None:
    thread = new_thread(studio)
    ended = run(studio, thread, input=INLINE, context={**MODELS, "require_review": True, "reviewer": "Imre Stahl"})
    with pytest.raises(ArtifactError, match="review"):
        DistilledPrompt.model_validate(ended["artifact"]).require_usable()
    request = waiting(studio, thread)
    assert {tuple(config["allowed_decisions"]) for config in request["review_configs"]} == {
        ("approve", "edit", "reject", "respond")
    }
    assert all(action["args"]["texts"] for action in request["action_requests"])

    studio.start_again()
    assert waiting(studio, thread) == request
    # Whoever answers, an inbox for instance, need not know with which settings the run began.
    before = len(studio.ollama.requests)
    out = tmp_path / "signed.pld.json"
    said = example(studio, "answer", thread, *decisions(request), "--out", str(out))
    assert "signed: Ilka Ferrand: 1 approved, 1 edited, 1 rejected" in said
    assert asked(studio, before) == []
    loaded = DistilledPrompt.load(out)
    loaded.require_usable()
    assert loaded.review is not None
    assert loaded.review.reviewer == "Ilka Ferrand"
    assert {rule.label for rule in loaded.rules} == {"amber", "violet"}
    assert EDITED in {rule.condition for rule in loaded.rules}
    assert (loaded.student.spec, loaded.finish_reason) == ("ollama:fake", "reviewed")

    run(studio, thread, input=None, checkpoint=checkpoint_before(studio, thread, "review"))
    assert waiting(studio, thread) == request
    otherwise = run(studio, thread, command={"resume": {"decisions": {"type": "approve"}}})["artifact"]
    assert {rule["label"] for rule in otherwise["rules"]} == set(TASK.label_names)
    assert otherwise["review"]["reviewer"] == "Imre Stahl"  # the answer did not say who gave it, the settings did
    assert studio.lines_with("BlockingError", "Blocking call", "unregistered type", "not serializable") == []
