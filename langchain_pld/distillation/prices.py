"""What a model's tokens cost: a small table, which a user's own prices precede."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from langchain_pld.errors import InputError

__all__ = ["PRICES", "TABLE_DATE", "Price", "price_of", "read_prices"]


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    """Prompt tokens."""
    output: float = Field(ge=0)
    """Generated tokens, reasoning included."""
    cached_input: float | None = Field(default=None, ge=0)
    """Prompt tokens that the provider had cached; as `input` when absent."""

    def of(self, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """US dollars for these tokens; the cached ones are among the input tokens."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached + output_tokens * self.output) / 1_000_000


TABLE_DATE = "2026-08-05"
"""When the table was drawn up. Providers change their prices: give your own where money matters."""

# Standard rates without surcharges for long prompts. From https://github.com/simonw/llm-prices (MIT), as of that day.
PRICES: dict[str, Price] = {
    "gemini-2.0-flash": Price(input=0.10, output=0.40),
    "gemini-2.0-flash-lite": Price(input=0.075, output=0.30),
    "gemini-2.5-flash": Price(input=0.30, output=2.50, cached_input=0.03),
    "gemini-2.5-flash-lite": Price(input=0.10, output=0.40, cached_input=0.01),
    "gemini-2.5-pro": Price(input=1.25, output=10.0, cached_input=0.125),
    "gemini-3-flash": Price(input=0.50, output=3.0),
    "gemini-3-pro": Price(input=2.0, output=12.0),
    "gemini-3.1-flash-lite": Price(input=0.25, output=1.50, cached_input=0.025),
    "gemini-3.5-flash": Price(input=1.50, output=9.0, cached_input=0.15),
    "gemini-3.5-flash-lite": Price(input=0.30, output=2.50, cached_input=0.03),
    "gemini-3.6-flash": Price(input=1.50, output=7.50, cached_input=0.15),
    "gpt-4.1": Price(input=2.0, output=8.0, cached_input=0.50),
    "gpt-4.1-mini": Price(input=0.40, output=1.60, cached_input=0.10),
    "gpt-4.1-nano": Price(input=0.10, output=0.40, cached_input=0.025),
    "gpt-4o": Price(input=2.50, output=10.0, cached_input=1.25),
    "gpt-4o-mini": Price(input=0.15, output=0.60, cached_input=0.075),
    "gpt-5": Price(input=1.25, output=10.0, cached_input=0.125),
    "gpt-5-mini": Price(input=0.25, output=2.0, cached_input=0.025),
    "gpt-5-nano": Price(input=0.05, output=0.40, cached_input=0.005),
    "gpt-5.1": Price(input=1.25, output=10.0, cached_input=0.125),
    "gpt-5.2": Price(input=1.75, output=14.0, cached_input=0.175),
    "gpt-5.4": Price(input=2.50, output=15.0, cached_input=0.25),
    "gpt-5.4-mini": Price(input=0.75, output=4.50, cached_input=0.075),
    "gpt-5.4-nano": Price(input=0.20, output=1.25, cached_input=0.02),
    "gpt-5.5": Price(input=5.0, output=30.0, cached_input=0.50),
    "o4-mini": Price(input=1.10, output=4.40, cached_input=0.275),
    "claude-3-5-haiku": Price(input=0.80, output=4.0),
    "claude-haiku-4-5": Price(input=1.0, output=5.0),
    "claude-opus-4-5": Price(input=5.0, output=25.0),
    "claude-opus-4-6": Price(input=5.0, output=25.0),
    "claude-opus-4-7": Price(input=5.0, output=25.0),
    "claude-opus-4-8": Price(input=5.0, output=25.0),
    "claude-sonnet-4-5": Price(input=3.0, output=15.0),
    "claude-sonnet-5": Price(input=3.0, output=15.0),
}
"""Model name to price."""

_FREE = Price(input=0, output=0)
_LOCAL = ("embedded", "ollama")
# What may follow a model's name without making it another model: a date, a revision, "latest" or "preview".
_REVISION = re.compile(r"(?:-latest|-preview(?:-[\d-]+)?|[-@]\d{3}[\d-]*)?")


def price_of(model: str, own: Mapping[str, Price] | None = None) -> Price | None:
    """The price of a model; `None` where nobody knows it.

    A name of a table stands for the model of this name and for its dated revisions, e.g. `gemini-2.5-flash` for
    `gemini-2.5-flash-preview-09-2025`, not for `gemini-2.5-flash-lite`. Models that run here cost nothing.

    Args:
        model: As `provider:name`.
        own: The user's prices by model name or by `provider:name`; they go before the table.
    """
    found = _find(model, own or {})
    if found is None and model.partition(":")[0] in _LOCAL:
        return _FREE
    return found or _find(model, PRICES)


def read_prices(path: Path) -> dict[str, Price]:
    """Read a user's prices from a YAML file: model name to `input`, `output` and, if wanted, `cached_input`.

    Raises:
        InputError: There is no such file, or it holds something else; the message says where.
    """
    try:
        return TypeAdapter(dict[str, Price]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"cannot read prices from {path}: {error}"
        raise InputError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        msg = (
            f"{path}, {where}: {first['msg']}; a line of the file looks like "
            "gemini-2.5-pro: {input: 1.25, output: 10, cached_input: 0.125}"
        )
        raise InputError(msg) from error


def _find(model: str, table: Mapping[str, Price]) -> Price | None:
    names = (model, model.partition(":")[2])
    for known, price in table.items():
        if any(name.startswith(known) and _REVISION.fullmatch(name[len(known) :]) for name in names):
            return price
    return None
