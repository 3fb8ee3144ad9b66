"""What the base install can do without any extra, and which extra each other thing asks for.

Runs in a process of its own in which the packages of the extras cannot be imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from langchain_pld import DistilledPrompt, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.student.prompt import compile_prompt

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WITHOUT_EXTRAS = f"""
import sys
for module in {[
    "sklearn", "scipy", "numpy", "threadpoolctl", "joblib", "jsonschema", "aiosqlite", "sqlite_vec",
    "langgraph.checkpoint.sqlite", "langgraph.store.sqlite", "genai_prices", "xllamacpp", "ollama", "langchain_ollama",
    "google.genai", "langchain_google_genai", "langchain", "psycopg", "opentelemetry",
]!r}:
    sys.modules[module] = None
"""  # fmt: skip
MODEL = """
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
top = [{"token": "yes", "logprob": -1.0}, {"token": "no", "logprob": -0.5}]
answer = AIMessage("no", response_metadata={"logprobs": {"content": [{"token": "no", "top_logprobs": top}]}})
student = GenericFakeChatModel(messages=iter([answer] * 9))
"""


def alone(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A calibrated artifact: the student prefers "no", the calibration turns that around."""
    task = Task(name="mood", instructions="Decide.", labels=[{"name": "yes"}, {"name": "no"}])
    words = AnswerFormat.words(task)
    path = tmp_path / "mood.pld.json"
    DistilledPrompt(
        task=task,
        system_prompt=compile_prompt(task, (), words),
        answer=words,
        calibration=Calibration(
            method="affine", labels=("yes", "no"), weights=((1.0, 0.0), (0.0, 1.0)), bias=(2.0, 0.0), rows=60
        ),
        student=ModelFingerprint(spec="generic-fake-chat-model:GenericFakeChatModel"),
    ).save(path)
    return path


def test_a_calibrated_artifact_decides_without_an_extra(artifact: Path) -> None:
    program = f"""{MODEL}
from langchain_pld import PLDClassifier
verdict = PLDClassifier.from_artifact(sys.argv[1], student=student).invoke("Thanks!")
print(verdict.status, verdict.label, round(verdict.probabilities["yes"], 2))
"""
    ran = alone(program, str(artifact))
    assert (ran.returncode, ran.stdout) == (0, "decided yes 0.82\n"), ran.stderr


def test_a_guard_a_node_and_a_chain_work_without_an_extra(artifact: Path) -> None:
    program = f"""{MODEL}
from langchain_core.runnables import RunnableLambda
from langchain_pld import PLDClassifier
from langchain_pld.guardrail import Guard, GuardrailPolicy, create_guardrail_graph, guarded, guardrail_node
policy = GuardrailPolicy(**{{next(n for n in GuardrailPolicy.model_fields if n.startswith("block")): ["yes"]}})
guard = Guard(PLDClassifier.from_artifact(sys.argv[1], student=student), policy)
assert callable(guardrail_node) and callable(create_guardrail_graph)
print(guarded(RunnableLambda(lambda text: "reached"), input_guards=guard).invoke("Thanks!"))
"""
    ran = alone(program, str(artifact))
    assert ran.returncode == 0, ran.stderr
    assert "reached" not in ran.stdout


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        ("import langchain_pld; langchain_pld.distill", "distill"),
        ("from langchain_pld.student.calibration import fit_calibration", "distill"),
        ("from langchain_pld.student.gates import fit_gate", "distill"),
        ("import langchain_pld.evaluation.evaluate", "distill"),
        ("import langchain_pld as pld; pld.resolve_chat_model('batch:answers')", "distill"),
        ("import langchain_pld as pld; pld.resolve_chat_model('embedded:smollm2-135m')", "embedded"),
        ("import langchain_pld as pld; pld.resolve_chat_model('ollama:gemma3:4b')", "ollama"),
        ("import langchain_pld as pld; pld.resolve_chat_model('google_genai:gemini-2.5-pro')", "google"),
        ("import langchain_pld as pld; pld.resolve_chat_model('openai:gpt-5')", "agents"),
        ("from langchain_pld.guardrail import PLDGuardrailMiddleware", "agents"),
        ("from langchain_pld.guardrail import GuardTelemetry; GuardTelemetry()", "otel"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(use: str, extra: str) -> None:
    program = f"""
from langchain_pld.errors import MissingExtraError
try:
    {use}
except MissingExtraError as error:
    print(error)
"""
    ran = alone(program)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.rstrip().endswith(f'pip install "langchain-pld[{extra}]"')


@pytest.mark.parametrize("command", [["demo"], ["distill", "--help"], ["evaluate", "--help"], ["models", "list"]])
def test_the_command_line_starts_without_an_extra(command: list[str], tmp_path: Path) -> None:
    program = "from langchain_pld.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS + program, *command],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if command == ["demo"]:
        assert ran.returncode == 2
        assert 'run: pip install "langchain-pld[' in ran.stderr
    else:
        assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr


def test_each_extra_is_part_of_all() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(extras) - {"all"}


def test_nothing_heavy_stands_in_the_base() -> None:
    base = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not base & {"scipy", "scikit-learn", "numpy", "langchain-google-genai", "langchain-ollama", "langchain"}


def test_the_metadata_names_authors() -> None:
    assert json.dumps(PROJECT["authors"]) == '[{"name": "langchain-pld authors"}]'
