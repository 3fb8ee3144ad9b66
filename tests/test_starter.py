"""`examples/starter`, copied out of the repository and used there as its README tells, with a fake Ollama server."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from langgraph_cli.config import validate_config_file
from packaging.requirements import Requirement
from typer.testing import CliRunner, Result

from langchain_pld import DistilledPrompt, Task, __version__, read_examples
from langchain_pld.cli import app
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.student.calibration import MINIMUM_ROWS
from tests.servers.fake_answers import FakeAnswer, user_text
from tests.servers.ollama import OllamaServer

STARTER = Path(__file__).parents[1] / "examples" / "starter"
ROLES: tuple[Role, ...] = ("train", "validation", "test")
LABELS = ("answer", "person", "payment")
CARD = "My card is 4929 1837 2264 0519, please book the order."


def answers(request: dict[str, Any]) -> FakeAnswer:
    """The agent where tools are offered, the teacher where JSON is asked for, elsewhere a student who sees words."""
    if request.get("tools"):
        return FakeAnswer(content="We are open until six.")
    if request.get("format"):
        about = re.search(r'label is "(\w+)"', "\n".join(message["content"] for message in request["messages"]))
        condition = f"If the text is one of the kind {about[1]}" if about else ""
        return FakeAnswer(content=json.dumps({"reason": "it says so", "condition": condition, "cues": ["words"]}))
    text = re.sub(r"FC-\d+", "", user_text(request))
    label = "payment" if len(re.findall(r"\d", text)) > 5 else "person" if "refund" in text else "answer"
    return FakeAnswer.picking({other: 0.8 if other == label else 0.1 for other in LABELS})


@pytest.fixture(scope="module")
def server() -> Iterator[OllamaServer]:
    with OllamaServer(answers) as running:
        yield running


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("elsewhere") / "support-desk"
    shutil.copytree(STARTER, home, ignore=shutil.ignore_patterns("__pycache__"))
    return home


@pytest.fixture
def desk(copied: Path, server: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The copy as the working folder, with the fake server for all models."""
    monkeypatch.chdir(copied)
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    monkeypatch.setenv("AGENT_MODEL", "ollama:fake")
    monkeypatch.syspath_prepend(str(copied))
    yield copied
    sys.modules.pop("agent", None)


def run(line: str, *more: str) -> Result:
    return CliRunner().invoke(app, [*shlex.split(line)[1:], *more])


def readme_commands() -> list[str]:
    text = (STARTER / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\$ (.+)$", text, re.MULTILINE)


def job() -> dict[str, Any]:
    """The one job of the workflow."""
    workflow = yaml.safe_load((STARTER / ".github" / "workflows" / "guard.yml").read_text(encoding="utf-8"))
    (found,) = workflow["jobs"].values()
    return dict(found)


def job_commands() -> list[str]:
    return [step["run"] for step in job()["steps"] if "run" in step]


def the(start: str, commands: list[str]) -> str:
    (found,) = (line for line in commands if line.startswith(start))
    return found


def test_its_rows_fit_its_task_and_none_plays_two_roles() -> None:
    task = Task.from_yaml(STARTER / "task.yaml")
    sets = {role: read_examples(STARTER / "data" / f"{role}.jsonl", task) for role in ROLES}
    check_roles(task, sets)
    assert task.label_names == LABELS
    assert len(sets["validation"]) >= MINIMUM_ROWS
    described = (STARTER / "data" / "README.md").read_text(encoding="utf-8")
    for role, rows in sets.items():
        counts = rows.label_counts()
        shown = " | ".join(str(count) for count in (len(rows), *(counts[label] for label in LABELS)))
        assert f"| `{role}.jsonl` | {shown} |" in described


def test_its_card_and_account_numbers_belong_to_nobody() -> None:
    files = [(STARTER / "data" / f"{role}.jsonl").read_text(encoding="utf-8") for role in ROLES]
    texts = [json.loads(line)["text"] for file in files for line in file.splitlines()]
    cards = [re.sub(r"\D", "", found) for text in texts for found in re.findall(r"\d(?:[ -]?\d){12,18}", text)]
    accounts = [found.replace(" ", "") for text in texts for found in re.findall(r"[A-Z]{2}\d\d(?: \w{1,4})+", text)]
    assert len(cards) > 20
    assert len(accounts) > 6
    assert not [card for card in cards if _luhn(card)]
    assert not [account for account in accounts if int("".join(str(int(c, 36)) for c in _turned(account))) % 97 == 1]


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _turned(account: str) -> str:
    return account[4:] + account[:4]


def test_its_own_tests_pass(copied: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=copied,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


def test_it_asks_for_this_version_and_for_extras_that_exist() -> None:
    lines = (STARTER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {found.name: found for line in lines if line[0] not in "#-" for found in [Requirement(line)]}
    ours = wanted["langchain-pld"]
    assert ours.specifier.contains(__version__)
    project = (STARTER.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in project for extra in ours.extras)
    assert "langgraph-cli" in wanted


def test_the_server_finds_the_graph_and_its_settings_are_shown() -> None:
    config = validate_config_file(STARTER / "langgraph.json")
    (described,) = config["graphs"].values()
    assert isinstance(described, dict)
    path, _, variable = described["path"].partition(":")
    code = (STARTER / path).read_text(encoding="utf-8")
    assert re.search(rf"^{variable} = ", code, re.MULTILINE)
    assert config["env"] == ".env"
    shown = (STARTER / ".env.example").read_text(encoding="utf-8")
    assert all(name in shown for name in re.findall(r'environ\.get\("(\w+)"\)', code))


@pytest.mark.parametrize("line", [line for line in readme_commands() + job_commands() if line.startswith("pld ")])
def test_a_command_is_real_and_so_are_its_files(line: str) -> None:
    group = typer.main.get_command(app)
    words = shlex.split(line.replace("$MIN_MACRO_F1", job()["env"]["MIN_MACRO_F1"]))
    with group.make_context(words[0], words[1:]) as root:
        name, command, rest = group.resolve_command(root, words[1:])  # type: ignore[attr-defined]
    command.make_context(name, rest, parent=root)  # raises for an unknown option
    files = {word for word in words if Path(word).suffix in {".yaml", ".jsonl"}}
    assert all((STARTER / file).is_file() for file in files)


def test_without_an_artifact_the_graph_tells_the_command_of_the_readme(desk: Path) -> None:
    (desk / "guard.pld.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError) as told:
        runpy.run_path(str(desk / "graph.py"))
    assert the("pld distill", readme_commands()) in str(told.value)


def test_from_the_readme_to_a_message_that_is_held_back(desk: Path, server: OllamaServer) -> None:
    models = ("--teacher", "ollama:fake", "--student", "ollama:fake")
    made = run(the("pld distill", readme_commands()), *models, "--max-calls", "100")
    assert made.exit_code == 0, made.output
    assert DistilledPrompt.load("guard.pld.json").data.keys() == set(ROLES)

    evaluation = the("pld evaluate", job_commands())
    assert run(evaluation.replace("$MIN_MACRO_F1", "0.5")).exit_code == 0
    worse = run(evaluation.replace("$MIN_MACRO_F1", "0.99"))
    assert (worse.exit_code, "is below 0.99" in worse.output) == (1, True)

    # The server, too, gives the graph a checkpointer.
    graph = runpy.run_path(str(desk / "graph.py"))["graph"].copy(update={"checkpointer": InMemorySaver()})
    config: Any = {"configurable": {"thread_id": "1"}}
    ended = graph.invoke({"messages": "When are you open?"}, config)
    assert ended["messages"][-1].text == "We are open until six."
    asked_before = len(server.requests)
    waiting = graph.invoke({"messages": CARD}, config)
    assert waiting["__interrupt__"][0].value["action_requests"][0]["args"]["text"] == CARD
    ended = graph.invoke(Command(resume={"decisions": [{"type": "reject"}]}), config)
    assert "A colleague will take care" in ended["messages"][-1].text
    assert not any((request.body or {}).get("tools") for request in server.requests[asked_before:])
