"""The teacher's prompts, as text files with `$placeholders`. A run may have a wording of its own of each."""

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
"""The templates, in the order in which a run may need them."""

_wording: ContextVar[Mapping[str, str]] = ContextVar("templates", default=MappingProxyType({}))


def fill(name: str, **values: str) -> str:
    """The template `name` with its placeholders replaced; values are inserted as they are and not read again."""
    return Template(_wording.get().get(name) or default_text(name)).substitute(values)


@contextmanager
def use_wording(texts: Mapping[str, str]) -> Iterator[None]:
    """Use other texts for some templates, in the body and in the tasks that it starts.

    Args:
        texts: Name of a template to its text, as `check_placeholders` lets it pass.
    """
    token = _wording.set(texts)
    try:
        yield
    finally:
        _wording.reset(token)


@cache
def default_text(name: str) -> str:
    """The text of a template as it comes with the package."""
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def check_placeholders(name: str, text: str) -> str:
    """Another text for a template, if it holds the same placeholders.

    Raises:
        ValueError: It does not; the message names them.
    """
    template, needed = Template(text), Template(default_text(name)).get_identifiers()
    if not template.is_valid():
        msg = "a $ in it begins no placeholder; write $$ for a dollar sign"
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
    """The labels with their definitions, a line each."""
    return "\n".join(f"- {label.name}: {label.description}".removesuffix(": ") for label in task.labels)
