"""LangChain's standard tests for chat models."""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_pld.models.embedded import EmbeddedChatModel


class TestEmbeddedChatModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return EmbeddedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "smollm2-135m"}


@pytest.mark.model
@pytest.mark.usefixtures("small_model")
class TestEmbeddedChatModelIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return EmbeddedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "smollm2-135m", "n_ctx": 1024, "slots": 2}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # Drawing keeps so small a model from repeating itself inside a JSON string until its tokens are spent.
        return {"max_tokens": 256, "timeout": 120, "temperature": 0.8, "seed": 1}
