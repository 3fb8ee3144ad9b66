"""Where content waits while a person is asked about it: outside of the state, which every stream shows.

It lies in the Store where the graph runs with one, and in this process otherwise. What is lost with the process can no
longer be approved: the guard then holds it back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from langgraph.config import get_store
from langgraph.store.base import BaseStore

__all__ = ["aget", "aput", "get", "put", "running_store"]

_NAMESPACE = ("pld", "held")
_LIMIT = 10_000
_memory: OrderedDict[str, dict[str, Any]] = OrderedDict()


def running_store() -> BaseStore | None:
    """The Store of the graph that runs; `None` where there is none."""
    try:
        return cast("BaseStore | None", get_store())
    except RuntimeError:  # called outside a graph
        return None


def put(key: str, value: dict[str, Any]) -> None:
    """Keep a content."""
    if store := running_store():
        store.put(_NAMESPACE, key, value, index=False)
    else:
        _remember(key, value)


async def aput(key: str, value: dict[str, Any]) -> None:
    """As `put`, without blocking the event loop."""
    if store := running_store():
        await store.aput(_NAMESPACE, key, value, index=False)
    else:
        _remember(key, value)


def get(key: str) -> dict[str, Any] | None:
    """A kept content; `None` where it is lost."""
    if store := running_store():
        item = store.get(_NAMESPACE, key)
        return item.value if item is not None else None
    return _memory.get(key)


async def aget(key: str) -> dict[str, Any] | None:
    """As `get`, without blocking the event loop."""
    if store := running_store():
        item = await store.aget(_NAMESPACE, key)
        return item.value if item is not None else None
    return _memory.get(key)


def _remember(key: str, value: dict[str, Any]) -> None:
    _memory[key] = value
    if len(_memory) > _LIMIT:  # questions that nobody ever answered
        _memory.popitem(last=False)
