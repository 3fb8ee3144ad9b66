"""Calls that find out how to read a student's answers, made once per run and entered in the ledger."""

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
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import model_spec

__all__ = ["learn_tokens", "prepare_formats", "probe_answers", "record_calls"]

_TOKENS, _PROBES = "first-tokens", "probes"


async def prepare_formats(run: Run, formats: Sequence[AnswerFormat], text: str) -> tuple[list[AnswerFormat], Scorer]:
    """The formats completed with what is known about the student, and how its answers are read.

    Args:
        run: The run, with the student.
        formats: Answer formats.
        text: An input to ask about.

    Raises:
        StudentError: The student cannot be reached, or none of its answers can be read.
    """
    probe = await probe_answers(run, formats, text)
    if probe.thinking_tokens:
        run.note(f"the student gets {probe.thinking_tokens} tokens to think")
    with_room = [answer.model_copy(update={"thinking_tokens": probe.thinking_tokens}) for answer in formats]
    return [await learn_tokens(run, answer, probe.scorer) for answer in with_room], probe.scorer


async def probe_answers(run: Run, formats: Sequence[AnswerFormat], text: str) -> Probe:
    """How to read the student's answers, see `probe_formats`; asked once per run, on the account of `validate`."""
    prompts = [(compile_prompt(run.task, (), answer), answer) for answer in formats]
    # The first format of each form is tried; the text makes no difference.
    firsts = {answer.form: (prompt, answer.model_dump_json()) for prompt, answer in reversed(prompts)}
    fingerprint = await run.student_fingerprint()
    key = _key(json.dumps([fingerprint.model_dump_json(), sorted(firsts.values())]))
    known = (await run.store.get_many(_PROBES, [key])).get(key)
    if known is not None:
        return Probe(**known)
    async with record_calls(replace(run, node="validate")):
        probe = await probe_formats(run.student, prompts, text)
    await run.store.put_many(_PROBES, {key: asdict(probe)})
    return probe


async def learn_tokens(run: Run, answer: AnswerFormat, scorer: Scorer) -> AnswerFormat:
    """The format with the first tokens of its words, see `learn_first_tokens`; learned once per run.

    Only the scorer `logprobs` needs them.
    """
    if answer.form != "words" or scorer != "logprobs" or answer.first_tokens is not None:
        return answer
    fingerprint = await run.student_fingerprint()
    key = _key(f"{fingerprint.model_dump_json()}\n{answer.model_dump_json()}")
    known = (await run.store.get_many(_TOKENS, [key])).get(key)
    if known is not None:
        return AnswerFormat.model_validate(known)
    async with record_calls(run):
        learned = await learn_first_tokens(run.student, answer)
    if learned.first_tokens is not None:
        await run.store.put_many(_TOKENS, {key: learned.model_dump(mode="json")})
    return learned


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@asynccontextmanager
async def record_calls(run: Run) -> AsyncIterator[None]:
    """Enter the student's calls made in this block into the ledger, failures included."""
    counter = _Counter()
    token = _counter.set(counter)
    try:
        yield
    finally:
        _counter.reset(token)
        await run.spending.add(LedgerLine(node=run.node, model=model_spec(run.student), **counter.counts))


class _Counter(BaseCallbackHandler):
    """Counts calls and tokens; LangChain's `UsageMetadataCallbackHandler` counts no calls and needs a model name."""

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
        for generation in (one for several in response.generations for one in several):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            if isinstance(message, AIMessage) and message.usage_metadata:
                self.counts["input_tokens"] += message.usage_metadata["input_tokens"]
                self.counts["output_tokens"] += message.usage_metadata["output_tokens"]


_counter: ContextVar[_Counter | None] = ContextVar("counter", default=None)
register_configure_hook(_counter, inheritable=True)
