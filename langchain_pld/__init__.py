"""Prompt-Level Distillation for LangChain: readable rules that let a small local model guard an agent.

`distill` turns labelled examples into an artifact, a `DistilledPrompt`; `PLDClassifier` is the Runnable that decides
with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from langchain_pld._version import __version__

if TYPE_CHECKING:
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.distill import adistill, adistill_many, distill, distill_many
    from langchain_pld.distillation.graph import build_distillation_graph
    from langchain_pld.examples import Example, read_examples
    from langchain_pld.models.resolve import resolve_chat_model
    from langchain_pld.student.classifier import PLDClassifier
    from langchain_pld.task import Label, Task
    from langchain_pld.verdict import Verdict

__all__ = [
    "DistilledPrompt",
    "Example",
    "Label",
    "PLDClassifier",
    "Task",
    "Verdict",
    "__version__",
    "adistill",
    "adistill_many",
    "build_distillation_graph",
    "distill",
    "distill_many",
    "read_examples",
    "resolve_chat_model",
]

_HOMES = {
    "DistilledPrompt": "artifact",
    "Example": "examples",
    "Label": "task",
    "PLDClassifier": "student.classifier",
    "Task": "task",
    "Verdict": "verdict",
    "adistill": "distillation.distill",
    "adistill_many": "distillation.distill",
    "build_distillation_graph": "distillation.graph",
    "distill": "distillation.distill",
    "distill_many": "distillation.distill",
    "read_examples": "examples",
    "resolve_chat_model": "models.resolve",
}


# Names are loaded on first use: langgraph alone takes a second, which a process that only classifies does not need.
def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
