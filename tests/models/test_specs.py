"""What a model is recorded as loads the same model again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda
from langchain_ollama import ChatOllama

from langchain_pld import PLDClassifier
from langchain_pld.artifact import ModelFingerprint
from langchain_pld.errors import ModelSetupError
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.student.escalation import Escalation
from langchain_pld.student.providers import model_spec
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import TASK, artifact

KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY", "DEEPSEEK_API_KEY", "XAI_API_KEY",
    "FIREWORKS_API_KEY", "TOGETHER_API_KEY", "COHERE_API_KEY", "PPLX_API_KEY", "GOOGLE_API_KEY",
)  # fmt: skip
PROVIDERS = {
    "openai": "langchain_openai",
    "anthropic": "langchain_anthropic",
    "groq": "langchain_groq",
    "mistralai": "langchain_mistralai",
    "deepseek": "langchain_deepseek",
    "xai": "langchain_xai",
    "fireworks": "langchain_fireworks",
    "together": "langchain_together",
    "cohere": "langchain_cohere",
    "perplexity": "langchain_perplexity",
    "google_genai": "langchain_google_genai",
    "ollama": "langchain_ollama",
    "embedded": "langchain_pld",
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, "not-a-key")


@pytest.mark.parametrize(("provider", "package"), PROVIDERS.items())
def test_a_model_is_recorded_under_the_name_that_loads_it(provider: str, package: str) -> None:
    pytest.importorskip(package)
    model = resolve_chat_model(f"{provider}:some-model")
    assert model_spec(model) == f"{provider}:some-model"
    assert type(resolve_chat_model(model_spec(model))) is type(model)


class ChatOpenAI(FakeChatModel):
    """Calls itself what the class of that name does."""

    @property
    def _llm_type(self) -> str:
        return "openai-chat"


class HouseModel(ChatOpenAI):
    """A company's own class around a provider's."""


@pytest.mark.parametrize("kind", [ChatOpenAI, HouseModel])
def test_an_artifact_of_a_hosted_student_names_the_provider(kind: type[FakeChatModel]) -> None:
    model = kind(script=lambda _: scored({"sad": 1.0}), model="gpt-4o-mini")
    assert PLDClassifier.zero_shot(TASK, model).artifact.student.spec == "openai:gpt-4o-mini"


def test_a_name_that_an_older_artifact_holds_is_the_same_student(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    older = artifact(student=ModelFingerprint(spec="openai-chat:gpt-4o-mini"))
    model = ChatOpenAI(script=lambda _: scored({"sad": 1.0}), model="gpt-4o-mini")
    assert PLDClassifier.from_artifact(older.save(tmp_path / "a.pld.json"), student=model).calibrated
    assert not recwarn.list
    assert isinstance(resolve_chat_model("chat-ollama:gemma3:4b"), ChatOllama)


FAKE = FakeChatModel(script=lambda _: scored({"sad": 1.0}))
AROUND: dict[str, tuple[Any, str]] = {
    "bind": (FAKE.bind(temperature=1), "give temperature to the constructor of FakeChatModel"),
    "with_config": (FAKE.with_config(max_concurrency=1), "give max_concurrency to the constructor"),
    "with_retry": (FAKE.with_retry(), r"retry=RetryPolicy\(attempts=\.\.\.\) to the classifier"),
    "with_fallbacks": (FAKE.with_fallbacks([FAKE]), "escalate_to=... to the classifier"),
    "a sequence": (FAKE | RunnableLambda(str), "not a RunnableSequence; pass the chat model itself"),
    "no model": (object(), "not a object; pass the chat model itself"),
}


@pytest.mark.parametrize(("around", "advice"), AROUND.values(), ids=AROUND)
def test_what_is_around_a_model_is_refused_everywhere_with_the_way_to_say_it(around: Any, advice: str) -> None:
    places = (
        resolve_chat_model,
        lambda model: PLDClassifier(artifact=artifact(), student=model),
        lambda model: PLDClassifier.zero_shot(TASK, model),
    )
    for place in places:
        with pytest.raises(ModelSetupError, match=advice):
            place(around)


def test_tags_metadata_and_callbacks_around_a_model_are_kept() -> None:
    tagged = FAKE.with_config(tags=["team"], metadata={"tenant": "t1"})
    model = resolve_chat_model(tagged)  # type: ignore[arg-type]
    assert isinstance(model, BaseChatModel)
    assert (model.tags, (model.metadata or {})["tenant"]) == (["team"], "t1")
    assert PLDClassifier.zero_shot(TASK, tagged).invoke("alas").label == "sad"  # type: ignore[arg-type]


def test_a_name_does_for_a_model_wherever_one_is_taken() -> None:
    classifier = PLDClassifier.zero_shot(TASK, "ollama:gemma3:4b", escalate_to="ollama:gemma3:12b")
    assert classifier.spec == "ollama:gemma3:4b"
    assert isinstance(classifier.escalate_to, Escalation)
    assert isinstance(classifier.escalate_to.to, BaseChatModel)
    assert model_spec(classifier.escalate_to.to) == "ollama:gemma3:12b"
