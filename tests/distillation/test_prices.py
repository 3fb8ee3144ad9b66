"""What tokens cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_pld.distillation.prices import Price, price_of, read_prices
from langchain_pld.errors import InputError

OWN = {"gemini-2.5-pro": Price(input=1.0, output=2.0), "my-model": Price(input=3.0, output=4.0)}


@pytest.mark.parametrize(
    ("model", "usd_in"),
    [
        ("google_genai:gemini-2.5-flash", 0.30),
        ("google_genai:gemini-2.5-flash-preview-09-2025", 0.30),
        ("google_genai:gemini-2.5-flash-lite", 0.10),
        ("openai:gpt-5-mini-2025-08-07", 0.25),
        ("anthropic:claude-haiku-4-5-20251001", 1.0),
        ("ollama:gemma3:4b", 0.0),
        ("embedded:/models/mine.gguf", 0.0),
        ("google_genai:gemini-2.5-pro", 1.0),
        ("vllm:my-model", 3.0),
    ],
)
def test_a_name_has_its_price_and_so_have_its_dated_revisions(model: str, usd_in: float) -> None:
    found = price_of(model, OWN)
    assert found is not None
    assert found.input == usd_in


@pytest.mark.parametrize("model", ["openai:gpt-9", "openai:", "vllm:gpt-4o", "x:y"])
def test_a_model_that_nobody_lists_has_no_price(model: str) -> None:
    assert price_of(model, OWN) is None


def test_cached_tokens_have_a_price_of_their_own() -> None:
    price = Price(input=1.0, output=10.0, cached_input=0.1)
    assert price.of(input_tokens=1_000_000, output_tokens=100_000, cached_tokens=500_000) == pytest.approx(1.55)


def test_own_prices_are_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("my-model: {input: 3, output: 4}\n", encoding="utf-8")
    assert read_prices(file) == {"my-model": OWN["my-model"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("my-model: 3\n", "prices.yaml, my-model: Input should be a valid dictionary"),
        ("my-model: {input: -3, output: 4}\n", "prices.yaml, my-model.input: Input should be greater than"),
        ("- a\n", "prices.yaml, the top"),
        ("a: [\n", "cannot read prices from"),
        (None, "cannot read prices from"),
    ],
)
def test_a_file_that_holds_no_prices_is_refused_with_the_place(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "prices.yaml"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_prices(file)
