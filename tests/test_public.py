"""The front door: what `langchain_pld` exports, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import langchain_pld

HEAVY = ("langgraph", "sklearn", "scipy", "numpy", "rich", "typer", "xllamacpp", "langchain_ollama", "google.genai")


@pytest.mark.parametrize("name", langchain_pld.__all__)
def test_each_exported_name_is_there(name: str) -> None:
    assert getattr(langchain_pld, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = langchain_pld.nothing  # type: ignore[attr-defined]


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time, json; start = time.perf_counter(); import langchain_pld; "
        "print(json.dumps([(time.perf_counter() - start) * 1000, sorted(sys.modules)]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(5)]
    assert not set(HEAVY) & set(runs[0][1])
    assert min(milliseconds for milliseconds, _ in runs) < 50
