"""The classifier keeps the contract of a Runnable that gives verdicts."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import PLDClassifier
from langchain_pld.artifact import Gate
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.student.providers import fingerprint_of
from langchain_pld.testing import VerdictRunnableTests
from tests.fakes import scored, text_of
from tests.integration.small import TEXTS, small_model_artifact
from tests.student.small_artifact import classifier


def by_first_word(messages: list[BaseMessage]) -> AIMessage:
    label = text_of(messages).split()[0]
    return scored({label: 0.8, "calm": 0.1, "the": 0.05})


class TestClassifier(VerdictRunnableTests):
    configurable = ("timeout_s", 5.0)

    def runnable(self) -> PLDClassifier:
        return classifier(by_first_word)

    def inputs(self) -> list[Any]:
        return ["glad to see you", {"text": "sad to hear"}, [("user", "glad it is done")]]


class TestGatedClassifier(TestClassifier):
    def runnable(self) -> PLDClassifier:
        return classifier(by_first_word, gate=Gate(alpha=0.1, threshold=0.95, label_thresholds={"sad": 0.5}))


class TestSlowClassifier(TestClassifier):
    def runnable(self) -> PLDClassifier:
        return classifier(by_first_word, latency_s=0.005)


@pytest.mark.model
class TestEmbeddedClassifier(VerdictRunnableTests):
    at_once = 6
    configurable = ("timeout_s", 60.0)
    _model: EmbeddedChatModel | None = None

    def runnable(self) -> PLDClassifier:
        # One copy in memory for the whole class.
        kind = type(self)
        kind._model = kind._model or EmbeddedChatModel(model="smollm2-135m", n_ctx=1024, slots=2, timeout=120)
        return PLDClassifier(artifact=small_model_artifact(fingerprint_of(kind._model)), student=kind._model)

    def inputs(self) -> list[Any]:
        return [TEXTS[0], TEXTS[5]]
