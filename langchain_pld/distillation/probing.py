"""Calls that find out how a student's answers can be read, in the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook
from typing_extensions import override

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.spending import Spending

__all__ = ["entered"]


@asynccontextmanager
async def entered(spending: Spending, *, node: str, model: str) -> AsyncIterator[None]:
    """Enter the chat model calls that are made inside into the ledger, failed ones included.

    Args:
        spending: The run's ledger.
        node: The node that asks.
        model: The model asked, as `provider:name`.
    """
    counter = _Counter()
    token = _counter.set(counter)
    try:
        yield
    finally:
        _counter.reset(token)
        await spending.add(LedgerLine(node=node, model=model, **counter.counts))


class _Counter(BaseCallbackHandler):
    """Counts calls and tokens."""

    run_inline = True

    def __init__(self) -> None:
        self.counts = {"calls": 0, "failures": 0, "input_tokens": 0, "output_tokens": 0}

    @override
    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        self.counts["calls"] += len(messages)

    @override
    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.counts["failures"] += 1

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        for generations in response.generations:
            for generation in generations:
                message = generation.message if isinstance(generation, ChatGeneration) else None
                usage = message.usage_metadata if isinstance(message, AIMessage) else None
                if usage:
                    self.counts["input_tokens"] += usage["input_tokens"]
                    self.counts["output_tokens"] += usage["output_tokens"]


_counter: ContextVar[_Counter | None] = ContextVar("counter", default=None)
register_configure_hook(_counter, inheritable=True)
