"""Calls that find out how a student's answers can be read: in the ledger, and once a run."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook
from typing_extensions import override

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.student.probe import Probe, learn_first_tokens, probe_formats
from langchain_pld.student.providers import fingerprint_of, model_spec

__all__ = ["entered", "probed", "readable"]

_KIND, _PROBES = "first-tokens", "probes"


async def readable(
    student: BaseChatModel, answer: AnswerFormat, scorer: Scorer, run: RunStore, spending: Spending, *, node: str
) -> AnswerFormat:
    """The answer format with all that has to be known to read it, see `learn_first_tokens`; learned once a run.

    Args:
        student: The model that answers.
        answer: What it answers with.
        scorer: How its answers are read; only log-probabilities need to know tokens.
        run: Keeps what was learned.
        spending: The run's ledger.
        node: The node that asks.
    """
    if answer.form != "words" or scorer != "logprobs" or answer.first_tokens is not None:
        return answer
    spec = model_spec(student)
    fingerprint = await asyncio.to_thread(fingerprint_of, student)
    key = hashlib.sha256(f"{fingerprint.model_dump_json()}\n{answer.model_dump_json()}".encode()).hexdigest()
    known = (await run.get_many(_KIND, [key])).get(key)
    if known is not None:
        return AnswerFormat.model_validate(known)
    async with entered(spending, node=node, model=spec):
        found = await learn_first_tokens(student, answer)
    if found.first_tokens is not None:
        await run.put_many(_KIND, {key: found.model_dump(mode="json")})
    return found


async def probed(
    student: BaseChatModel, prompts: Sequence[tuple[str, AnswerFormat]], text: str, run: RunStore, spending: Spending
) -> Probe:
    """How the student's answers can be read, see `probe_formats`; found out once a run.

    Args:
        student: The model that answers.
        prompts: System prompts with the answer format that each asks for; of each form the first is tried.
        text: An input to ask about.
        run: Keeps what was found out.
        spending: The run's ledger.
    """
    firsts = {answer.form: (prompt, answer.model_dump_json()) for prompt, answer in reversed(prompts)}
    fingerprint = await asyncio.to_thread(fingerprint_of, student)
    # Which text is asked about makes no difference to how the answer can be read.
    asked = json.dumps([fingerprint.model_dump_json(), sorted(firsts.values())])
    key = hashlib.sha256(asked.encode()).hexdigest()
    known = (await run.get_many(_PROBES, [key])).get(key)
    if known is not None:
        return Probe(**known)
    async with entered(spending, node="validate", model=model_spec(student)):
        probe = await probe_formats(student, prompts, text)
    await run.put_many(_PROBES, {key: asdict(probe)})
    return probe


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
