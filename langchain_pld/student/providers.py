"""Setting a chat model up for short, scored answers: what each provider calls the same few options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence

from langchain_pld.answer import MOST_OPTIONS, AnswerFormat, Scorer
from langchain_pld.artifact import ModelFingerprint
from langchain_pld.errors import ModelSetupError
from langchain_pld.provider_names import provider_of
from langchain_pld.student.label_words import Words
from langchain_pld.student.sanitize import OPENING
from langchain_pld.student.scoring import EVIDENCE_TOKENS, answer_schema

__all__ = ["MAX_ALTERNATIVES", "bind_student", "fingerprint_of", "model_spec", "most_labels", "tokenizer_of"]

MAX_ALTERNATIVES = {"embedded": 200, "ollama": 20}
"""Most alternatives a token that a provider lists; 20 for the others, as OpenAI's interface has it."""

_ALTERNATIVES = 20
_TEXT_TOKENS = 16
_WORD_TOKENS = 8
_CHARS_PER_TOKEN = 4
_STRUCTURED_TOKENS = 96


def bind_student(
    model: BaseChatModel, answer: AnswerFormat, scorer: Scorer, *, timeout_s: float
) -> Runnable[Any, AIMessage]:
    """The model with everything set that a scored answer needs.

    Temperature 0, few tokens, no thinking; log-probabilities or a JSON schema as the scorer asks.

    Args:
        model: Any chat model; its own settings are kept where an answer does not need others.
        answer: What the student answers with.
        scorer: How the answer will be read.
        timeout_s: Seconds that a call may take, set on the client where it has no finite limit of its own.

    Raises:
        ModelSetupError: The scorer is `structured`, and the model has no structured output.
    """
    tokens = _max_tokens(answer, scorer)
    provider = model_spec(model).partition(":")[0]
    if provider == "ollama":
        return _ollama(model, answer, scorer, tokens, timeout_s)
    if provider == "embedded":
        options: dict[str, Any] = {"max_tokens": tokens, "temperature": 0.0, "opening": OPENING}
        if scorer == "logprobs":
            options |= {"logprobs": True, "top_logprobs": _alternatives(answer, provider)}
        elif scorer == "structured":
            options |= {"response_format": answer_schema(answer)}
        if _one_line(answer, scorer):
            options |= {"stop": ["\n"]}
        return model.bind(**options)
    if scorer == "structured":
        try:
            parsed = model.with_structured_output(answer_schema(answer), include_raw=True)
        except NotImplementedError as error:
            msg = f"{model_spec(model)} has no structured output; use the scorer 'logprobs' or 'text', or another model"
            raise ModelSetupError(msg) from error
        return RunnableSequence(parsed, RunnableLambda(_raw))
    if scorer == "logprobs":
        return model.bind(
            logprobs=True, top_logprobs=_alternatives(answer, provider), max_tokens=tokens, temperature=0.0
        )
    return model


def _raw(result: Any) -> Any:
    return result["raw"]


def _max_tokens(answer: AnswerFormat, scorer: Scorer) -> int:
    if scorer == "structured":
        tokens = _STRUCTURED_TOKENS
    elif answer.form == "evidence":
        tokens = EVIDENCE_TOKENS
    elif scorer == "text":
        tokens = _TEXT_TOKENS
    else:
        # Behind thinking, white space may come before the answer.
        tokens = _word_tokens(answer) + (3 if answer.thinking_tokens else 0)
    return answer.thinking_tokens + tokens


def _word_tokens(answer: AnswerFormat) -> int:
    """Enough to see whether a word that was begun goes on as the label's: one token where all words are short."""
    words = Words(answer.codes)
    # Of two words that begin alike, the token behind the shorter one tells which it is.
    nested = any(map(words.nests, answer.codes.values()))
    return min(_WORD_TOKENS, -(-max(map(len, answer.codes.values())) // _CHARS_PER_TOKEN) + nested)


def _one_line(answer: AnswerFormat, scorer: Scorer) -> bool:
    # Thinking has lines of its own.
    return answer.form == "evidence" and scorer != "structured" and not answer.thinking_tokens


def _alternatives(answer: AnswerFormat, provider: str) -> int:
    # A label's mass is spread over spellings (case, a leading space): ask for several a label.
    options = MOST_OPTIONS if answer.form == "two_stage" else len(answer.codes)
    return min(MAX_ALTERNATIVES.get(provider, _ALTERNATIVES), max(_ALTERNATIVES, 4 * options))


def _ollama(
    model: BaseChatModel, answer: AnswerFormat, scorer: Scorer, tokens: int, timeout_s: float
) -> Runnable[Any, AIMessage]:
    options = {name: getattr(model, name) for name in model.model_fields_set}
    # Ollama's client waits for ever unless it is told otherwise.
    client = dict(options.get("client_kwargs") or {})
    if client.get("timeout") is None:
        client["timeout"] = timeout_s
    options |= {"client_kwargs": client, "temperature": 0.0, "num_predict": tokens, "validate_model_on_init": False}
    options.setdefault("reasoning", False)
    if scorer == "logprobs":
        options |= {"logprobs": True, "top_logprobs": _alternatives(answer, "ollama")}
    elif scorer == "structured":
        options |= {"format": answer_schema(answer)}
    if _one_line(answer, scorer):
        options |= {"stop": ["\n"]}
    return type(model)(**options)


def most_labels(model: BaseChatModel) -> int:
    """How many labels one answer of this model can show, with room for two more spellings."""
    return MAX_ALTERNATIVES.get(model_spec(model).partition(":")[0], _ALTERNATIVES) - 2


def tokenizer_of(model: BaseChatModel) -> Callable[[str], list[int]] | None:
    """Text to token ids by the model's own tokenizer, where it is at hand; the first call may load the model."""
    # LangChain's default for other models is the tokenizer of GPT-2.
    return model.get_token_ids if model_spec(model).startswith("embedded:") else None


def model_spec(model: BaseChatModel) -> str:
    """The `provider:name` of a chat model, as `resolve_chat_model` takes it."""
    named = (getattr(model, field, None) for field in ("model", "model_name", "model_id", "deployment_name"))
    name = next(filter(None, named), type(model).__name__)
    return f"{provider_of(type(model), model._llm_type)}:{str(name).removeprefix('models/')}"


def fingerprint_of(model: BaseChatModel, *, ask_server: bool = True) -> ModelFingerprint:
    """Which model this is, as exactly as its provider tells.

    Args:
        model: Any chat model.
        ask_server: Ask an Ollama server for the digest of the weights, which blocks for five seconds at most; when it
            does not answer, or is not to be asked, only the name is known.
    """
    spec = model_spec(model)
    provider, _, name = spec.partition(":")
    if provider == "embedded":
        return ModelFingerprint(
            spec=spec,
            digest=getattr(model, "model_digest", None),
            quantization=getattr(model, "quantization", None),
            context_length=getattr(model, "context_length", None),
        )
    if provider == "ollama" and ask_server:
        return _ollama_fingerprint(model, spec, name)
    return ModelFingerprint(spec=spec)


def _ollama_fingerprint(model: BaseChatModel, spec: str, name: str) -> ModelFingerprint:
    import httpx
    import ollama

    client = ollama.Client(host=getattr(model, "base_url", None), timeout=5.0)
    context = getattr(model, "num_ctx", None)
    try:
        listed = client.list().models
    except (httpx.HTTPError, ollama.ResponseError, ConnectionError):
        return ModelFingerprint(spec=spec, context_length=context)
    wanted = name if ":" in name else f"{name}:latest"
    entry = next((entry for entry in listed if entry.model == wanted), None)
    if entry is None:
        return ModelFingerprint(spec=spec, context_length=context)
    return ModelFingerprint(
        spec=spec,
        digest=entry.digest,
        quantization=entry.details.quantization_level if entry.details else None,
        context_length=context,
    )
