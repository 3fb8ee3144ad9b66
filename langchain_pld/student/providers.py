"""What each provider's chat models can do, and how to set them up for short, scored answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel, SimpleChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence

from langchain_pld.answer import MOST_OPTIONS, AnswerFormat, Scorer
from langchain_pld.artifact import ModelFingerprint
from langchain_pld.errors import ModelSetupError
from langchain_pld.provider_names import provider_of
from langchain_pld.student.label_words import LabelWords
from langchain_pld.student.sanitize import OPENING
from langchain_pld.student.scoring import EVIDENCE_TOKENS, answer_schema

__all__ = ["ModelProfile", "fingerprint_of", "model_spec", "most_labels", "profile_of", "tokenizer_of"]

_TEXT_TOKENS = 16
_WORD_TOKENS = 8
_CHARS_PER_TOKEN = 4
_STRUCTURED_TOKENS = 96
_OLLAMA_CONTEXT = 4096
_OLLAMA_ROOM = 2048
_OLLAMA_MARGIN = 16


class ModelProfile:
    """A chat model as a student, by LangChain's common interface; subclasses know the peculiarities of a provider.

    Args:
        model: The chat model; its settings are kept unless an answer needs others.
    """

    max_alternatives: ClassVar[int] = 20
    """Most alternatives per token that the provider lists."""
    in_process: ClassVar[bool] = False
    """Whether the model runs inside this process, one call at a time."""
    bound_to_loop: ClassVar[bool] = False
    """Whether the client keeps connections that die with their event loop."""

    def __init__(self, model: BaseChatModel) -> None:
        self.model = model
        self.spec = model_spec(model)
        """The model as `provider:name`."""

    @property
    def tokenizer(self) -> Callable[[str], list[int]] | None:
        """The model's own tokenizer, text to token ids, if available; the first call may load the model."""
        return None  # LangChain's default is the tokenizer of GPT-2

    @property
    def has_async_form(self) -> bool:
        """Whether the model has an async form; otherwise LangChain would run it in the event loop's executor."""
        return type(self.model)._agenerate not in {BaseChatModel._agenerate, SimpleChatModel._agenerate}

    def keeps_time(self, timeout_s: float) -> bool:
        """Whether the model's client enforces the time limit itself, so that a blocking call needs no watch."""
        own = (getattr(self.model, name, None) for name in ("timeout", "request_timeout", "default_request_timeout"))
        return any(isinstance(seconds, int | float) and 0 < seconds <= timeout_s for seconds in own)

    def context_length(self, measured: int | None, prompt_tokens: int) -> int | None:
        """Tokens that fit into one request, if known; asks no server and loads nothing."""
        del prompt_tokens
        return measured

    def loaded_context_length(self) -> int | None:
        """The context length of the loaded model, if known; loads the model."""
        return None

    def was_cut(self, reply: AIMessage, context_length: int) -> bool:
        """Whether the provider may have silently cut the prompt."""
        del reply, context_length
        return False

    def fingerprint(self, *, ask_server: bool = True) -> ModelFingerprint:
        """The identity of the model, see `fingerprint_of`."""
        del ask_server
        return ModelFingerprint(spec=self.spec)

    def bind(
        self, answer: AnswerFormat, scorer: Scorer, *, timeout_s: float, context_length: int | None = None
    ) -> Runnable[Any, AIMessage]:
        """Set up the model for scored answers: temperature 0, few tokens, no thinking, and what the scorer needs.

        Args:
            answer: What the student answers with.
            scorer: How the answer will be read.
            timeout_s: Time limit of a call in seconds, set on clients without a finite limit of their own.
            context_length: Context to request, in tokens, if the model does not set one.

        Raises:
            ModelSetupError: The scorer is `structured`, and the model has no structured output.
        """
        del timeout_s, context_length
        if scorer == "structured":
            try:
                parsed = self.model.with_structured_output(answer_schema(answer), include_raw=True)
            except NotImplementedError as error:
                msg = f"{self.spec} has no structured output; use the scorer 'logprobs' or 'text', or another model"
                raise ModelSetupError(msg) from error
            return RunnableSequence(parsed, RunnableLambda(lambda result: result["raw"]))
        if scorer == "logprobs":
            tokens = _max_tokens(answer, scorer)
            return self.model.bind(**self._logprob_options(answer), max_tokens=tokens, temperature=0.0)
        return self.model

    def _logprob_options(self, answer: AnswerFormat) -> dict[str, Any]:
        # A label's mass is spread over spellings (case, a leading space): ask for several per label.
        options = MOST_OPTIONS if answer.form == "two_stage" else len(answer.codes)
        return {"logprobs": True, "top_logprobs": min(self.max_alternatives, max(20, 4 * options))}

    def _answer_options(self, answer: AnswerFormat, scorer: Scorer, schema_option: str) -> dict[str, Any]:
        """The options for short answers of an embedded or Ollama model."""
        options: dict[str, Any] = {"temperature": 0.0}
        if scorer == "logprobs":
            options |= self._logprob_options(answer)
        elif scorer == "structured":
            options[schema_option] = answer_schema(answer)
        # Thinking has lines of its own.
        if answer.form == "evidence" and scorer != "structured" and not answer.thinking_tokens:
            options["stop"] = ["\n"]
        return options


class _EmbeddedProfile(ModelProfile):
    max_alternatives = 200
    in_process = True

    @property
    def tokenizer(self) -> Callable[[str], list[int]]:
        return self.model.get_token_ids

    def keeps_time(self, timeout_s: float) -> bool:  # noqa: ARG002
        return True  # waiting in its queue is not hanging

    def context_length(self, measured: int | None, prompt_tokens: int) -> int | None:  # noqa: ARG002
        own = getattr(self.model, "n_ctx", None)
        return min((size for size in (own, measured) if size is not None), default=None)

    def loaded_context_length(self) -> int | None:
        return getattr(self.model, "context_length", None)

    def fingerprint(self, *, ask_server: bool = True) -> ModelFingerprint:  # noqa: ARG002
        return ModelFingerprint(
            spec=self.spec,
            digest=getattr(self.model, "model_digest", None),
            quantization=getattr(self.model, "quantization", None),
            context_length=self.loaded_context_length(),
        )

    def bind(
        self,
        answer: AnswerFormat,
        scorer: Scorer,
        *,
        timeout_s: float,  # noqa: ARG002
        context_length: int | None = None,  # noqa: ARG002
    ) -> Runnable[Any, AIMessage]:
        options = self._answer_options(answer, scorer, "response_format")
        return self.model.bind(**options, max_tokens=_max_tokens(answer, scorer), opening=OPENING)


class _OllamaProfile(ModelProfile):
    bound_to_loop = True

    def keeps_time(self, timeout_s: float) -> bool:  # noqa: ARG002
        return True  # `bind` sees to it

    def context_length(self, measured: int | None, prompt_tokens: int) -> int | None:
        own = getattr(self.model, "num_ctx", None)
        # Ollama's default depends on its version and the GPU's memory.
        needed = -(-(prompt_tokens + _OLLAMA_ROOM) // 1024) * 1024
        return int(own) if own is not None else measured or max(_OLLAMA_CONTEXT, needed)

    def was_cut(self, reply: AIMessage, context_length: int) -> bool:
        # Ollama silently drops the middle, but its token count shows it.
        counted = reply.usage_metadata
        return counted is not None and counted["input_tokens"] >= context_length - _OLLAMA_MARGIN

    def fingerprint(self, *, ask_server: bool = True) -> ModelFingerprint:
        if not ask_server:
            return ModelFingerprint(spec=self.spec)
        import httpx
        import ollama

        fingerprint = ModelFingerprint(spec=self.spec, context_length=getattr(self.model, "num_ctx", None))
        client = ollama.Client(host=getattr(self.model, "base_url", None), timeout=5.0)
        try:
            listed = client.list().models
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError):
            return fingerprint
        name = self.spec.removeprefix("ollama:")
        full_name = name if ":" in name else f"{name}:latest"
        entry = next((entry for entry in listed if entry.model == full_name), None)
        if entry is None:
            return fingerprint
        level = entry.details.quantization_level if entry.details else None
        return fingerprint.model_copy(update={"digest": entry.digest, "quantization": level})

    def bind(
        self, answer: AnswerFormat, scorer: Scorer, *, timeout_s: float, context_length: int | None = None
    ) -> Runnable[Any, AIMessage]:
        model = self.model
        options = {name: getattr(model, name) for name in model.model_fields_set}
        client = dict(options.get("client_kwargs") or {})
        if client.get("timeout") is None:
            client["timeout"] = timeout_s
        if options.get("num_ctx") is None and context_length is not None:
            options["num_ctx"] = context_length
        options.setdefault("reasoning", False)
        options |= {"client_kwargs": client, "validate_model_on_init": False}
        options |= {"num_predict": _max_tokens(answer, scorer), **self._answer_options(answer, scorer, "format")}
        return type(model)(**options)


_PROFILES = {"embedded": _EmbeddedProfile, "ollama": _OllamaProfile}


def profile_of(model: BaseChatModel) -> ModelProfile:
    """The profile of a chat model's provider."""
    return _PROFILES.get(model_spec(model).partition(":")[0], ModelProfile)(model)


def model_spec(model: BaseChatModel) -> str:
    """The `provider:name` of a chat model, as `resolve_chat_model` takes it."""
    named = (getattr(model, field, None) for field in ("model", "model_name", "model_id", "deployment_name"))
    name = next(filter(None, named), type(model).__name__)
    return f"{provider_of(type(model), model._llm_type)}:{str(name).removeprefix('models/')}"


def fingerprint_of(model: BaseChatModel, *, ask_server: bool = True) -> ModelFingerprint:
    """The identity of a model, as exactly as its provider tells.

    Args:
        model: Any chat model.
        ask_server: Ask an Ollama server for the digest of the weights, which blocks for five seconds at most;
            otherwise, or without an answer, only the name is known.
    """
    return profile_of(model).fingerprint(ask_server=ask_server)


def most_labels(model: BaseChatModel) -> int:
    """How many labels one answer of this model can show, with room for two more spellings."""
    return profile_of(model).max_alternatives - 2


def tokenizer_of(model: BaseChatModel) -> Callable[[str], list[int]] | None:
    """See `ModelProfile.tokenizer`."""
    return profile_of(model).tokenizer


def _max_tokens(answer: AnswerFormat, scorer: Scorer) -> int:
    if scorer == "structured":
        tokens = _STRUCTURED_TOKENS
    elif answer.form == "evidence":
        tokens = EVIDENCE_TOKENS
    elif scorer == "text":
        tokens = _TEXT_TOKENS
    else:
        # Enough to see whether the word continues as the label's: one token if all words are short. If one word begins
        # another, the token after the shorter one tells which it is.
        words = LabelWords(answer.codes)
        longest, nested = max(map(len, answer.codes.values())), any(map(words.nests, answer.codes.values()))
        tokens = min(_WORD_TOKENS, -(-longest // _CHARS_PER_TOKEN) + nested)
        # White space may come between thinking and answer.
        tokens += 3 if answer.thinking_tokens else 0
    return answer.thinking_tokens + tokens
