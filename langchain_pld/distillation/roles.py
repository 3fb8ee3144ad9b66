"""Data roles of rows: train, validation and test."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Literal

from langchain_pld.errors import ExampleError
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.task import Task, TaskInput

__all__ = ["Role", "balanced_sample", "check_roles", "labelled_rows", "text_key"]

Role = Literal["train", "validation", "test"]


def check_roles(task: Task, sets: Mapping[Role, ExampleSet]) -> None:
    """Check that no text or group has two roles and that each role has the rows it needs.

    Texts are compared by `text_key`. Train rows may lack a label: the teacher votes on them.

    Raises:
        ExampleError: A text or a group is in two roles, a validation or test row has no label, or a label has no row;
            the message names the rows.
    """
    _no_clash(sets, "texts", lambda row: text_key(task, row.input))
    _no_clash(sets, "groups", lambda row: row.group)
    for role, rows in sets.items():
        unlabelled = [row.id for row in rows if row.label is None]
        if unlabelled and role != "train":
            msg = (
                f"{len(unlabelled)} {role} rows have no label, e.g. {unlabelled[0]!r}; label them, leave them out, or "
                "name the column of the labels"
            )
            raise ExampleError(msg)
        missing = sorted(set(task.label_names) - set(rows.label_counts()))
        if missing and role != "test" and not unlabelled:
            msg = f"no {role} row has the label {missing[0]!r}; each label needs examples"
            raise ExampleError(msg)


def _no_clash(sets: Mapping[Role, ExampleSet], what: str, key_of: Callable[[Example], str | None]) -> None:
    seen: dict[str, tuple[Role, str]] = {}
    clashes: list[str] = []
    for role, rows in sets.items():
        for row in rows:
            key = key_of(row)
            first = seen.setdefault(key, (role, row.id)) if key is not None else (role, row.id)
            if first[0] != role:
                clashes.append(f"{first[0]} {first[1]!r} = {role} {row.id!r}")
    if clashes:
        more = f" and {len(clashes) - 5} more" if len(clashes) > 5 else ""
        msg = (
            f"{len(clashes)} rows have {what} that are in two data roles, so scores would be too good: "
            f"{'; '.join(clashes[:5])}{more}; remove them from one file"
        )
        raise ExampleError(msg)


def text_key(task: Task, value: TaskInput) -> str:
    """An input's text with Unicode, case and white space normalised, for comparing texts."""
    return " ".join(unicodedata.normalize("NFKC", task.render(value)).casefold().split())


def labelled_rows(rows: ExampleSet) -> ExampleSet:
    """The rows that have a label."""
    return ExampleSet(source=rows.source, examples=tuple(row for row in rows if row.label is not None))


def balanced_sample(rows: ExampleSet, count: int, seed: int | None) -> ExampleSet:
    """At most `count` rows, taken in turns from each label, in seeded order or, without a seed, as they come."""
    by_label: dict[str | None, list[Example]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    if seed is not None:
        shuffler = random.Random(seed)
        for bucket in by_label.values():
            shuffler.shuffle(bucket)
    chosen: list[Example] = []
    queues = [bucket for _, bucket in sorted(by_label.items(), key=lambda item: str(item[0]))]
    while len(chosen) < count and any(queues):
        for bucket in queues:
            if bucket and len(chosen) < count:
                chosen.append(bucket.pop(0))
    return ExampleSet(source=rows.source, examples=tuple(chosen))
