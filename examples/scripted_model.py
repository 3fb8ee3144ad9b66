"""A main model that follows a script, so that the scripts beside this file need no server and no key."""

from collections.abc import Sequence
from typing import Any, Self

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage


class ScriptedModel(GenericFakeChatModel):
    """Says what it was told to, one message after the other, and takes any tools."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Self:  # noqa: ARG002
        return self


def scripted(*replies: str | tuple[str, dict[str, Any]]) -> ScriptedModel:
    """A text is an answer; a pair of name and arguments is a tool call."""
    messages = [
        AIMessage(reply)
        if isinstance(reply, str)
        else AIMessage("", tool_calls=[{"name": reply[0], "args": reply[1], "id": f"call-{number}"}])
        for number, reply in enumerate(replies)
    ]
    return ScriptedModel(messages=iter(messages))
