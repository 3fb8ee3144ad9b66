"""The repository's `langgraph.json` on a real development server, as LangGraph Studio sees it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from tests.servers.ollama import OllamaServer
from tests.teams import TASK, jsonl, ollama_script, rows

ROOT = Path(__file__).parents[2]
NODES = ["generate", "extract", "critique", "consolidate", "validate"]
ENVIRONMENT = {
    "LANGSMITH_TRACING": "false",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGGRAPH_NO_VERSION_CHECK": "1",
    "LANGGRAPH_STRICT_MSGPACK": "true",
}
MODELS = {"teacher": "ollama:fake", "student": "ollama:fake"}

PLAN = {"train_examples": 6, "rules_per_label": 1, "contrast_examples": 2, "eliminations": 0}


@dataclass(frozen=True)
class Studio:
    """A running development server."""

    client: SyncLangGraphClient
    log: Path
    ollama: OllamaServer

    def assistant(self) -> str:
        return str(self.client.assistants.search(graph_id="distillation")[0]["assistant_id"])

    def lines_with(self, *words: str) -> list[str]:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    # In a copy, since the server writes its state beside the configuration.
    home = tmp_path_factory.mktemp("studio")
    shutil.copy(ROOT / "langgraph.json", home)
    shutil.copytree(ROOT / "graphs", home / "graphs")
    port, log = _free_port(), home / "server.log"
    command = [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload"]
    with OllamaServer(ollama_script) as ollama, log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env={**os.environ, **ENVIRONMENT, "OLLAMA_HOST": ollama.url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_it_answers(f"{url}/ok", process, log)
            with get_sync_client(url=url) as client:
                yield Studio(client, log, ollama)
        finally:
            # The session of its own holds whatever the server started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


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


def test_the_graph_is_drawn_with_its_five_nodes_in_order(studio: Studio) -> None:
    drawn = studio.client.assistants.get_graph(studio.assistant())
    following = {edge["source"]: edge["target"] for edge in drawn["edges"]}
    path, node = [], "__start__"
    while node in following:
        node = following[node]
        path.append(node)
    assert path == [*NODES, "__end__"]
    assert len(drawn["edges"]) == len(NODES) + 1
    assert {str(node["id"]) for node in drawn["nodes"]} == {"__start__", *NODES, "__end__"}


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
    assert ended["finish_reason"] == "converged"
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    msg = f"the development server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}"
    raise RuntimeError(msg)
