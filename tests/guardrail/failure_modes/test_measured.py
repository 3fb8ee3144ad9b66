"""Modes 12, 14 and 18: a verdict comes from the very prompt, format and student that were measured, or says so."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from langchain_ollama import ChatOllama

from langchain_pld import DistilledPrompt, Label, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Gate, ModelFingerprint
from langchain_pld.errors import PLDError
from langchain_pld.guardrail import Guard, GuardrailPolicy, PLDGuardrailMiddleware
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.scoring import answer_schema
from tests.fakes import FakeChatModel, scored
from tests.guardrail.failure_modes.call_styles import BLOCKED, UNCHECKED, CallStyle, each_style, watch
from tests.servers.fake_answers import FakeAnswer
from tests.servers.ollama import OllamaModel, OllamaServer
from tests.student.small_artifact import LETTERS, RULES, TASK, artifact

# --- 12


def turned(task: Task, by: int) -> Task:
    return task.model_copy(update={"labels": (*task.labels[by:], *task.labels[:by])})


@pytest.mark.parametrize("sync", [True, False])
async def test_mode_12_the_order_of_alternatives_and_of_spellings_does_not_flip_a_verdict(sync: bool) -> None:
    probabilities = {"sad": 0.35, " Sad": 0.2, "glad": 0.3, "SAD": 0.05, "the": 0.1}
    for names in (list(probabilities), list(reversed(probabilities))):
        watched = watch(lambda _, names=names: scored({name: probabilities[name] for name in names}))
        decision = watched.check("alas") if sync else await watched.acheck("alas")
        assert decision.label == "sad"
        assert decision.verdicts[0].confidence == pytest.approx(0.6 / 0.9, abs=1e-4)


def test_mode_12_another_order_or_format_is_another_artifact(tmp_path: Path) -> None:
    made = [artifact(), artifact(answer=LETTERS)]
    task = turned(TASK, 1)
    words = AnswerFormat.words(task)
    made += [artifact(task=task, answer=words, system_prompt=compile_prompt(task, RULES, words))]
    assert len({one.id for one in made}) == len(made)
    path = made[0].save(tmp_path / "mood.pld.json")
    raw = json.loads(path.read_text(encoding="utf-8"))
    held = raw.get("artifact", raw)
    codes = held["answer"]["codes"]
    held["answer"]["codes"] = dict(zip(codes, [*list(codes.values())[1:], next(iter(codes.values()))], strict=True))
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(PLDError):
        DistilledPrompt.load(path)


# --- 14

SCOPED = Task(
    name="mood",
    instructions="Decide how the writer feels.",
    labels=[Label(name="glad"), Label(name="sad"), Label(name="calm", description="About no feeling at all.")],
    none_label="calm",
)
SCOPED_WORDS = AnswerFormat.words(SCOPED)


def scoped(script: Any, **changes: Any) -> Guard:
    prompt = compile_prompt(SCOPED, RULES, SCOPED_WORDS)
    return watch(script, task=SCOPED, answer=SCOPED_WORDS, system_prompt=prompt, **changes)


@each_style()
def test_mode_14_out_of_scope_input_is_not_forced_into_a_label(style: CallStyle) -> None:
    """What can be promised: the none label is asked about, read and decided for like any other, an answer that is none
    of the labels is no verdict, and what lies below the gate is not decided. That a student finds the none label where
    it should is measured."""
    none = scoped(lambda _: scored({"calm": 0.7, "sad": 0.2, "glad": 0.1}))
    assert style(none, "The train leaves at 8.").reached
    assert (none.check("x").verdicts[0].label, none.check("x").outcome) == ("calm", "clear")

    elsewhere = scoped(lambda _: scored({"Train": 0.96, "sad": 0.02, "glad": 0.01}))
    assert UNCHECKED in str(style(elsewhere, "The train leaves at 8."))
    assert elsewhere.check("x").verdicts[0].label is None

    unsure = scoped(
        lambda _: scored({"sad": 0.4, "calm": 0.35, "glad": 0.25}), gate=Gate(alpha=0.05, threshold=0.8, rows=100)
    )
    assert "could not be cleared" in str(style(unsure, "The train leaves at 8."))
    assert unsure.check("x").label == "sad"
    assert unsure.check("x").verdicts[0].label is None


def test_mode_14_the_none_label_is_in_the_prompt_and_in_every_form_of_answer() -> None:
    prompt = compile_prompt(SCOPED, RULES, SCOPED_WORDS)
    assert "- calm: About no feeling at all." in prompt
    assert prompt.rstrip().endswith("glad, sad or calm.")
    assert answer_schema(SCOPED_WORDS)["properties"]["label"]["enum"] == ["glad", "sad", "calm"]
    assert set(AnswerFormat.letters(SCOPED).codes) == {"glad", "sad", "calm"}


# --- 18

POLICY = GuardrailPolicy(block_labels=["sad"])
HERE = OllamaModel(name="mood:latest", digest="a" * 64, quantization_level="Q4_K_M")
MEASURED = ModelFingerprint(spec="ollama:mood", digest="a" * 64, quantization="Q4_K_M")


SERVED = {
    "the same": (HERE, None),
    "other weights": (OllamaModel(name="mood:latest", digest="b" * 64, quantization_level="Q4_K_M"), "digest bbbbbbbb"),
    "another quantisation": (OllamaModel(name="mood:latest", digest="c" * 64, quantization_level="Q2_K"), "digest ccc"),
}


@each_style()
@pytest.mark.parametrize("case", SERVED)
def test_mode_18_another_student_or_quantisation_is_not_used_silently(
    tmp_path: Path, case: str, style: CallStyle
) -> None:
    """What can be promised: from a file, the server is asked once which weights it serves; a difference is a warning,
    and no verdict is called calibrated. A classifier made from objects is compared by what is known without asking, and
    a tag that is pulled anew later is seen by the next load only."""
    (served, told), verdicts = SERVED[case], []
    path = artifact(student=MEASURED).save(tmp_path / "mood.pld.json")
    with OllamaServer(FakeAnswer.picking({"glad": 0.9, "sad": 0.1}), models=(served,)) as server:
        student = ChatOllama(model="mood", base_url=server.url)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            classifier = PLDClassifier.from_artifact(path, student=student)
        watched = Guard(classifier.with_listeners(on_end=lambda run: verdicts.append(run.outputs)), POLICY)
        assert style(watched, "hello").reached
    warned = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    assert [told is not None and told in message for message in warned] == ([True] if told else [])
    [outputs] = verdicts
    verdict = outputs["output"] if isinstance(outputs, dict) else outputs
    assert (verdict.calibrated, verdict.decided_by) == (told is None, "ollama:mood")


@pytest.mark.parametrize("digest", [None, "a" * 64])
def test_mode_18_nor_is_one_that_differs_by_quantisation_alone(digest: str | None) -> None:
    """Where the weights' hash is not known, the quantisation tells."""
    measured = MEASURED.model_copy(update={"digest": digest})
    found = measured.model_copy(update={"quantization": "Q2_K", "digest": digest and "d" * 64})
    assert measured.differs_from(found)
    assert measured.differs_from(measured) is None


def test_mode_18_a_guard_made_from_a_file_warns_too(tmp_path: Path) -> None:
    path = artifact(student=MEASURED).save(tmp_path / "mood.pld.json")
    with OllamaServer(FakeAnswer(content="glad"), models=(SERVED["another quantisation"][0],)) as server:
        student = ChatOllama(model="mood", base_url=server.url)
        with pytest.warns(UserWarning, match="digest ccc"):
            PLDGuardrailMiddleware.from_artifact(path, POLICY, student=student)


@each_style()
def test_mode_18_a_copy_with_another_student_asks_that_one(style: CallStyle) -> None:
    first = FakeChatModel(script=lambda _: scored({"glad": 0.9, "sad": 0.1}))
    other = FakeChatModel(script=lambda _: scored({"sad": 0.9, "glad": 0.1}), model="other")
    classifier = PLDClassifier(artifact=artifact(), student=first)
    assert style(Guard(classifier, POLICY), "alas").reached
    with pytest.warns(UserWarning, match="fake-chat:other instead of fake-chat:fake"):
        copied = classifier.model_copy(update={"student": other})
    assert BLOCKED in str(style(Guard(copied, POLICY), "alas"))
    assert (len(first.asked), len(other.asked)) == (1, 1)
    verdict = copied.invoke("alas")
    assert (verdict.label, verdict.decided_by, verdict.calibrated) == ("sad", "fake-chat:other", False)
    assert classifier.model_copy(update={"timeout_s": 1.0}).calibrated
    with pytest.raises(ValueError, match="frozen"):
        classifier.student = other  # type: ignore[misc]
