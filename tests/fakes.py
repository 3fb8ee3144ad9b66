"""Scripted chat models that stand where a model service would."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import Field

Script = Callable[[list[BaseMessage]], AIMessage | Exception]


class FakeChatModel(BaseChatModel):
    """Answers by a function of the messages; records what it was asked; may wait, or raise what it is told to."""

    script: Any
    """`Script`: the reply to the messages, or the exception to raise."""
    latency_s: float = 0.0
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)
    model: str = "fake"

    @property
    def _llm_type(self) -> str:
        return "fake-chat"

    def _reply(self, messages: list[BaseMessage], options: dict[str, Any]) -> ChatResult:
        self.asked.append(messages)
        self.options.append(options)
        reply = self.script(messages)
        if isinstance(reply, BaseException):
            raise reply
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency_s:
            time.sleep(self.latency_s)
        return self._reply(messages, kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        return self._reply(messages, kwargs)

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Runnable[Any, Any]:
        def parse(message: BaseMessage) -> Any:
            try:
                parsed, error = json.loads(str(message.text)), None
            except ValueError as caught:
                parsed, error = None, caught
            return {"raw": message, "parsed": parsed, "parsing_error": error} if include_raw else parsed

        return self.bind(schema=schema) | RunnableLambda(parse)


def scored(probabilities: dict[str, float], **metadata: Any) -> AIMessage:
    """An answer whose first token has these alternatives, in Ollama's shape; they need not add up to 1."""
    options = [{"token": token, "logprob": math.log(p)} for token, p in probabilities.items() if p > 0]
    top = max(options, key=lambda option: option["logprob"])
    return AIMessage(
        content=top["token"],
        response_metadata={"logprobs": [{**top, "top_logprobs": options}], "done_reason": "length", **metadata},
        usage_metadata={"input_tokens": 100, "output_tokens": 1, "total_tokens": 101},
    )


def tokens(*parts: tuple[str, dict[str, float]] | str, done_reason: str = "stop") -> AIMessage:
    """An answer of several tokens; a plain text is a token of probability 1."""
    entries = []
    for part in parts:
        text, alternatives = (part, {part: 1.0}) if isinstance(part, str) else part
        options = [{"token": token, "logprob": math.log(p)} for token, p in alternatives.items()]
        entries.append({"token": text, "logprob": math.log(alternatives[text]), "top_logprobs": options})
    return AIMessage(
        content="".join(entry["token"] for entry in entries),
        response_metadata={"logprobs": entries, "done_reason": done_reason},
    )


def text_of(messages: Sequence[BaseMessage]) -> str:
    """The text between the delimiters of the last message."""
    return str(messages[-1].text).removeprefix("<<<\n").removesuffix("\n>>>")


class FakeEmbeddings(DeterministicFakeEmbedding):
    """Deterministic vectors; records what it was asked, and fails when it is told to."""

    model: str = "words"
    asked: list[list[str]] = Field(default_factory=list)
    failing: bool = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        if self.failing:
            raise ConnectionError
        return super().embed_documents(texts)
