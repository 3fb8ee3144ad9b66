"""`pld models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.models.fetch import model_path
from tests.cli.conftest import Run
from tests.models.conftest import SMALL_MODEL, small_model

__all__ = ["small_model"]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LANGCHAIN_PLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("empty_cache")
def test_the_list_tells_size_licence_and_what_is_there(pld: Run) -> None:
    shown = pld("models", "list").stdout
    row = next(line.split() for line in shown.splitlines() if SMALL_MODEL in line)
    assert row[:5] == [SMALL_MODEL, "98", "MB", "no", "Apache-2.0"]
    (entry,) = [
        one for one in json.loads(pld("models", "list", "--json").stdout)["models"] if one["name"] == SMALL_MODEL
    ]
    assert (entry["bytes"], entry["cached"]) == (98_362_432, False)


@pytest.mark.usefixtures("empty_cache")
def test_the_path_of_a_model_that_is_not_there_is_a_failed_check(pld: Run) -> None:
    done = pld("models", "path", SMALL_MODEL)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"pld models fetch {SMALL_MODEL}" in done.stderr


def test_a_wrong_file_is_refused_with_its_hash(pld: Run, empty_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.gguf").write_bytes(b"GGUF, but another")
    done = pld("models", "fetch", SMALL_MODEL, "--from", tmp_path / "wrong.gguf")
    assert done.exit_code == 2
    assert "has SHA-256" in done.stderr
    assert not list(empty_cache.glob("*.gguf"))


@pytest.mark.parametrize("command", ["fetch", "path"])
def test_an_unknown_name_is_bad_use(pld: Run, command: str) -> None:
    done = pld("models", command, "nothing")
    assert done.exit_code == 2
    assert "no embedded model is called 'nothing'; there are: qwen2.5-coder-1.5b, " in done.stderr


@pytest.mark.model
def test_a_fetched_model_is_where_path_says(pld: Run, small_model: EmbeddedChatModel, empty_cache: Path) -> None:
    source = Path(str(pld("models", "path", SMALL_MODEL).stdout).strip())
    assert not source.name, "the cache of this test is empty at first"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LANGCHAIN_PLD_CACHE")
        source = model_path(SMALL_MODEL)
    fetched = pld("models", "fetch", SMALL_MODEL, "--from", source)
    assert fetched.exit_code == 0, fetched.stderr
    assert "assemble smollm2-135m (MB): 99/99 in" in fetched.stderr
    assert Path(fetched.stdout.strip()).parent == empty_cache
    assert pld("models", "path", SMALL_MODEL).stdout == fetched.stdout
