"""The task: labels, their definitions and the layout of an input."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from langchain_pld.errors import InputError, TaskError

__all__ = ["WRAPPING", "Label", "Task", "TaskInput"]

TaskInput = str | Mapping[str, str]
"""One input of a task: a text, or named fields if the task declares them."""

WRAPPING = " \t\r\n\"'`*_.,:;!()[]{}"
"""What a model may put around an answer; it is stripped, so no answer word may begin or end with it."""

_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80, pattern=r"^[^\s{}<>]+$")]


class Label(BaseModel, frozen=True, extra="forbid"):
    """One possible answer; a bare name stands for a label without a description."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        values = value if isinstance(value, dict | Label) else {"name": value}
        if not isinstance(values, dict):
            return values
        name = values.get("name")
        if isinstance(name, int) and not isinstance(name, bool):
            values = {**values, "name": str(name)}
        elif isinstance(name, str) and len(name.split()) > 1:
            msg = f"the label {name!r} has white space in it; write {'_'.join(name.split())!r}; the rows may keep it"
            raise ValueError(msg)
        return values

    name: _Name
    """The name, without white space."""
    description: str = ""
    """A one-line definition, shown to teacher and student."""


class Task(BaseModel, frozen=True, extra="forbid"):
    """A single-label classification task.

    Example:
        >>> task = Task(
        ...     name="mood",
        ...     instructions="Decide how the writer feels.",
        ...     labels=[Label(name="glad"), Label(name="sad")],
        ... )
        >>> task.label_names
        ('glad', 'sad')
    """

    name: _Name
    """Short name, used in file names and reports."""
    instructions: str = Field(min_length=1)
    """What to decide, in a few sentences."""
    labels: tuple[Label, ...] = Field(min_length=2)
    """The labels in prompt order."""
    none_label: str | None = None
    """The label for inputs to which no other applies, if there is one."""
    fields: tuple[str, ...] = ()
    """Names of the input's parts; empty if an input is one text."""
    template: str | None = None
    """Layout of the fields, e.g. `"Clause: {premise}"`; by default one line per field."""
    verbalizers: tuple[dict[str, str], ...] = ()
    """Candidate sets of answer words, label name to word; one is chosen on validation rows."""
    max_chars: int = Field(default=200_000, gt=0)
    """Longer inputs are refused."""

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        names = self.label_names
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"label {doubled[0]!r} is declared twice")
        if self.none_label is not None and self.none_label not in names:
            raise ValueError(f"none_label {self.none_label!r} is not one of the labels {', '.join(names)}")
        self._check_template()
        for words in self.verbalizers:
            if set(words) != set(names):
                msg = f"verbalizer {words} must name each of the labels {', '.join(names)} once and nothing else"
                raise ValueError(msg)
            folded = [word.strip().casefold() for word in words.values()]
            if "" in folded or len(set(folded)) < len(folded):
                raise ValueError(f"verbalizer {words} needs a different, non-empty word for each label")
            edged = [word for word in words.values() if word != word.strip(WRAPPING)]
            if edged:
                raise ValueError(f"the answer word {edged[0]!r} must not begin or end in white space or punctuation")
        return self

    def _check_template(self) -> None:
        if self.template is None:
            return
        if not self.fields:
            raise ValueError("a template needs `fields`: the names of the input's parts")
        try:
            parts = [part for part in string.Formatter().parse(self.template) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"template {self.template!r} cannot be read: {error}") from error
        odd = next((name for _, name, spec, conversion in parts if spec or conversion), None)
        if odd is not None:
            msg = f"template must name the field {{{odd}}} alone, without a conversion or a format behind it"
            raise ValueError(msg)
        used = [name for _, name, _, _ in parts if name is not None]
        if sorted(used) != sorted(self.fields):
            msg = f"template uses {{{', '.join(used)}}} but must use each of the fields {', '.join(self.fields)} once"
            raise ValueError(msg)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names in prompt order."""
        return tuple(label.name for label in self.labels)

    def render(self, value: TaskInput) -> str:
        """Lay out an input, a text or a mapping with exactly the task's fields, as the text that a model reads.

        Raises:
            InputError: The input has the wrong shape, is empty, or is longer than `max_chars`.
        """
        text = self._render_fields(value) if self.fields else self._render_text(value)
        if len(text) > self.max_chars:
            msg = (
                f"the input has {len(text):,} characters, the limit of task {self.name!r} is {self.max_chars:,}; "
                "shorten it, or raise max_chars in the task"
            )
            raise InputError(msg)
        return text

    def _render_text(self, value: TaskInput) -> str:
        if not isinstance(value, str):
            raise InputError(f"task {self.name!r} takes a text, got {type(value).__name__}")
        if not value.strip():
            raise InputError("the text is empty")
        return value

    def _render_fields(self, value: TaskInput) -> str:
        wanted = ", ".join(self.fields)
        if isinstance(value, str) or set(value) != set(self.fields):
            got = "a plain text" if isinstance(value, str) else ", ".join(map(str, value)) or "nothing"
            raise InputError(f"task {self.name!r} takes the fields {wanted}; got {got}")
        for name in self.fields:
            if not isinstance(value[name], str) or not value[name].strip():
                raise InputError(f"the field {name!r} is empty or not a text")
        template = self.template or "\n".join(f"{name}: {{{name}}}" for name in self.fields)
        parts = [
            literal + (value[name] if name is not None else "")
            for literal, name, _, _ in string.Formatter().parse(template)
        ]
        return "".join(parts)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Task:
        """Read a task file.

        Raises:
            TaskError: The file is missing, not UTF-8, not YAML, or not a task; the message names the field.
        """
        from langchain_pld.yaml_files import read_yaml

        path = Path(path)
        try:
            data = read_yaml(path)
        except FileNotFoundError:
            raise TaskError(f"no task file at {path}") from None
        except (OSError, ValueError) as error:
            raise TaskError(f"the task file {path} cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise TaskError(f"the task file {path} must hold a mapping with name, instructions and labels")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise TaskError(f"the task file {path} is wrong: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """The first few problems of a validation error, on one line."""
    lines = []
    for problem in error.errors()[:3]:
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {what}" if where else what)
    more = error.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")
