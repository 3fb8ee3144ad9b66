"""The loopback servers, seen through the real clients."""

import json
import math
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import ollama
import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    message_chunk_to_message,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_ollama import ChatOllama, OllamaEmbeddings
from pydantic import BaseModel, Field

from tests.servers.fake_answers import FakeAnswer, Faults, fake_embedding, user_text
from tests.servers.gemini import GeminiServer
from tests.servers.loopback import LoopbackServer
from tests.servers.ollama import OllamaModel, OllamaServer


class Answer(BaseModel):
    """The label of a text."""

    label: Literal["fine", "toxic"]


def student(server: OllamaServer, **fields: Any) -> ChatOllama:
    return ChatOllama(model="fake", base_url=server.url, **fields)


def teacher(server: GeminiServer, **fields: Any) -> ChatGoogleGenerativeAI:
    settings = {"max_retries": 1, "api_key": "test", **fields}
    return ChatGoogleGenerativeAI(model="gemini-fake", base_url=server.url, **settings)


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


class FakeBackendModel(BaseChatModel):
    """Stands where the embedded model does: token by token, with its log probabilities and call arguments."""

    seen: list[dict[str, Any]] = Field(default_factory=list)
    conversations: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake-backend"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        first, *others = self._stream(messages, stop, run_manager, **kwargs)
        whole = message_chunk_to_message((first + others).message)
        return ChatResult(generations=[ChatGeneration(message=whole)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self.seen.append({**kwargs, "stop": stop})
        self.conversations.append(messages)
        if messages[-1].text == "break":
            msg = "out of memory"
            raise RuntimeError(msg)
        for word in ("all", " fine"):
            entry = {"token": word, "logprob": -0.5, "top_logprobs": [{"token": word, "logprob": -0.5}]}
            logprobs = {"logprobs": [entry]} if kwargs.get("logprobs") else {}
            yield ChatGenerationChunk(message=AIMessageChunk(content=word, response_metadata=logprobs))
        usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "input_token_details": {"cache_read": 5}}
        end = AIMessageChunk(content="", usage_metadata=usage, response_metadata={"done_reason": "length"})
        yield ChatGenerationChunk(message=end)


# Ollama


@pytest.mark.parametrize("stream", [True, False])
async def test_label_probabilities_reach_chat_ollama_alike_in_every_way_of_calling(stream: bool) -> None:
    answer = FakeAnswer.picking({"toxic": 0.7, "fine": 0.2, " toxic": 0.05}, prompt_tokens=12)
    with OllamaServer(answer) as server:
        model = student(server, logprobs=True, top_logprobs=2)
        replies = [model.invoke("hello", stream=stream), await model.ainvoke("hello", stream=stream)]
    for reply in replies:
        [token] = reply.response_metadata["logprobs"]
        top = {other["token"]: math.exp(other["logprob"]) for other in token["top_logprobs"]}
        assert reply.text == token["token"] == "toxic"
        assert top == pytest.approx({"toxic": 0.7, "fine": 0.2})
        assert reply.response_metadata["done_reason"] == "stop"
        assert reply.usage_metadata == {"input_tokens": 12, "output_tokens": 1, "total_tokens": 13}


async def test_structured_output_sends_the_schema_and_reads_the_answer() -> None:
    with OllamaServer(FakeAnswer(content='{"label": "toxic"}')) as server:
        model = student(server).with_structured_output(Answer)
        assert model.invoke("hello") == await model.ainvoke("hello") == Answer(label="toxic")
        sent = [request.body for request in server.requests]
    assert all(body is not None and body["format"]["properties"]["label"]["enum"] == ["fine", "toxic"] for body in sent)


def test_options_are_recorded_and_cut_the_answer() -> None:
    with OllamaServer(FakeAnswer(content="one two three. four")) as server:
        short = student(server, num_predict=2, temperature=0, seed=3, num_ctx=2048).invoke("hello")
        stopped = student(server).invoke("hello", stop=["ree"])
        options = server.requests[0].body["options"] if server.requests[0].body else None
    assert (short.text, short.response_metadata["done_reason"]) == ("one two", "length")
    assert (stopped.text, stopped.response_metadata["done_reason"]) == ("one two th", "stop")
    assert options == {"num_predict": 2, "temperature": 0, "seed": 3, "num_ctx": 2048}


def test_ollama_describes_its_models_in_the_types_of_its_own_package() -> None:
    card = OllamaModel(name="smol:135m", digest="ab" * 32, context_length=2048, capabilities=("completion",))
    with OllamaServer(FakeAnswer(), models=(card,)) as server:
        client = ollama.Client(server.url)
        [listed], shown = client.list().models, client.show("smol:135m")
        assert ChatOllama(model="smol:135m", base_url=server.url, validate_model_on_init=True)
    assert (listed.model, listed.digest) == ("smol:135m", "ab" * 32)
    assert shown.details is not None and shown.details.quantization_level == "Q4_K_M"
    assert shown.modelinfo is not None and shown.modelinfo["llama.context_length"] == 2048
    assert shown.parameters is not None and shown.parameters.startswith("stop")
    assert shown.capabilities == ["completion"]


@pytest.mark.parametrize(
    ("model", "fields", "status", "message"),
    [
        ("absent", {}, 404, "model 'absent' not found"),
        ("plain", {"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ("plain", {"reasoning": True}, 400, '"plain:latest" does not support thinking'),
    ],
)
def test_ollama_refuses_what_ollama_refuses(model: str, fields: dict[str, Any], status: int, message: str) -> None:
    card = OllamaModel(name="plain:latest", capabilities=("completion",))
    with OllamaServer(FakeAnswer(), models=(card,)) as server, pytest.raises(ollama.ResponseError) as caught:
        ChatOllama(model=model, base_url=server.url).invoke("hello", **fields)
    assert (caught.value.status_code, message in caught.value.error) == (status, True)


def test_ollama_embeds_each_text_and_nearness_means_something() -> None:
    with OllamaServer(FakeAnswer()) as server:
        model = OllamaEmbeddings(model="fake", base_url=server.url, dimensions=32)
        mine, near, far = model.embed_documents(["rude words at a colleague", "rude words at colleagues", "lunch menu"])
    assert mine == pytest.approx(fake_embedding("rude words at a colleague", 32))
    assert cosine(mine, mine) == pytest.approx(1)
    assert cosine(mine, near) > cosine(mine, far)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (FakeAnswer(status=500, error="boom"), ollama.ResponseError),
        (FakeAnswer(content="one two", break_off="error", after_parts=1), ollama.ResponseError),
        (FakeAnswer(break_off="drop"), httpx.RemoteProtocolError),
        (FakeAnswer(content="one two", break_off="drop", after_parts=1), httpx.RemoteProtocolError),
        (FakeAnswer(body=b"\xff\xfe<html>"), json.JSONDecodeError),
        (FakeAnswer(break_off="hang"), httpx.ReadTimeout),
        (FakeAnswer(content="one two", break_off="hang", after_parts=1), httpx.ReadTimeout),
        (FakeAnswer(delay_s=5), httpx.ReadTimeout),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_scripted_faults_are_what_the_client_meets(
    answer: FakeAnswer, error: type[Exception], stream: bool
) -> None:
    with OllamaServer(answer) as server:
        model = student(server, client_kwargs={"timeout": 0.2 if error is httpx.ReadTimeout else 30})
        with pytest.raises(error):
            model.invoke("hello", stream=stream)
        with pytest.raises(error):
            await model.ainvoke("hello", stream=stream)
        assert server.count("/api/chat") == 2


def test_a_scripted_backend_answers_by_the_request() -> None:
    def shout(request: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer(content=user_text(request).upper())

    with OllamaServer(shout) as local, GeminiServer(shout) as cloud:
        assert student(local).invoke("hello").text == teacher(cloud).invoke("hello").text == "HELLO"


def test_a_mistake_in_a_script_is_raised_where_the_block_ends() -> None:
    def broken(request: dict[str, Any]) -> FakeAnswer:
        raise LookupError(request["model"])

    with pytest.raises(LookupError, match="fake"), OllamaServer(broken) as server:  # noqa: SIM117
        with pytest.raises(ollama.ResponseError, match="LookupError"):
            student(server).invoke("hello")


# A chat model behind Ollama


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_model_answers_behind_ollama(stream: bool) -> None:
    backend = FakeBackendModel()
    with OllamaServer(backend) as server:
        model = student(server, num_predict=5, temperature=0, seed=1, stop=["#"], logprobs=True, top_logprobs=20)
        reply = await model.ainvoke(
            [("system", "be brief"), ("user", "hello")], stream=stream, format={"type": "string"}
        )
    assert reply.text == "all fine"
    assert [token["top_logprobs"][0]["token"] for token in reply.response_metadata["logprobs"]] == ["all", " fine"]
    assert reply.response_metadata["done_reason"] == "length"
    assert reply.usage_metadata == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    assert backend.conversations == [[SystemMessage("be brief"), HumanMessage("hello")]]
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "string"}}}
    settings = {"max_tokens": 5, "temperature": 0, "seed": 1, "stop": ["#"], "logprobs": True, "top_logprobs": 20}
    assert backend.seen == [{**settings, "response_format": schema}]


@pytest.mark.parametrize("stream", [True, False])
def test_a_failing_chat_model_is_a_server_error(stream: bool) -> None:
    with OllamaServer(FakeBackendModel()) as server, pytest.raises(ollama.ResponseError, match="out of memory"):
        student(server).invoke("break", stream=stream)


# Gemini


async def test_gemini_answers_sync_async_and_streamed_alike() -> None:
    with GeminiServer(FakeAnswer(content="one two three", prompt_tokens=12)) as server:
        model = teacher(server)
        replies = [model.invoke("hello"), await model.ainvoke("hello")]
        chunks = [chunk async for chunk in model.astream("hello")]
        assert [chunk.text for chunk in model.stream("hello") if chunk.text] == ["one", " two", " three"]
    assert [chunk.text for chunk in chunks if chunk.text] == ["one", " two", " three"]
    whole = chunks[0] + chunks[1:]
    for reply in (*replies, whole):
        assert reply.text == "one two three"
        assert reply.response_metadata["finish_reason"] == "STOP"
        assert reply.response_metadata["model_name"] == "gemini-fake"
        assert reply.usage_metadata is not None
        assert reply.usage_metadata["total_tokens"] == 15


async def test_gemini_structured_output_sends_the_schema_and_reads_the_answer() -> None:
    with GeminiServer(FakeAnswer(content='{"label": "toxic"}')) as server:
        model = teacher(server).with_structured_output(Answer)
        assert model.invoke("hello") == await model.ainvoke("hello") == Answer(label="toxic")
        config = server.requests[0].body["generationConfig"] if server.requests[0].body else {}
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"]["properties"]["label"]["enum"] == ["fine", "toxic"]


@pytest.mark.parametrize(
    ("status", "error", "word"),
    [
        (400, ModelInvalidRequestError, "INVALID_ARGUMENT"),
        (401, ModelAuthenticationError, "UNAUTHENTICATED"),
        (403, ModelPermissionDeniedError, "PERMISSION_DENIED"),
        (404, ModelNotFoundError, "NOT_FOUND"),
        (429, ModelRateLimitError, "RESOURCE_EXHAUSTED"),
        (500, ModelAPIError, "INTERNAL"),
        (503, ModelAPIError, "UNAVAILABLE"),
    ],
)
async def test_gemini_errors_are_typed(status: int, error: type[ModelError], word: str) -> None:
    with GeminiServer(FakeAnswer(status=status, error="as scripted")) as server:
        model = teacher(server)
        with pytest.raises(error, match=f"{status} {word}.*as scripted"):
            model.invoke("hello")
        with pytest.raises(error, match=f"{status} {word}.*as scripted"):
            await model.ainvoke("hello")
        with pytest.raises(error, match=word):
            list(model.stream("hello"))


# Load


async def test_faults_by_rate_are_the_same_in_two_runs() -> None:
    async def statuses(server: LoopbackServer) -> list[int]:
        body = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "stream": False}
        async with httpx.AsyncClient(base_url=server.url, timeout=1) as client:
            found = []
            for _ in range(10):
                try:
                    found.append((await client.post("/api/chat", json=body)).status_code)
                except httpx.ReadTimeout:
                    found.append(0)
            return found

    faults = Faults(error_rate=0.2, hang_rate=0.1, seed=11)
    with OllamaServer(FakeAnswer(content="ok"), faults=faults) as one:
        first = await statuses(one)
    with OllamaServer(FakeAnswer(content="ok"), faults=faults) as two:
        second = await statuses(two)
    assert first == second
    assert set(first) == {200, 503, 0}
