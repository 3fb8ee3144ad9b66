"""The real small model, fetched once through the catalogue."""

import pytest

from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.models.fetch import model_path

SMALL_MODEL = "smollm2-135m"


@pytest.fixture(scope="session")
def small_model() -> EmbeddedChatModel:
    """SmolLM2-135M in two slots of 1024 tokens; the file (98 MB) is fetched if the cache has none."""
    model_path(SMALL_MODEL)
    return EmbeddedChatModel(model=SMALL_MODEL, n_ctx=1024, slots=2, max_tokens=16, timeout=120)
