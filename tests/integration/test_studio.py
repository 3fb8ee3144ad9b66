"""The repository's `langgraph.json` on a real development server, as LangGraph Studio sees it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.server import Studio, serving
from tests.teams import TASK, jsonl, ollama_script, rows

NODES = ["generate", "extract", "critique", "consolidate", "validate"]
MODELS = {"teacher": "ollama:fake", "student": "ollama:fake"}

PLAN = {"train_examples": 6, "rules_per_label": 1, "contrast_examples": 2, "trials": 0}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with serving(ollama_script, tmp_path_factory.mktemp("studio")) as served:
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


def test_the_settings_are_shown_with_descriptions_and_defaults(studio: Studio) -> None:
    context = studio.client.assistants.get_schemas(studio.assistant())["context_schema"]
    assert context is not None
    fields: dict[str, Any] = context["properties"]
    assert {name: field["default"] for name, field in fields.items()} == {
        "teacher": "embedded:qwen2.5-coder-1.5b",
        "student": "embedded:qwen2.5-coder-1.5b",
        "effort": "light",
        "seed": 0,
    }
    assert all(len(field["description"]) > 15 for field in fields.values())
    assert fields["effort"]["enum"] == ["light", "medium", "heavy"]


def test_the_input_names_the_files_and_the_output_the_artifact(studio: Studio) -> None:
    schemas = studio.client.assistants.get_schemas(studio.assistant())
    given, ended = schemas["input_schema"], schemas["output_schema"]
    assert given is not None
    assert ended is not None
    assert {"task_file", "train_file", "validation_file", "test_file", "run_id"} <= set(given["properties"])
    assert {"artifact", "finish_reason", "log"} == set(ended["properties"])


def test_a_run_on_the_server_ends_with_an_artifact_and_never_blocks_its_loop(
    studio: Studio, files: dict[str, str]
) -> None:
    thread = studio.client.threads.create()["thread_id"]
    ended = studio.client.runs.wait(
        thread, studio.assistant(), input={**files, "run_id": "whole"}, context={**MODELS, "seed": 3}
    )
    assert isinstance(ended, dict)
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


def test_the_server_streams_the_progress_of_each_node(studio: Studio, files: dict[str, str]) -> None:
    events = list(
        studio.client.runs.stream(
            None,
            studio.assistant(),
            input={**files, "run_id": "streamed", "plan": PLAN},
            context=MODELS,
            stream_mode=["custom", "updates"],
        )
    )
    updates = [next(iter(event.data)) for event in events if event.event == "updates"]
    progress = [event.data for event in events if event.event == "custom"]
    assert updates == NODES, events[-1]
    assert {event["node"] for event in progress} == {*NODES, "test"}
    assert all(event["done"] <= event["total"] for event in progress)


def test_the_task_and_the_plan_can_be_written_into_the_input_as_json(studio: Studio, files: dict[str, str]) -> None:
    given = {key: files[key] for key in ("train_file", "validation_file")}
    ended = studio.client.runs.wait(
        None,
        studio.assistant(),
        input={**given, "run_id": "inline", "task": TASK.model_dump(mode="json"), "plan": PLAN},
        context=MODELS,
    )
    assert isinstance(ended, dict)
    assert ended["artifact"]["task"]["name"] == TASK.name
    assert any("6 of 6 examples explained" in line for line in ended["log"])


def test_a_wrong_setting_ends_the_run_with_its_name(studio: Studio, files: dict[str, str]) -> None:
    ended = studio.client.runs.wait(
        None, studio.assistant(), input=files, context={**MODELS, "effort": "enormous"}, raise_error=False
    )
    assert isinstance(ended, dict)
    assert "effort" in ended["__error__"]["message"]
