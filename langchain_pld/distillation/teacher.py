"""Asking the teacher: one structured question at a time, cached, repaired once, entered into the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, message_to_dict
from langgraph.store.base import BaseStore
from pydantic import BaseModel, ValidationError

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.ledger import one_call, total
from langchain_pld.student.binding import model_spec
from langchain_pld.student.failures import RetryPolicy, failure_of, passes_through
from langchain_pld.verdict import Failure

__all__ = ["Teacher"]

Answer = TypeVar("Answer", bound=BaseModel)

_CALLS = ("pld", "teacher_calls")


class Teacher:
    """The teacher as one node uses it.

    An answer is cached in the Store under a hash of model, messages and schema: a call once paid is not paid again,
    neither in a resumed run nor in another one that asks the same.

    Args:
        model: The chat model.
        node: The node that asks, for the ledger.
        store: Where answers are cached.
        concurrency: Calls in flight.
        retry: When a transient failure is tried again.
    """

    def __init__(
        self,
        model: BaseChatModel,
        *,
        node: str,
        store: BaseStore,
        concurrency: int,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.spec = model_spec(model)
        self._model = model
        self._node = node
        self._store = store
        self._slots = asyncio.Semaphore(concurrency)
        self._retry = retry or RetryPolicy(attempts=4, initial_s=1.0, max_s=30.0)
        self._lines: list[LedgerLine] = []

    @property
    def ledger(self) -> list[LedgerLine]:
        """What was spent so far."""
        return total(self._lines)

    async def ask(self, messages: Sequence[BaseMessage], schema: type[Answer]) -> Answer | Failure:
        """Ask one question.

        A question whose answer does not fit the schema is asked once more, with what was wrong.

        Args:
            messages: The question.
            schema: Pydantic model of the answer.

        Returns:
            The answer, or why there is none.
        """
        async with self._slots:
            key = _key(self.spec, messages, schema)
            known = await self._store.aget(_CALLS, key)
            if known is not None:
                self._lines.append(LedgerLine(node=self._node, model=self.spec, cache_hits=1))
                return schema.model_validate(known.value["answer"])
            answer = await self._fresh(list(messages), schema)
            if not isinstance(answer, Failure):
                await self._store.aput(_CALLS, key, {"answer": answer.model_dump(mode="json")})
            return answer

    async def _fresh(self, messages: list[BaseMessage], schema: type[Answer]) -> Answer | Failure:
        structured = self._model.with_structured_output(schema.model_json_schema(), include_raw=True)
        problem = ""
        for _ in range(2):
            started = time.perf_counter()
            try:
                result: Any = await self._retry.async_retrying()(structured.ainvoke, messages)
            except Exception as error:  # a failed call is data for the run, whatever the client raised
                if passes_through(error):
                    raise
                self._lines.append(one_call(self._node, self.spec, None, seconds=time.perf_counter() - started))
                return failure_of(error, self.spec)
            raw: AIMessage = result["raw"]
            self._lines.append(one_call(self._node, self.spec, raw, seconds=time.perf_counter() - started))
            try:
                return schema.model_validate(result["parsed"])
            except ValidationError as error:
                problem = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            # Said inside the question, so that all before it stays in the server's prefix cache.
            question = messages[-1]
            repair = f"An earlier answer did not fit: {problem}. Answer with JSON of the asked form and nothing else."
            messages = [*messages[:-1], HumanMessage(f"{question.text}\n\n{repair}")]
        return Failure(kind="unreadable", message=f"the teacher's answer did not fit the schema twice: {problem}")


def _key(spec: str, messages: Sequence[BaseMessage], schema: type[BaseModel]) -> str:
    content = [spec, [message_to_dict(message) for message in messages], schema.model_json_schema()]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
