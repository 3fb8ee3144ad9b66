"""What a fake model server says: scripted answers, faults by rate, and the parts that either kind of backend yields.

A backend is a scripted answer, a function from the request's JSON to one, or any LangChain chat model. The protocol
servers (`ollama.py`, `gemini.py`) turn its parts into bytes; nothing here knows a protocol.
"""

import math
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Self
from zlib import crc32

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class FakeToken:
    """One token of an answer with its log probability and the alternatives, likeliest first."""

    text: str
    logprob: float = 0.0
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class FakeAnswer:
    """One scripted answer, or one scripted way of failing."""

    content: str = ""
    """The text; cut into words where no tokens are given."""
    tokens: tuple[FakeToken, ...] = ()
    """The text token by token, with log probabilities; takes the place of `content`."""
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Name and arguments of the tools to call."""
    prompt_tokens: int = 10
    """Tokens of the prompt, as reported."""
    status: int = 200
    """HTTP status; another than 200 sends an error body in the protocol's form."""
    error: str = "a scripted fault"
    """Message of that error."""
    body: bytes | None = None
    """Sent as the whole response body instead of anything else: garbage, an HTML page of a proxy."""
    delay_s: float = 0.0
    """Seconds before the first byte."""
    break_off: Literal["drop", "hang", "error"] | None = None
    """Close the connection, fall silent until the client leaves, or report an error in the protocol's form."""
    after_parts: int = 0
    """Streamed parts sent before breaking off; an answer that is not streamed then breaks off halfway."""

    @classmethod
    def picking(cls, probabilities: Mapping[str, float], **fields: Any) -> Self:
        """An answer of one token, the likeliest, with the others as its alternatives."""
        top = tuple(sorted(((t, math.log(p)) for t, p in probabilities.items()), key=lambda pair: -pair[1]))
        return cls(tokens=(FakeToken(*top[0], top=top),), **fields)

    def play(self, call: "ModelCall") -> "tuple[list[Part], End]":
        """The parts of this answer under the call's token limit and stop words."""
        tokens = self.tokens or tuple(
            FakeToken(word, top=((word, 0.0),)) for word in re.findall(r"\s*\S+|\s+", self.content)
        )
        tokens, finish = _before_stop(tokens, call.settings.get("stop") or ()), "stop"
        limit = call.settings.get("max_tokens")
        if limit is not None and limit < len(tokens):
            tokens, finish = tokens[:limit], "length"
        parts = [Part(text=token.text, tokens=(token,)) for token in tokens]
        parts += [Part(tool_calls=self.tool_calls)] if self.tool_calls else []
        return parts, End(finish, self.prompt_tokens, len(tokens) + len(self.tool_calls))


Backend = BaseChatModel | FakeAnswer | Callable[[dict[str, Any]], FakeAnswer]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Latency and failures by rate; the n-th model call of two runs with one seed has the same fate."""

    latency_s: float = 0.0
    error_rate: float = 0.0
    hang_rate: float = 0.0
    seed: int = 0

    def fate(self, number: int) -> Literal["answer", "error", "hang"]:
        """What happens to the model call of this number."""
        if not self.error_rate and not self.hang_rate:
            return "answer"
        draw = Random(f"{self.seed}:{number}").random()
        return "error" if draw < self.error_rate else "hang" if draw < self.error_rate + self.hang_rate else "answer"


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """A request for an answer, free of protocol."""

    request: dict[str, Any]
    """The request's JSON, for scripts."""
    messages: Sequence[BaseMessage]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Call arguments for a chat model: max_tokens, temperature, seed, stop, logprobs, top_logprobs, response_format."""
    stream: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of an answer."""

    text: str = ""
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    tokens: tuple[FakeToken, ...] = ()


@dataclass(frozen=True)
class End:
    """What a server reports once an answer is complete."""

    finish: Finish = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


async def model_parts(model: BaseChatModel, call: ModelCall) -> AsyncIterator[Part | End]:
    """The parts of a real chat model's answer; the end comes last."""
    end = End()
    if call.stream:
        async for chunk in model.astream(call.messages, **call.settings):
            yield _part(chunk)
            end = _end(chunk, end)
    else:
        message = await model.ainvoke(call.messages, **call.settings)
        yield _part(message)
        end = _end(message, end)
    yield end


def fake_embedding(text: str, dimensions: int = 64) -> list[float]:
    """A unit vector of hashed letter triples: texts that share words lie close, in every process alike."""
    vector = [0.0] * dimensions
    padded = f"  {text.casefold()} "
    for start in range(len(padded) - 2):
        vector[crc32(padded[start : start + 3].encode()) % dimensions] += 1.0
    norm = math.hypot(*vector)
    return [value / norm for value in vector]


def user_text(request: Mapping[str, Any]) -> str:
    """The last user text of an Ollama or a Gemini request, for scripts that answer by it."""
    if "contents" in request:
        users = [turn for turn in request["contents"] if turn.get("role", "user") == "user"]
        return "".join(part.get("text", "") for part in users[-1]["parts"])
    return str([message for message in request["messages"] if message["role"] == "user"][-1]["content"])


def _before_stop(tokens: tuple[FakeToken, ...], stop: Sequence[str]) -> tuple[FakeToken, ...]:
    text = "".join(token.text for token in tokens)
    end = min((text.index(word) for word in stop if word in text), default=len(text))
    kept: list[FakeToken] = []
    for token in tokens:
        if end <= 0:
            break
        kept.append(FakeToken(token.text[:end], token.logprob, token.top))
        end -= len(token.text)
    return tuple(kept)


def _part(message: AIMessage) -> Part:
    tokens = tuple(
        FakeToken(
            entry["token"],
            entry["logprob"],
            tuple((other["token"], other["logprob"]) for other in entry["top_logprobs"] or ()),
        )
        for entry in message.response_metadata.get("logprobs") or ()
    )
    calls = tuple((call["name"], call["args"]) for call in message.tool_calls)
    return Part(text=str(message.text), tokens=tokens, tool_calls=calls)


def _end(message: AIMessage, so_far: End) -> End:
    usage, reason = message.usage_metadata, message.response_metadata.get("done_reason")
    finish: Finish = "length" if reason == "length" else "stop" if reason else so_far.finish
    if usage is None:
        return End(finish, so_far.prompt_tokens, so_far.completion_tokens)
    return End(finish, so_far.prompt_tokens + usage["input_tokens"], so_far.completion_tokens + usage["output_tokens"])
