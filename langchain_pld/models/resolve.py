"""From a name such as `ollama:gemma3:4b` to a LangChain chat model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from langchain_pld.errors import MissingExtraError, ModelSetupError
from langchain_pld.provider_names import canonical_spec

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel

__all__ = ["absolute_spec", "resolve_chat_model"]

_TIMEOUT_S: Final = 300.0


def resolve_chat_model(spec: str | BaseChatModel, **options: Any) -> BaseChatModel:
    """Return the chat model that `spec` names.

    Args:
        spec: `embedded:NAME` (a catalogue name, or the path of a .gguf file), `ollama:NAME`, `google_genai:NAME`,
            `batch:DIR` (an offline teacher that works through files in the folder), `recorded:NAME` (a shipped
            recording, or the path of one), or `PROVIDER:NAME` for any provider of
            `langchain.chat_models.init_chat_model`. A chat model is returned as it is, with the tags, metadata and
            callbacks of `with_config` moved onto it.
        **options: Passed to the model's constructor, e.g. `temperature=0`. Ollama and Gemini get a default time limit
            of 300 seconds, since their clients have none.

    Raises:
        MissingExtraError: The provider's package is not installed.
        ModelSetupError: The name is unknown, the model cannot be built, or `spec` is a wrapper around a chat model.
    """
    if not isinstance(spec, str):
        if options:
            msg = f"the options {sorted(options)} need a model name; a finished chat model takes none"
            raise ModelSetupError(msg)
        return _bare(spec)
    provider, colon, name = canonical_spec(spec).partition(":")
    if not colon or not provider.strip() or not name.strip():
        msg = (
            f"{spec!r} names no model: write PROVIDER:NAME, for instance embedded:qwen2.5-coder-1.5b, "
            "ollama:gemma3:4b or google_genai:gemini-2.5-flash"
        )
        raise ModelSetupError(msg)
    provider, name = provider.strip(), name.strip()
    if provider == "embedded":
        from langchain_pld.models.embedded import EmbeddedChatModel

        return EmbeddedChatModel(model=name, **options)
    if provider == "ollama":
        return _ollama(name, options)
    if provider == "google_genai":
        return _google(name, options)
    if provider == "batch":
        from langchain_pld.models.batch import BatchChatModel

        return BatchChatModel(path=Path(name).expanduser(), **options)
    if provider == "recorded":
        from langchain_pld.models.recorded import RecordedChatModel

        return RecordedChatModel(path=Path(name).expanduser(), **options)
    return _any_provider(provider, name, options)


def absolute_spec(spec: str) -> str:
    """The model name with an absolute path in `batch:DIR`, valid in any working directory."""
    provider, _, name = spec.partition(":")
    return f"batch:{Path(name.strip()).expanduser().absolute()}" if provider.strip() == "batch" else spec


def _bare(model: object) -> BaseChatModel:
    """Unwrap a chat model, since a wrapper would be lost when its options are set for a scored answer."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableBinding, RunnableWithFallbacks
    from langchain_core.runnables.retry import RunnableRetry

    if isinstance(model, BaseChatModel):
        return model
    advice = "pass the chat model itself, or its name as PROVIDER:NAME"
    if isinstance(model, RunnableRetry):
        advice = "pass the chat model itself, and retry=RetryPolicy(attempts=...) to the classifier"
    elif isinstance(model, RunnableWithFallbacks):
        advice = "pass one chat model as the student, and escalate_to=... to the classifier for another to fall back on"
    elif isinstance(model, RunnableBinding) and isinstance(model.bound, BaseChatModel):
        config: dict[str, Any] = {key: value for key, value in model.config.items() if value}
        if not model.kwargs and not model.config_factories and set(config) <= {"tags", "metadata", "callbacks"}:
            inner = model.bound
            tags = [*(inner.tags or ()), *config.get("tags", ())]
            metadata = {**(inner.metadata or {}), **config.get("metadata", {})}
            callbacks = config.get("callbacks", inner.callbacks)
            return inner.model_copy(update={"tags": tags, "metadata": metadata, "callbacks": callbacks})
        wrong = sorted(model.kwargs) or sorted(set(config) - {"tags", "metadata", "callbacks"}) or ["listeners"]
        advice = f"give {', '.join(wrong)} to the constructor of {type(model.bound).__name__} and pass that model"
    raise ModelSetupError(f"a chat model is needed here, not a {type(model).__name__}; {advice}")


def _ollama(name: str, options: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain_ollama import ChatOllama
    except ImportError as error:
        raise MissingExtraError.of("langchain-ollama", "ollama") from error
    # ChatOllama has no timeout field, and its client waits forever.
    timeout = options.pop("timeout", _TIMEOUT_S)
    client = {"timeout": timeout, **(options.pop("client_kwargs", None) or {})}
    return ChatOllama(model=name, client_kwargs=client, **options)


def _google(name: str, options: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain_google_genai import ChatGoogleGenerativeAI
    except ImportError as error:
        raise MissingExtraError.of("langchain-google-genai", "google") from error
    try:
        return ChatGoogleGenerativeAI(model=name, **{"timeout": _TIMEOUT_S, **options})
    except ValueError as error:
        msg = f"cannot build google_genai:{name}: {_first_reason(error)}. Set GOOGLE_API_KEY or pass google_api_key"
        raise ModelSetupError(msg) from error


def _any_provider(provider: str, name: str, options: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError.of("langchain", "agents") from error
    try:
        model: BaseChatModel = init_chat_model(name, model_provider=provider, **options)
    except ImportError as error:
        raise MissingExtraError(f"{provider}:{name} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise ModelSetupError(f"cannot build {provider}:{name}: {_first_reason(error)}") from error
    return model


def _first_reason(error: ValueError) -> str:
    """The reason without the input that pydantic repeats, which may contain a key."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(str(detail["msg"]) for detail in error.errors(include_input=False, include_url=False))
    return str(error)
