"""What `import langchain_pld` gives, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import langchain_pld

HEAVY = {
    "google",
    "langchain",
    "langchain_google_genai",
    "langchain_ollama",
    "langgraph",
    "numpy",
    "rich",
    "scipy",
    "sklearn",
    "typer",
    "xllamacpp",
}
MEASURE = """
import json, sys, time
started = time.perf_counter()
import langchain_pld
took = time.perf_counter() - started
print(json.dumps([took, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_every_public_name_can_be_had_and_no_other_is_promised() -> None:
    assert langchain_pld.__all__ == sorted(langchain_pld.__all__)
    found = {name: getattr(langchain_pld, name) for name in langchain_pld.__all__}
    assert all(value is not None for value in found.values())
    assert set(langchain_pld.__all__) <= set(dir(langchain_pld))
    classes = ["DistilledPrompt", "Example", "Label", "PLDClassifier", "Task", "Verdict"]
    assert sorted(name for name, value in found.items() if isinstance(value, type)) == classes
    assert set(langchain_pld._HOMES) | {"__version__"} == set(langchain_pld.__all__)


def test_a_star_import_brings_exactly_the_public_names() -> None:
    space: dict[str, object] = {}
    exec("from langchain_pld import *", space)
    assert set(space) - {"__builtins__"} == set(langchain_pld.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(langchain_pld, "Distiller")


def test_the_import_is_cheap_and_loads_nothing_heavy() -> None:
    runs = [_import_once() for _ in range(5)]
    assert not HEAVY & runs[0][1]
    assert min(took for took, _ in runs) < 0.050


def test_the_classifier_loads_no_graph_and_no_provider() -> None:
    code = "import sys, langchain_pld; langchain_pld.PLDClassifier; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    # httpx loads rich by itself where it is installed.
    assert not (HEAVY - {"rich"}) & set(loaded)


def _import_once() -> tuple[float, set[str]]:
    done = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True)
    took, modules = json.loads(done.stdout)
    return took, set(modules)
