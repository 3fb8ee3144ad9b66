"""Calls that find out how a student's answers can be read: in the ledger, and once a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook
from typing_extensions import override

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.run.run import Run
from langchain_pld.student.probe import Probe, learn_first_tokens, probe_formats
from langchain_pld.student.providers import model_spec

__all__ = ["probed", "readable", "record_calls"]

_KIND, _PROBES = "first-tokens", "probes"


async def readable(run: Run, answer: AnswerFormat, scorer: Scorer) -> AnswerFormat:
    """The answer format with all that has to be known to read it, see `learn_first_tokens`; learned once a run.

    Args:
        run: The run, with the student; keeps what was learned.
        answer: What the student answers with.
        scorer: How its answers are read; only log-probabilities need to know tokens.
    """
    if answer.form != "words" or scorer != "logprobs" or answer.first_tokens is not None:
        return answer
    fingerprint = await run.student_fingerprint()
    key = hashlib.sha256(f"{fingerprint.model_dump_json()}\n{answer.model_dump_json()}".encode()).hexdigest()
    known = (await run.store.get_many(_KIND, [key])).get(key)
    if known is not None:
        return AnswerFormat.model_validate(known)
    async with record_calls(run):
        found = await learn_first_tokens(run.student, answer)
    if found.first_tokens is not None:
        await run.store.put_many(_KIND, {key: found.model_dump(mode="json")})
    return found


async def probed(run: Run, prompts: Sequence[tuple[str, AnswerFormat]], text: str) -> Probe:
    """How the student's answers can be read, see `probe_formats`; found out once a run, on behalf of `validate`.

    Args:
        run: The run, with the student; keeps what was found out.
        prompts: System prompts with the answer format that each asks for; of each form the first is tried.
        text: An input to ask about.
    """
    firsts = {answer.form: (prompt, answer.model_dump_json()) for prompt, answer in reversed(prompts)}
    fingerprint = await run.student_fingerprint()
    # Which text is asked about makes no difference to how the answer can be read.
    asked = json.dumps([fingerprint.model_dump_json(), sorted(firsts.values())])
    key = hashlib.sha256(asked.encode()).hexdigest()
    known = (await run.store.get_many(_PROBES, [key])).get(key)
    if known is not None:
        return Probe(**known)
    async with record_calls(replace(run, node="validate")):
        probe = await probe_formats(run.student, prompts, text)
    await run.store.put_many(_PROBES, {key: asdict(probe)})
    return probe


@asynccontextmanager
async def record_calls(run: Run) -> AsyncIterator[None]:
    """Enter the student's calls that are made inside into the ledger, failed ones included."""
    counter = _Counter()
    token = _counter.set(counter)
    try:
        yield
    finally:
        _counter.reset(token)
        await run.spending.add(LedgerLine(node=run.node, model=model_spec(run.student), **counter.counts))


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
