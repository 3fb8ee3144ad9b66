"""The Store, seen from one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.store.base import BaseStore, GetOp, PutOp
from pydantic import BaseModel, ConfigDict

from langchain_pld.distillation.roles import Role, labelled_rows
from langchain_pld.errors import DistillationError
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.namespaces import namespace_label
from langchain_pld.rules import Origin

__all__ = ["ChosenRow", "RunStore", "content_key"]


class ChosenRow(BaseModel):
    """An example that the teacher explains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    """The example, with a label."""
    origin: Origin = "gold"
    """Where its label comes from."""


class RunStore:
    """One run's part of the LangGraph Store: everything is under the run's name."""

    def __init__(self, store: BaseStore | None, run_id: str) -> None:
        if store is None:
            msg = "the distillation graph needs a Store; compile it with one, e.g. InMemoryStore()"
            raise DistillationError(msg)
        self.store = store
        self.run_id = run_id
        self._rows: dict[Role, ExampleSet] = {}

    async def put_examples(self, role: Role, rows: ExampleSet) -> None:
        """Keep the rows of a role."""
        keyed = {content_key(row): row.model_dump() for row in rows}
        await self.put_many(f"examples-{role}", keyed)
        await self.put_many("index", {role: {"keys": list(keyed), "source": rows.source}})
        self._rows[role] = rows

    async def examples(self, role: Role) -> ExampleSet | None:
        """The rows of a role, in order, read once; `None` if there are none."""
        if role in self._rows:
            return self._rows[role]
        index = (await self.get_many("index", [role])).get(role)
        if index is None:
            return None
        found = await self.get_many(f"examples-{role}", index["keys"])
        rows = tuple(Example.model_validate(found[key]) for key in index["keys"])
        self._rows[role] = ExampleSet(source=index["source"], examples=rows)
        return self._rows[role]

    async def require(self, role: Role) -> ExampleSet:
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
        """The examples that the teacher explains, in order; empty before they are chosen."""
        keys = (await self.get_many("index", ["chosen"])).get("chosen", {"keys": []})["keys"]
        found = await self.get_many("chosen", keys)
        return tuple(ChosenRow.model_validate(found[key]) for key in keys)

    async def rows_for_teacher(self) -> ExampleSet:
        """The examples that the teacher may see: labelled train rows, voted and synthetic ones.

        Raises:
            DistillationError: The Store has no train rows.
        """
        train = labelled_rows(await self.require("train"))
        others = tuple(row.example for row in await self.chosen() if row.origin != "gold")
        return ExampleSet(source=train.source, examples=(*train.examples, *others))

    async def put_many(self, kind: str, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Store values under their keys."""
        space = self._space(kind)
        await self.store.abatch([PutOp(space, key, dict(value)) for key, value in items.items()])

    async def get_many(self, kind: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Key to value, for the keys found."""
        space = self._space(kind)
        found = await self.store.abatch([GetOp(space, key) for key in keys])
        return {key: item.value for key, item in zip(keys, found, strict=True) if item is not None}  # type: ignore[union-attr]

    def _space(self, kind: str) -> tuple[str, ...]:
        return ("pld", "runs", namespace_label(self.run_id), kind)


def content_key(row: Example) -> str:
    """Key for data about a row; its id alone may have meant another text before."""
    # Sorted, because a database may return the fields of an input in another order.
    return hashlib.sha256(json.dumps(row.model_dump(), sort_keys=True).encode()).hexdigest()
