"""Getting a named model ready, with a bar where its file has to be fetched first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_pld.cli.errors import stoppable
from langchain_pld.cli.progress import StepBars

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_core.language_models import BaseChatModel

    from langchain_pld.models.catalogue import ModelEntry

__all__ = ["fetch_with_bar", "ready_model"]


def ready_model(spec: str) -> BaseChatModel:
    """The chat model of a `provider:name`; an embedded one is fetched first if it is not there yet.

    Raises:
        ModelSetupError: There is no such model, or it cannot be had.
    """
    from langchain_pld.models.catalogue import CATALOGUE
    from langchain_pld.models.fetch import model_path
    from langchain_pld.models.resolve import resolve_chat_model

    model = resolve_chat_model(spec)
    provider, _, name = (part.strip() for part in spec.partition(":"))
    if provider == "embedded":
        entry = next((entry for entry in CATALOGUE if entry.name == name), None)
        if entry is None:
            # A path, or a name that nobody knows: better told now than at the first call.
            model_path(name)
        else:
            fetch_with_bar(entry)
    return model


def fetch_with_bar(entry: ModelEntry, *, local: Path | None = None) -> Path:
    """Fetch a model of the catalogue into the cache; at once when it is there.

    Args:
        entry: The model.
        local: A copy of its file to take instead of a download.

    Raises:
        ModelSetupError: It cannot be had whole and right.
    """
    from langchain_pld.models.fetch import cached_model, fetch_model

    found = cached_model(entry)
    if found is not None:
        return found
    with stoppable(lambda: "what has arrived is kept, the next try goes on from there"), StepBars() as bars:
        bars.say(f"{entry.name}: {entry.size / 1e9:.2f} GB are fetched once, and kept")
        return fetch_model(entry, local=local, progress=bars.fetching(entry.name))
