"""Chat models by name, and a language model that runs inside the process.

`resolve_chat_model("provider:name")` gives any LangChain chat model. `EmbeddedChatModel` is llama.cpp in the process:
no server to install, no key, and answers that can be repeated to the last bit. `catalogue` and `fetch` bring its
model files. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_pld.models.catalogue import CATALOGUE, DEFAULT_MODEL, ModelEntry, catalogue_entry
    from langchain_pld.models.embedded import EmbeddedChatModel
    from langchain_pld.models.fetch import cached_model, fetch_model, model_path
    from langchain_pld.models.resolve import resolve_chat_model

__all__ = [
    "CATALOGUE",
    "DEFAULT_MODEL",
    "EmbeddedChatModel",
    "ModelEntry",
    "cached_model",
    "catalogue_entry",
    "fetch_model",
    "model_path",
    "resolve_chat_model",
]

_HOME = {
    "CATALOGUE": "catalogue",
    "DEFAULT_MODEL": "catalogue",
    "EmbeddedChatModel": "embedded",
    "ModelEntry": "catalogue",
    "cached_model": "fetch",
    "catalogue_entry": "catalogue",
    "fetch_model": "fetch",
    "model_path": "fetch",
    "resolve_chat_model": "resolve",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
