"""Names to chat models."""

import sys

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_ollama import ChatOllama

from langchain_pld.errors import MissingExtraError, ModelSetupError
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.models.resolve import resolve_chat_model


def test_a_model_is_returned_as_it_is() -> None:
    model = FakeListChatModel(responses=["a"])

    assert resolve_chat_model(model) is model
    with pytest.raises(ModelSetupError, match=r"\['temperature'\] need a model name"):
        resolve_chat_model(model, temperature=0)


def test_embedded_by_name_and_by_path() -> None:
    named = resolve_chat_model("embedded:smollm2-135m", seed=3)
    by_path = resolve_chat_model("embedded:/models/x.gguf")

    assert isinstance(named, EmbeddedChatModel)
    assert isinstance(by_path, EmbeddedChatModel)
    assert (named.model, named.seed, by_path.model) == ("smollm2-135m", 3, "/models/x.gguf")


def test_ollama_keeps_the_tag_and_has_a_time_limit() -> None:
    model = resolve_chat_model("ollama:gemma3:4b", temperature=0)

    assert isinstance(model, ChatOllama)
    assert (model.model, model.temperature, model.client_kwargs) == ("gemma3:4b", 0, {"timeout": 300.0})


def test_the_time_limit_of_ollama_can_be_set() -> None:
    model = resolve_chat_model("ollama:gemma3:4b", timeout=5, client_kwargs={"headers": {"a": "b"}})

    assert isinstance(model, ChatOllama)
    assert model.client_kwargs == {"timeout": 5, "headers": {"a": "b"}}


def test_google_has_a_time_limit() -> None:
    model = resolve_chat_model("google_genai:gemini-2.5-flash", google_api_key="not-a-key")

    assert isinstance(model, ChatGoogleGenerativeAI)
    assert model.timeout == 300


def test_google_without_a_key_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)

    with pytest.raises(ModelSetupError, match="Set GOOGLE_API_KEY"):
        resolve_chat_model("google_genai:gemini-2.5-flash")


@pytest.mark.parametrize("spec", ["", "gpt-5", "ollama:", ":x", " : "])
def test_a_name_without_provider_or_model(spec: str) -> None:
    with pytest.raises(ModelSetupError, match="write PROVIDER:NAME"):
        resolve_chat_model(spec)


def test_a_provider_that_nobody_knows() -> None:
    with pytest.raises(ModelSetupError, match="cannot build nobody:x"):
        resolve_chat_model("nobody:x")


def test_a_provider_whose_package_is_not_installed() -> None:
    with pytest.raises(MissingExtraError, match=r"openai:gpt-5 needs a package .*langchain-openai"):
        resolve_chat_model("openai:gpt-5")


@pytest.mark.parametrize(
    ("module", "spec", "advice"),
    [
        ("langchain.chat_models", "openai:gpt-5", r'pip install "langchain-pld\[agents\]"'),
        ("langchain_ollama", "ollama:x", r'pip install "langchain-pld\[ollama\]"'),
        ("langchain_google_genai", "google_genai:x", r'pip install "langchain-pld\[google\]"'),
        ("xllamacpp", "embedded:smollm2-135m", r'pip install "langchain-pld\[embedded\]"'),
    ],
)
def test_missing_packages_name_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, spec: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError, match=advice):
        resolve_chat_model(spec)
