"""A Store of two parts: one run's own data, and the teacher's answers, which all runs share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from langgraph.store.base import BaseStore, GetOp, Op, PutOp, Result

from langchain_pld.distillation.run.teacher import CALLS

__all__ = ["SharedCallsStore"]

# A database takes only so many parameters in one statement.
_MOST_OPERATIONS = 1000


class SharedCallsStore(BaseStore):
    """Routes the teacher's answers to the Store `calls`, which outlives the run, and everything else to `own`."""

    def __init__(self, own: BaseStore, calls: BaseStore) -> None:
        self._own = own
        self._calls = calls
        self._loop = asyncio.get_running_loop()

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations; results are in their order."""
        ops = list(ops)
        results: list[Result] = [None] * len(ops)
        for store in (self._own, self._calls):
            wanted = [index for index, op in enumerate(ops) if self._store_of(op) is store]
            for start in range(0, len(wanted), _MOST_OPERATIONS):
                chunk = wanted[start : start + _MOST_OPERATIONS]
                for index, result in zip(chunk, await store.abatch([ops[index] for index in chunk]), strict=True):
                    results[index] = result
        return results

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Blocking form of `abatch`, for threads other than the event loop's."""
        return asyncio.run_coroutine_threadsafe(self.abatch(ops), self._loop).result()

    def _store_of(self, op: Op) -> BaseStore:
        return self._calls if isinstance(op, GetOp | PutOp) and op.namespace == CALLS else self._own
