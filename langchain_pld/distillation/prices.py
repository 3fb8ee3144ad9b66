"""Token prices: the user's own, else the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from langchain_pld.errors import InputError
from langchain_pld.yaml_files import read_yaml

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

__all__ = ["Price", "price_of", "read_prices"]


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    """Prompt tokens."""
    output: float = Field(ge=0)
    """Generated tokens, including reasoning."""
    cached_input: float | None = Field(default=None, ge=0)
    """Prompt tokens cached by the provider; by default as `input`."""

    def of(self, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """US dollars for these tokens; cached tokens count among the input tokens."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached + output_tokens * self.output) / 1_000_000


_FREE = Price(input=0, output=0)
_LOCAL = ("embedded", "ollama")
# Providers with another name in the price list than in LangChain.
_PROVIDERS = {
    "google_genai": "google",
    "google_vertexai": "google",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "mistralai": "mistral",
    "xai": "x-ai",
}


def price_of(model: str, own: Mapping[str, Price] | None = None) -> Price | None:
    """The price of a model named as `provider:name`; `None` if unknown.

    Published prices come from the package `genai-prices`, at its rate for short prompts; the user's `own`, by model
    name or `provider:name`, take precedence. Local models cost nothing.
    """
    own = own or {}
    provider, _, name = model.partition(":")
    found = own.get(model) or own.get(name)
    if found is None and provider in _LOCAL:
        return _FREE
    return found or _published_price(provider, name)


def read_prices(path: Path) -> dict[str, Price]:
    """Read a user's prices from a YAML file: model name to `input`, `output` and optionally `cached_input`.

    Raises:
        InputError: The file is missing or has other content; the message says where.
    """
    try:
        return TypeAdapter(dict[str, Price]).validate_python(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        msg = (
            f"{path}, {where}: {first['msg']}; a line of the file looks like "
            "gemini-2.5-pro: {input: 1.25, output: 10, cached_input: 0.125}"
        )
        raise InputError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"cannot read prices from {path}: {error}"
        raise InputError(msg) from error


def _published_price(provider: str, name: str) -> Price | None:
    # The list is slow to load, and only paid runs need it.
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, model = get_snapshot().find_provider_model(name, None, _PROVIDERS.get(provider, provider), None)
    except LookupError:
        return None
    prices = model.get_prices(datetime.now(UTC))
    rates = [_rate(rate) for rate in (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok)]
    if rates[0] is None or rates[1] is None:
        return None
    return Price(input=rates[0], output=rates[1], cached_input=rates[2])


def _rate(rate: Decimal | TieredPrices | None) -> float | None:
    """US dollars per million tokens."""
    if rate is None:
        return None
    return float(rate if isinstance(rate, Decimal) else rate.base)
