"""A scripted main model, a scripted student and a few guards around them."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from langchain_pld import PLDClassifier
from langchain_pld.guardrail.guard import Guard
from langchain_pld.guardrail.policy import GuardrailPolicy
from langchain_pld.student.failures import RetryPolicy
from tests.fakes import FakeChatModel, scored, text_of
from tests.student.small_artifact import artifact

BAD = "FORBIDDEN"


class FakeMainModel(BaseChatModel):
    """An agent's model: gives its replies in turn, streams word by word, takes any tools."""

    replies: list[AIMessage]
    asked: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake-main"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self.asked.append(messages)
        return self.replies[len(self.asked) - 1]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages).model_copy())])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for message in _pieces(self._next(messages)):
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for message in _pieces(self._next(messages)):
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                await run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk


class FakeStreamingStudent(FakeChatModel):
    """A student that streams its answer wherever somebody listens."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._reply(messages, kwargs).generations[0].message
        chunk = ChatGenerationChunk(
            message=AIMessageChunk(message.content, response_metadata=message.response_metadata)
        )
        if run_manager:
            run_manager.on_llm_new_token(str(message.content), chunk=chunk)
        yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        message = self._reply(messages, kwargs).generations[0].message
        chunk = ChatGenerationChunk(
            message=AIMessageChunk(message.content, response_metadata=message.response_metadata)
        )
        if run_manager:
            await run_manager.on_llm_new_token(str(message.content), chunk=chunk)
        yield chunk


def by_word(messages: list[BaseMessage]) -> AIMessage:
    """Sad where the text holds the forbidden word, glad elsewhere."""
    return scored({"sad": 0.9, "glad": 0.1} if BAD in text_of(messages) else {"glad": 0.9, "sad": 0.1})


def guard(script: Any = by_word, *, streaming: bool = False, **policy: Any) -> Guard:
    student = (FakeStreamingStudent if streaming else FakeChatModel)(script=script)
    classifier = PLDClassifier(artifact=artifact(), student=student, retry=RetryPolicy(attempts=1, initial_s=0))
    return Guard(classifier, GuardrailPolicy(block_labels=["sad"], **policy))


def at(*stages: str) -> dict[str, bool]:
    """The flags of a middleware that checks at some stages only."""
    flags = {
        "input": "apply_to_input",
        "output": "apply_to_output",
        "tool_call": "apply_to_tool_calls",
        "tool_result": "apply_to_tool_results",
    }
    return {flag: stage in stages for stage, flag in flags.items()}


def says(text: str, *calls: ToolCall) -> AIMessage:
    return AIMessage(text, tool_calls=list(calls))


def calls(name: str, call_id: str = "call-1", **args: Any) -> ToolCall:
    return ToolCall(name=name, args=args, id=call_id, type="tool_call")


def _pieces(message: AIMessage) -> Iterator[AIMessageChunk]:
    for word in str(message.content).split(" ") if message.content else []:
        yield AIMessageChunk(f"{word} ", id=message.id)
    for index, call in enumerate(message.tool_calls):
        part: Any = {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
        yield AIMessageChunk("", tool_call_chunks=[part], id=message.id)
