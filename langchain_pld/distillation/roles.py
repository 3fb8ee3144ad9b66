"""Data roles: which rows may be seen by whom, and where they lie in the Store."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from langgraph.store.base import BaseStore, GetOp, PutOp
from pydantic import BaseModel, ConfigDict

from langchain_pld.errors import DistillationError, ExampleError
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.namespaces import namespace_label
from langchain_pld.rules import Origin
from langchain_pld.task import Task, TaskInput

__all__ = ["ChosenRow", "Role", "RunStore", "balanced", "check_roles", "content_key", "labelled", "text_key"]

Role = Literal["train", "validation", "test"]


class ChosenRow(BaseModel):
    """An example that the teacher explains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    """The example, with a label."""
    origin: Origin = "gold"
    """Where its label comes from."""


def check_roles(task: Task, sets: Mapping[Role, ExampleSet]) -> None:
    """Make sure that no text and no group plays two roles and that each role has what it needs.

    Texts are compared by `text_key`. Train rows may be without a label: the teacher votes on them.

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
    """An input's text after Unicode normalisation, case folding and folding of white space: equal for equal texts."""
    return " ".join(unicodedata.normalize("NFKC", task.render(value)).casefold().split())


class RunStore:
    """The Store, seen from one run: everything lies under the run's name, keyed by example id.

    Args:
        store: The LangGraph Store of the graph.
        run_id: Name of the run.
    """

    def __init__(self, store: BaseStore | None, run_id: str) -> None:
        if store is None:
            msg = "the distillation graph needs a Store; compile it with one, e.g. InMemoryStore()"
            raise DistillationError(msg)
        self.store = store
        self.run_id = run_id

    async def put_examples(self, role: Role, rows: ExampleSet) -> None:
        """Keep the rows of a role."""
        keyed = {content_key(row): row.model_dump() for row in rows}
        await self.put_many(f"examples-{role}", keyed)
        await self.put_many("index", {role: {"keys": list(keyed), "source": rows.source}})

    async def examples(self, role: Role) -> ExampleSet | None:
        """The rows of a role, in order; `None` when the run has none."""
        index = (await self.get_many("index", [role])).get(role)
        if index is None:
            return None
        found = await self.get_many(f"examples-{role}", index["keys"])
        rows = tuple(Example.model_validate(found[key]) for key in index["keys"])
        return ExampleSet(source=index["source"], examples=rows)

    async def required(self, role: Role) -> ExampleSet:
        """The rows of a role.

        Raises:
            DistillationError: The Store does not have them.
        """
        rows = await self.examples(role)
        if rows is None:
            msg = f"the Store has no {role} rows of run {self.run_id!r}; start the run again"
            raise DistillationError(msg)
        return rows

    async def put_chosen(self, rows: Sequence[ChosenRow]) -> None:
        """Keep the examples that the teacher explains."""
        keyed = {content_key(row.example): row.model_dump() for row in rows}
        await self.put_many("chosen", keyed)
        await self.put_many("index", {"chosen": {"keys": list(keyed)}})

    async def chosen(self) -> tuple[ChosenRow, ...]:
        """The examples that the teacher explains, in order; none before they are chosen."""
        keys = (await self.get_many("index", ["chosen"])).get("chosen", {"keys": []})["keys"]
        found = await self.get_many("chosen", keys)
        return tuple(ChosenRow.model_validate(found[key]) for key in keys)

    async def taught(self) -> ExampleSet:
        """What the teacher may be shown as examples: the labelled train rows, and the voted and synthetic ones.

        Raises:
            DistillationError: The Store has no train rows.
        """
        train = labelled(await self.required("train"))
        others = tuple(row.example for row in await self.chosen() if row.origin != "gold")
        return ExampleSet(source=train.source, examples=(*train.examples, *others))

    async def put_many(self, kind: str, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep values under their keys."""
        space = self._space(kind)
        await self.store.abatch([PutOp(space, key, dict(value)) for key, value in items.items()])

    async def get_many(self, kind: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The values that are there, by key."""
        space = self._space(kind)
        found = await self.store.abatch([GetOp(space, key) for key in keys])
        return {key: item.value for key, item in zip(keys, found, strict=True) if item is not None}  # type: ignore[union-attr]

    def _space(self, kind: str) -> tuple[str, ...]:
        return ("pld", "runs", namespace_label(self.run_id), kind)


def content_key(row: Example) -> str:
    """Key of what is kept about a row: its id alone would find what was kept about another text of that id."""
    # Sorted, since a database may give the fields of an input back in another order.
    return hashlib.sha256(json.dumps(row.model_dump(), sort_keys=True).encode()).hexdigest()


def labelled(rows: ExampleSet) -> ExampleSet:
    """The rows that have a label."""
    return ExampleSet(source=rows.source, examples=tuple(row for row in rows if row.label is not None))


def balanced(rows: ExampleSet, count: int, seed: int | None) -> ExampleSet:
    """At most `count` rows, in turn from each label; those of a label in seeded order, without a seed as they come."""
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
