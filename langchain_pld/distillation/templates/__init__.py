"""The teacher's prompts, as text files with `$placeholders`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template

from langchain_pld.task import Task

__all__ = ["fill", "label_lines"]


def fill(name: str, **values: str) -> str:
    """The template `name` with its placeholders replaced; values are inserted as they are and not read again."""
    return _template(name).substitute(values)


def label_lines(task: Task) -> str:
    """The labels with their definitions, a line each."""
    return "\n".join(f"- {label.name}: {label.description}".removesuffix(": ") for label in task.labels)


@cache
def _template(name: str) -> Template:
    return Template(files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8"))
