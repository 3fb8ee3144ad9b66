"""A LangChain chat model that runs llama.cpp inside the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, Field, model_validator

from langchain_pld.errors import MissingExtraError
from langchain_pld.models.catalogue import DEFAULT_MODEL, catalogue_entry
from langchain_pld.models.chat_template import ChatTurn
from langchain_pld.models.errors import BadCallError
from langchain_pld.models.fetch import file_sha256, is_path, model_path
from langchain_pld.models.gguf import GGUFHeader, read_gguf_header

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from langchain_pld.models.engine import Chunk, Completion, CompletionRequest, Engine, TokenLogprob

__all__ = ["EmbeddedChatModel"]


class EmbeddedChatModel(BaseChatModel):
    """A chat model inside the process: no server, no key, and the same answer to the same question, bit for bit.

    The model file is fetched and loaded at the first call. Instances with the same file and engine settings share one
    loaded model, and their calls run one after another. Log-probabilities have ChatOllama's format:
    `response_metadata["logprobs"]` is a list of `{"token", "logprob", "top_logprobs": [{"token", "logprob"}, ...]}`.
    They are the model's own, before temperature and before a schema masks tokens.

    Example:
        ```python
        from langchain_pld.models.embedded import EmbeddedChatModel

        model = EmbeddedChatModel(model="smollm2-135m", max_tokens=40)
        print(model.invoke("Name a colour.").text)
        ```
    """

    model: str = DEFAULT_MODEL
    """A catalogue name, or the path of a .gguf file."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token each time; higher values sample."""
    seed: int = Field(default=0, ge=0, lt=2**32 - 1)
    """Seed of the sampling."""
    max_tokens: int = Field(default=1024, gt=0)
    """Maximum tokens of an answer. A small model may otherwise repeat itself until its context is full."""
    stop: list[str] | None = None
    """Texts that end an answer."""
    logprobs: bool = False
    """Whether answers carry log-probabilities."""
    top_logprobs: int | None = Field(default=None, ge=0)
    """How many alternatives to list per token, up to the whole vocabulary; any number turns `logprobs` on.

    llama.cpp's order of summation depends on this number, so values move by some 0.00002 with it.
    """
    opening: str = ""
    """The usual beginning of the last message, e.g. a delimiter: it is cached with the messages before it."""
    n_ctx: int = Field(default=8192, ge=64)
    """Maximum tokens of prompt and answer together; at most what the model was trained with."""
    slots: int = Field(default=4, ge=1, le=64)
    """How many prompt prefixes stay cached; each takes the memory of a full context."""
    threads: int | None = Field(default=None, ge=1)
    """Computing threads; by default one per physical core available to the process."""
    timeout: float = Field(default=300.0, gt=0)
    """Time limit of a call in seconds, not counting its wait in the queue."""

    @model_validator(mode="after")
    def _has_runtime(self) -> Self:
        if find_spec("xllamacpp") is None:
            raise MissingExtraError.of("xllamacpp", "embedded")
        return self

    # --- the model's identity ---

    @property
    def model_name(self) -> str:
        """Name for metadata: the catalogue name, or the file name."""
        return Path(self.model).name if is_path(self.model) else self.model

    @property
    def model_digest(self) -> str:
        """SHA-256 of the model file, in hexadecimal; a file given by path is read once."""
        if is_path(self.model):
            return file_sha256(model_path(self.model))
        return catalogue_entry(self.model).sha256

    @property
    def quantization(self) -> str:
        """Quantization of the weights, e.g. `Q4_K_M`. Fetches the model if necessary."""
        return self._header().quantization

    @property
    def context_length(self) -> int:
        """Maximum tokens of prompt and answer together: `n_ctx`, or what the model was trained with, if less."""
        return min(self.n_ctx, self._header().context_length or self.n_ctx)

    @property
    def runtime(self) -> str:
        """What computes the answers; their last digits depend on the machine and the version of llama.cpp."""
        from langchain_pld.models.llama_server import runtime

        return runtime(self.threads)

    def get_token_ids(self, text: str) -> list[int]:
        """Tokens of `text` inside a message. Fetches and loads the model if necessary."""
        return self._engine().token_ids(text)

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Length of the whole prompt in tokens, including the chat template.

        Raises:
            BadCallError: There are `tools`, which this model does not support, or a message it cannot read.
        """
        if tools:
            raise BadCallError(_NO_TOOLS)
        return self._engine().prompt_length(_turns(messages))

    def close(self) -> None:
        """Unload the model for all instances that share it; the next call loads it again. Not during a call."""
        self._engine().close()

    @property
    def _llm_type(self) -> str:
        return "embedded-llama.cpp"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("model", "temperature", "seed", "max_tokens", "n_ctx")}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "embedded"
        if "model" not in kwargs:
            params["ls_model_name"] = self.model_name
        if (stops := stop or self.stop) is not None:
            params["ls_stop"] = stops
        return params

    # --- answering ---

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return a runnable whose answers follow `schema`, token by token.

        It raises `OutputParserException` for an answer cut off at `max_tokens`.

        Args:
            schema: A pydantic class, a TypedDict, or a JSON schema.
            include_raw: Return `{"raw", "parsed", "parsing_error"}` instead of raising for an unreadable answer.
            method: `function_calling` means `json_schema`; `json_mode` allows any JSON object and only parses it as
                `schema`.
            strict: Unless False, an object must have exactly the fields of the schema, because an unconstrained small
                model invents fields until its tokens are spent.
            **kwargs: Refused.

        Raises:
            ValueError: `method` or an argument is unknown.
        """
        if kwargs or method not in ("json_schema", "function_calling", "json_mode"):
            raise ValueError(f"unknown arguments for structured output: {kwargs or method!r}")
        plain = convert_to_json_schema(schema)
        closed = convert_to_json_schema(schema, strict=strict is not False) if method != "json_mode" else None
        model = self.bind(
            response_format=closed or {"type": "object"},
            ls_structured_output_format={"kwargs": {"method": method, "strict": strict}, "schema": plain},
        )
        parser: BaseOutputParser[Any] = JsonOutputParser()
        if isinstance(schema, type) and is_basemodel_subclass(schema):
            parser = PydanticOutputParser(pydantic_object=schema)
        read = RunnableLambda(_uncut) | parser
        if not include_raw:
            return model | read
        parse = RunnablePassthrough.assign(parsed=itemgetter("raw") | read, parsing_error=lambda _: None)
        give_up = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parse.with_fallbacks([give_up], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        with call.submit() as future:
            return call.result(future.result())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        with call.submit() as future:
            return call.result(await asyncio.wrap_future(future))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        pieces: SimpleQueue[Chunk | None] = SimpleQueue()
        with call.submit(pieces.put) as future:
            future.add_done_callback(lambda _: pieces.put(None))
            while (piece := pieces.get()) is not None:
                chunk = call.chunk(piece)
                if run_manager:
                    run_manager.on_llm_new_token(piece.text, chunk=chunk)
                yield chunk
            yield call.last_chunk(future.result())

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Chunk | None] = asyncio.Queue()

        def put(piece: Chunk | None) -> None:
            # The loop may be closed by now, and the caller gone.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        with call.submit(put) as future:
            future.add_done_callback(lambda _: put(None))
            while (piece := await pieces.get()) is not None:
                chunk = call.chunk(piece)
                if run_manager:
                    await run_manager.on_llm_new_token(piece.text, chunk=chunk)
                yield chunk
            yield call.last_chunk(future.result())

    # --- helpers ---

    def _header(self) -> GGUFHeader:
        return read_gguf_header(model_path(self.model))

    def _engine(self) -> Engine:
        from langchain_pld.models.engine import get_engine
        from langchain_pld.models.llama_server import ServerSettings

        return get_engine(
            ServerSettings(path=model_path(self.model), n_ctx=self.n_ctx, slots=self.slots, threads=self.threads)
        )

    def _call(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> _Call:
        """The request of a call, whose options override the fields of the model."""
        from langchain_pld.models.engine import CompletionRequest

        if unknown := sorted(set(options) - _CALL_OPTIONS):
            msg = f"EmbeddedChatModel does not know the option {unknown[0]!r}; it knows {sorted(_CALL_OPTIONS)}"
            raise BadCallError(_NO_TOOLS if unknown[0] in ("tools", "tool_choice") else msg)
        model = self
        if fields := {name: options[name] for name in _FIELD_OPTIONS if options.get(name) is not None}:
            # Constructed, not copied, so that the values are validated.
            model = type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | fields)
        top = model.top_logprobs
        request = CompletionRequest(
            turns=_turns(messages),
            opening=model.opening,
            max_tokens=model.max_tokens,
            temperature=model.temperature,
            seed=model.seed,
            stop=tuple(stop if stop is not None else model.stop or ()),
            n_probs=(top or 0) if model.logprobs or top is not None else None,
            json_schema=_json_schema(options.get("response_format")),
            timeout=model.timeout,
        )
        return _Call(model, request)


_FIELD_OPTIONS: Final = frozenset(
    {"model", "temperature", "seed", "max_tokens", "logprobs", "top_logprobs", "timeout", "opening"}
)
# LangChain requests the streaming path with `stream`.
_CALL_OPTIONS: Final = _FIELD_OPTIONS | {"response_format", "stream"}
_NO_TOOLS: Final = "EmbeddedChatModel calls no tools; ask for structured output instead"


class _Call:
    """One request and the messages made from its answer."""

    def __init__(self, model: EmbeddedChatModel, request: CompletionRequest) -> None:
        self._model = model
        self._request = request

    @contextlib.contextmanager
    def submit(self, on_chunk: Callable[[Chunk], None] | None = None) -> Iterator[Future[Completion]]:
        """Queue the request; leaving the block, for whatever reason, ends the work."""
        from langchain_pld.models.engine import submit

        cancel = threading.Event()
        future = submit(self._model._engine, self._request, on_chunk=on_chunk, cancel=cancel)
        try:
            yield future
        finally:
            cancel.set()
            future.cancel()

    def result(self, completion: Completion) -> ChatResult:
        metadata = self._metadata(completion) | self._logprobs(completion.logprobs)
        message = AIMessage(completion.text, response_metadata=metadata, usage_metadata=_usage(completion))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def chunk(self, piece: Chunk) -> ChatGenerationChunk:
        metadata = self._logprobs(piece.logprobs)
        return ChatGenerationChunk(message=AIMessageChunk(content=piece.text, response_metadata=metadata))

    def last_chunk(self, completion: Completion) -> ChatGenerationChunk:
        metadata = self._metadata(completion) | self._logprobs(())
        usage = _usage(completion)
        message = AIMessageChunk(content="", response_metadata=metadata, usage_metadata=usage, chunk_position="last")
        return ChatGenerationChunk(message=message)

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        return {"logprobs": list(tokens)} if self._request.n_probs is not None else {}

    def _metadata(self, completion: Completion) -> dict[str, Any]:
        return {
            "model_name": self._model.model_name,
            "model_provider": "embedded",
            "done_reason": completion.done_reason,
            "timings": {"queue_ms": completion.queue_ms},
        }


def _usage(completion: Completion) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=completion.prompt_tokens,
        output_tokens=completion.completion_tokens,
        total_tokens=completion.prompt_tokens + completion.completion_tokens,
        input_token_details=InputTokenDetails(cache_read=completion.cached_tokens),
    )


def _turns(messages: Sequence[BaseMessage]) -> tuple[ChatTurn, ...]:
    return tuple(ChatTurn(_role(message), _text(message)) for message in messages)


def _role(message: BaseMessage) -> str:
    if isinstance(message, AIMessage) and message.tool_calls:
        raise BadCallError(_NO_TOOLS)
    for kind, role in ((SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant")):
        if isinstance(message, kind):
            return role
    raise BadCallError(f"EmbeddedChatModel reads system, human and AI messages, not a {type(message).__name__}")


def _text(message: BaseMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    texts = []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
        elif block.get("type") == "text":
            texts.append(str(block["text"]))
        else:
            msg = f"EmbeddedChatModel reads text only, and a message holds a block of type {block.get('type')!r}"
            raise BadCallError(msg)
    return "".join(texts)


def _uncut(message: AIMessage) -> AIMessage:
    """Refuse an answer that ran out of tokens, which LangChain's parsers would silently complete."""
    if message.response_metadata.get("done_reason") == "length":
        msg = "the structured answer was cut off; give more max_tokens, or bound the strings and lists of the schema"
        raise OutputParserException(msg, llm_output=message.text)
    return message


def _json_schema(response_format: Any) -> Mapping[str, Any] | None:
    """Read `response_format`: a JSON schema, plain or wrapped as in the OpenAI API."""
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object", **rest} if not rest:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case dict(schema) if "json_schema" not in schema:
            return schema
    msg = "response_format must be a JSON schema, or one wrapped as {'type': 'json_schema', 'json_schema': {...}}"
    raise BadCallError(msg)
