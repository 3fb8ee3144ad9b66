"""Every Python and console block of README, docs and examples is run as it stands; text blocks are what that prints.

The blocks of a page share their names, as if they were pasted one after the other, in a folder that holds what a user
has by then: the examples, a task with rows, an artifact, a policy. Models of Ollama are behind a loopback server, asked
by the real client. A command that takes a server, a download or minutes is run by another test, named in `ELSEWHERE`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.sqlite import SqliteStore
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from langchain_pld import DistilledPrompt, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.guardrail import AuditWriter, Guard, GuardrailPolicy
from langchain_pld.models.catalogue import DEFAULT_MODEL, catalogue_entry
from langchain_pld.models.fetch import cached_model
from langchain_pld.student.prompt import compile_prompt
from tests.cli.conftest import TASK_YAML as TEAMS_YAML
from tests.servers.fake_answers import FakeAnswer, user_text
from tests.servers.ollama import OllamaModel, OllamaServer
from tests.shop_inbox import shop_student
from tests.teams import jsonl, rows

ROOT = Path(__file__).parents[2]
PLD = Path(sys.executable).parent / "pld"
README = ROOT / "README.md"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)
# What starts like this is run by that test, or cannot be.
ELSEWHERE = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "pip install": "tests/usage/test_wheel.py",
    "python3 -m venv": "tests/usage/test_wheel.py",
    r"pld demo(?!.*--copy)": ".ci/run",
    "langgraph dev": "tests/integration/test_graphs.py",
    "export LANG": "tests/integration/server.py",
    "python examples/agent_transcript.py": "tests/test_examples_scripts.py",
    "python examples/drive_with_sdk.py": "tests/integration/test_studio.py",
    "python -m tests.benchmarks": "tests/benchmarks/test_help.py",
    "python -m tests.mutation": "tests/mutation/__main__.py",
    "git clone": "",
    r"\. \.venv/bin/activate": "",
}
# Pages whose commands have a test file of their own.
OWN_TEST = {"examples/starter/README.md": "tests/test_starter.py"}
LABELS = {"ordinary": "lunch", "private": "ill", "hostile": "idiot"}
TASK = """\
name: chat
instructions: Decide of what kind a message is.
labels:
  - {name: ordinary, description: Everyday work.}
  - {name: private, description: It tells of somebody's health.}
  - {name: hostile, description: It insults somebody.}
"""


def script(request: dict[str, Any]) -> FakeAnswer:
    """Teacher where JSON is asked for; elsewhere a student who knows a word a label, and takes the first otherwise."""
    if request.get("format"):
        about = re.search(r'label is "(\w+)"', "\n".join(message["content"] for message in request["messages"]))
        condition = f"If the text is of the kind {about[1]}" if about else ""
        why = {"reason": "it says so", "shared": "the words", "condition": condition, "cues": ["words"]}
        return FakeAnswer(content=json.dumps(why | {"settlements": [], "cause": "so", "edits": [], "drop": []}))
    asked = re.search(r"Answer with exactly one word: (.+)\.", request["messages"][0]["content"])
    if asked is None:
        return FakeAnswer(content="Lunch is at noon.")
    words = re.split(", | or ", asked[1])
    text = user_text(request).lower()
    found = next((word for word in words if LABELS.get(word, "\n") in text), words[0])
    return FakeAnswer.picking({word: 0.8 if word == found else 0.2 / len(words) for word in words})


@pytest.fixture(scope="module")
def server() -> Iterator[OllamaServer]:
    names = ("fake:latest", "gemma3:1b", "gemma3:4b", "qwen3:4b")
    with OllamaServer(script, models=[OllamaModel(name=name) for name in names]) as running:
        yield running


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `pld demo` ran, with a scripted student."""
    folder = tmp_path_factory.mktemp("demo")
    with OllamaServer(shop_student) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OLLAMA_HOST", server.url)
        subprocess.run([PLD, "demo", "--student", "ollama:fake"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path, server: OllamaServer, demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a user has who reads a page, as the working folder."""
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "chat.yaml").write_text(TASK, encoding="utf-8")
    for role in ("train", "validation", "test"):
        rows = [(f"{role} note {n}: {word}", label) for n in range(20) for label, word in LABELS.items()]
        lines = [
            json.dumps({"id": f"{role}-{n}", "text": text, "label": label}) for n, (text, label) in enumerate(rows)
        ]
        (tmp_path / f"{role}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task = Task.from_yaml(tmp_path / "chat.yaml")
    words = AnswerFormat.words(task)
    DistilledPrompt(
        task=task,
        system_prompt=compile_prompt(task, (), words),
        answer=words,
        calibration=Calibration.identity(task.label_names),
        student=ModelFingerprint(spec="ollama:gemma3:4b"),
    ).save(tmp_path / "chat.pld.json")
    page = (ROOT / "docs" / "guardrail.md").read_text(encoding="utf-8")
    (tmp_path / "policy.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    guard = Guard(PLDClassifier.from_artifact("chat.pld.json"), GuardrailPolicy.from_yaml("policy.yaml"))
    with AuditWriter(logging.FileHandler("audit.jsonl"), background=False):
        guard.check("When is lunch?")
    with SqliteStore.from_conn_string("store.sqlite") as store:
        store.setup()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_block(language: str) -> list[Any]:
    found = [page for page in PAGES if f"```{language}\n" in page.read_text(encoding="utf-8")]
    return [pytest.param(page, id=name_of(page)) for page in found]


@pytest.mark.filterwarnings("default::UserWarning")  # another student than the artifact's own is warned about
@pytest.mark.parametrize("page", with_block("python"))
def test_python_blocks_run_when_pasted(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compare(example: Example) -> None:
        """A block of text behind a Python block is what that one prints."""
        assert capsys.readouterr().out == example.parsed

    shown = CodeBlockParser(language="text", evaluator=compare)
    document: Document = Sybil([PythonCodeBlockParser(), shown]).parse(page)
    for example in document.examples():
        example.evaluate()


def commands(page: Path) -> list[str]:
    """Each command of a page; `a && b` and `a | b` stay one."""
    blocks = CONSOLE.findall(page.read_text(encoding="utf-8"))
    return [found for block in blocks for found in COMMAND.findall(block)]


def elsewhere(command: str) -> str | None:
    return next((test for start, test in ELSEWHERE.items() if re.match(start, command)), None)


def run(command: str, folder: Path) -> None:
    """Run a command of a page with models of the loopback server, or see that another test does."""
    where = elsewhere(command)
    if where is not None:
        assert not where or (ROOT / where).exists(), f"{where} runs {command}"
        return
    line = re.sub(r" +# .*", "", command)
    if line.startswith("pld distill"):
        line += " --teacher ollama:fake" + (" --student ollama:fake" if "--student" not in line else "")
    if line.startswith("pld review"):
        line += ' --accept-all --reviewer "Ilka Ferrand"'
    if line.startswith("python examples/"):
        line += " ollama:fake"
    ran = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("page", with_block("console"))
def test_console_blocks_run_as_they_stand(page: Path, folder: Path) -> None:
    if name_of(page) in OWN_TEST:
        assert (ROOT / OWN_TEST[name_of(page)]).is_file()
        return
    found = commands(page)
    assert found, "a console block without a command"
    for command in found:
        run(command, folder)


@pytest.mark.model
@pytest.mark.filterwarnings("default::UserWarning")
def test_the_readme_works_when_pasted_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python and console blocks in their order, the first lines with the real default model."""
    if cached_model(catalogue_entry(DEFAULT_MODEL)) is None:
        pytest.skip("`make demo` fetches the model of 1.1 GB that the first lines use")

    def compare(example: Example) -> None:
        assert capsys.readouterr().out == example.parsed

    def paste(example: Example) -> None:
        for command in COMMAND.findall(example.parsed):
            run(command, folder)

    parsers = [
        PythonCodeBlockParser(),
        CodeBlockParser(language="text", evaluator=compare),
        CodeBlockParser(language="console", evaluator=paste),
    ]
    for example in Sybil(parsers).parse(README).examples():
        example.evaluate()


def test_the_estimate_of_the_page_is_what_the_command_prints(folder: Path) -> None:
    block = (ROOT / "docs" / "running.md").read_text(encoding="utf-8").partition("```\n")[2].partition("```")[0]
    (folder / "teams.yaml").write_text(TEAMS_YAML, encoding="utf-8")
    (folder / "prices.yaml").write_text("ollama:fake: {input: 1.25, output: 10}\n", encoding="utf-8")
    for role, count in {"train": 18, "validation": 57, "test": 21}.items():
        (folder / f"{role}.jsonl").write_text(jsonl(rows(role, count)), encoding="utf-8")
    command, _, shown = block.removeprefix("$ ").partition("\nPlan:")
    line = f"{command} --dry-run"
    ran = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    printed = {line.rstrip() for line in ran.stdout.splitlines()}
    assert [line for line in shown.splitlines()[1:-1] if line not in printed] == []


def test_the_review_of_the_page_is_what_the_command_prints(folder: Path) -> None:
    page = (ROOT / "docs" / "review.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith(("Rule ", "    train-", "    cues: "))]
    assert len(shown) > 6
    command = ["pld", "review", "demo.pld.json", "--train", "shop_inbox/train.jsonl", "--out", "signed.pld.json"]
    subprocess.run(["pld", "demo", "--copy", "shop_inbox"], cwd=folder, check=True, capture_output=True)
    answers = "Ilka Ferrand\n" + "a\n" * 12
    environment = {**os.environ, "COLUMNS": "120"}
    ran = subprocess.run(
        command, cwd=folder, input=answers, capture_output=True, text=True, env=environment, check=True
    )
    printed = {line.rstrip() for line in ran.stderr.splitlines()}
    assert [line for line in shown if line not in printed] == []


def test_benchmark_commands_name_options_that_there_are() -> None:
    """Too long to run here; that they start is another test's."""
    for page in PAGES:
        for command in commands(page):
            words = shlex.split(command.replace("\\\n", " "), comments=True)
            if words[:2] == ["python", "-m"] and words[2].startswith("tests."):
                source = (ROOT / words[2].replace(".", "/")).with_suffix(".py")
                source = source if source.is_file() else ROOT / words[2].replace(".", "/") / "__main__.py"
                text = source.read_text(encoding="utf-8")
                assert not [word for word in words if word.startswith("--") and f'"{word}"' not in text], command


def test_links_lead_somewhere() -> None:
    """Links to files; a heading behind `#` is not looked for."""
    for page in (README, *PAGES):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("line", ["make demo", "make test"])
def test_the_fresh_check_runs_the_commands_of_the_readme(line: str) -> None:
    assert f"\n{line}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert line in README.read_text(encoding="utf-8")
