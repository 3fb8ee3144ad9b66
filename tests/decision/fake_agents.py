"""A scripted main model for `create_agent`, and the tools that it calls."""

from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool

from tests.fakes import FakeChatModel


class FakeMainModel(FakeChatModel):
    """A `FakeChatModel` that takes tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self


def calls_then_tells(name: str, args: dict[str, Any]) -> FakeMainModel:
    """A main model that calls one tool, then repeats what it gave."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage(f"done: {messages[-1].text}")
        return AIMessage("", tool_calls=[{"name": name, "args": args, "id": "call-1"}])

    return FakeMainModel(script=script)


def recording_tool() -> tuple[BaseTool, list[str]]:
    """A tool that deletes nothing but notes what it was asked to delete."""
    deleted: list[str] = []

    @tool
    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return f"deleted {path}"

    return delete_file, deleted
