"""The teacher's prompts, text files with `$placeholders`; a run may replace each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from string import Template
from types import MappingProxyType

from langchain_pld.task import Task

__all__ = ["NAMES", "check_placeholders", "default_text", "fill", "label_lines", "use_wording"]

NAMES = ("explain", "vote", "invent", "judge", "merge", "settle", "revise", "words")
"""The templates, in the order of a run."""

_wording: ContextVar[Mapping[str, str]] = ContextVar("templates", default=MappingProxyType({}))


def fill(name: str, **values: str) -> str:
    """The template `name` with its placeholders replaced; placeholders inside values are left alone."""
    return Template(_wording.get().get(name) or default_text(name)).substitute(values)


@contextmanager
def use_wording(texts: Mapping[str, str]) -> Iterator[None]:
    """Replace templates (name to checked text) in the body and in the tasks it starts."""
    token = _wording.set(texts)
    try:
        yield
    finally:
        _wording.reset(token)


@cache
def default_text(name: str) -> str:
    """The text of a template in the package."""
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def check_placeholders(name: str, text: str) -> str:
    """Return a new text for a template if it has the same placeholders.

    Raises:
        ValueError: It has not; the message names them.
    """
    template, needed = Template(text), Template(default_text(name)).get_identifiers()
    if not template.is_valid():
        msg = "a $ in it does not begin a placeholder; write $$ for a dollar sign"
        raise ValueError(msg)
    found = template.get_identifiers()
    wrong = {
        "it does not know": [key for key in found if key not in needed],
        "that are missing": [key for key in needed if key not in found],
    }
    problems = [f"placeholders {what}: {', '.join(f'${key}' for key in keys)}" for what, keys in wrong.items() if keys]
    if problems:
        msg = "; ".join(problems)
        raise ValueError(msg)
    return text


def label_lines(task: Task) -> str:
    """The labels with their definitions, one per line."""
    return "\n".join(f"- {label.name}: {label.description}".removesuffix(": ") for label in task.labels)
