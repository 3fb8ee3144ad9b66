"""What guards keep outside of the state, which every stream shows: people's answers, and content that waits for one.

Both lie in the Store where the graph runs with one. Without one, content that waits stays in this process; what is lost
with it can no longer be approved, and the guard then holds it back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeAlias, cast

from langgraph.config import get_store
from langgraph.store.base import BaseStore

from langchain_pld.steps import Call, Steps

__all__ = ["StoreItem", "delete_pending", "load_pending", "save_answers", "save_pending"]

StoreItem: TypeAlias = tuple[tuple[str, ...], str, dict[str, Any]]
"""Namespace, key and value of an item of the Store."""

_NAMESPACE = ("pld", "held")
_LIMIT = 10_000
_memory: OrderedDict[str, dict[str, Any]] = OrderedDict()


def save_answers(items: Iterable[StoreItem]) -> Steps[None]:
    """Keep people's answers; without a Store nobody does."""
    if (store := _running_store()) is not None:
        for item in items:
            yield _put(store, item)


def save_pending(key: str, content: dict[str, Any]) -> Steps[None]:
    """Keep content while a person is asked about it."""
    if (store := _running_store()) is not None:
        yield Call(
            lambda: store.put(_NAMESPACE, key, content, index=False),
            lambda: store.aput(_NAMESPACE, key, content, index=False),
        )
        return
    _memory[key] = content
    if len(_memory) > _LIMIT:  # questions that nobody ever answered
        _memory.popitem(last=False)


def load_pending(key: str) -> Steps[dict[str, Any] | None]:
    """Content that waits; `None` where it is lost."""
    if (store := _running_store()) is None:
        return _memory.get(key)
    item = yield Call(lambda: store.get(_NAMESPACE, key), lambda: store.aget(_NAMESPACE, key))
    return item.value if item is not None else None


def delete_pending(key: str) -> Steps[None]:
    """Forget content that waits no longer."""
    if (store := _running_store()) is not None:
        yield Call(lambda: store.delete(_NAMESPACE, key), lambda: store.adelete(_NAMESPACE, key))
    _memory.pop(key, None)


def _put(store: BaseStore, item: StoreItem) -> Call:
    return Call(lambda: store.put(*item), lambda: store.aput(*item))


def _running_store() -> BaseStore | None:
    try:
        return cast("BaseStore | None", get_store())
    except RuntimeError:  # called outside a graph
        return None
