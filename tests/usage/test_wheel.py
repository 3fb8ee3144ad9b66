"""The wheel, built and installed in an empty environment outside the checkout, used from another folder."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from langchain_pld import __version__
from tests.servers.ollama import OllamaModel, OllamaServer
from tests.usage.test_docs import LABELS, TASK, script

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.enable_socket]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that holds the wheel with two extras, and nothing of ours else."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *constraints, f"{wheel}[distill,ollama]"], check=True, timeout=600)
    return home / "bin"


@pytest.fixture(scope="module")
def server() -> Iterator[OllamaServer]:
    with OllamaServer(script, models=[OllamaModel(name="gemma3:4b")]) as running:
        yield running


def run(environment: Path, server: OllamaServer, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(environment / command[0]), *command[1:]],
        cwd=folder,
        env=keep | {"OLLAMA_HOST": server.url, "LANGSMITH_TRACING": "false"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_wheel_holds_the_package_and_no_test(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert "langchain_pld/py.typed" in names
    assert any(name.endswith("templates/explain.md") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"langchain_pld"}


def test_forty_rows_of_a_table_with_other_headers(environment: Path, server: OllamaServer, tmp_path: Path) -> None:
    """From somebody's own table to a verdict, in a folder that has nothing to do with the checkout."""
    rows = [(f"note {n}: {word}", label) for n in range(14) for label, word in LABELS.items()][:40]
    with (tmp_path / "inbox.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Message text", "Kind"])
        table.writerows(rows)
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")

    told = run(environment, server, tmp_path, "pld", "--version")
    assert told.stdout.split()[-1] == __version__
    where = run(environment, server, tmp_path, "python", "-c", "import langchain_pld; print(langchain_pld.__file__)")
    assert str(environment.parent) in where.stdout

    columns = ["--text-column", "Message text", "--label-column", "Kind"]
    models = ["--teacher", "ollama:gemma3:4b", "--student", "ollama:gemma3:4b"]
    done = run(environment, server, tmp_path, "pld", "distill", "task.yaml", "--data", "inbox.csv", *columns, *models,
               "--out", "inbox.pld.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run(environment, server, tmp_path, "pld", "classify", "inbox.pld.json", "You idiot!", "--json")
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["label"] == "hostile"
    done = run(environment, server, tmp_path, "pld", "classify", "inbox.pld.json", "Hi", "--student", "embedded:x.gguf")
    assert done.returncode == 2
    assert 'run: pip install "langchain-pld[embedded]"' in done.stderr


def test_the_demo_needs_no_checkout(environment: Path, server: OllamaServer, tmp_path: Path) -> None:
    done = run(environment, server, tmp_path, "pld", "demo", "--copy", "shop_inbox")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shop_inbox" / "task.yaml").is_file()
    done = run(environment, server, tmp_path, "pld", "demo", "--student", "ollama:gemma3:4b")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo.pld.json").is_file()
