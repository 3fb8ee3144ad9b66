"""A chat model whose answers come from files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from langchain_pld.models.batch_rows import Answer, Question, json_object

__all__ = ["FileBackedChatModel"]


class FileBackedChatModel(BaseChatModel):
    """Looks up answers instead of writing them."""

    path: Path
    """The file or folder of the answers."""

    @property
    def model(self) -> str:
        """The last part of the path, so that artifacts do not reveal where they were made."""
        return self.path.stem

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"path": str(self.path)}

    @abstractmethod
    def answer_to(self, question: Question) -> Answer:
        """The answer to a question; reads files, so it blocks.

        Raises:
            PLDError: There is none.
        """

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """A runnable that returns the answer's JSON object as a dictionary.

        Args:
            schema: A JSON schema, or a pydantic model, used only for its JSON schema.
            include_raw: Return `raw`, `parsed` and `parsing_error` instead.
            **kwargs: Refused.
        """
        if kwargs:
            raise ValueError(f"{type(self).__name__} does not know the options {sorted(kwargs)}")
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_json_schema()

        def parse(message: BaseMessage) -> Any:
            found: dict[str, Any] = {"raw": message, "parsed": None, "parsing_error": None}
            try:
                found["parsed"] = json_object(str(message.text))
            except ValueError as error:
                if not include_raw:
                    raise
                found["parsing_error"] = error
            return found if include_raw else found["parsed"]

        return self.bind(schema=schema) | RunnableLambda(parse)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        *,
        schema: Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        found = self.answer_to(Question.of(messages, schema or {}))
        read, written = found.input_tokens, found.output_tokens
        usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=found.text, usage_metadata=usage))])
