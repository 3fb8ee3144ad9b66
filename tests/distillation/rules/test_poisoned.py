"""Injected instructions and wrong labels, and a teacher that obeys every one of them: none reaches a prompt."""

from __future__ import annotations

import json

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import adistill
from langchain_pld.distillation.nodes.critique import critique
from langchain_pld.distillation.nodes.extract import extract
from langchain_pld.distillation.nodes.generate import generate
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.roles import Role
from langchain_pld.examples import ExampleSet
from langchain_pld.student.sanitize import clean_text, skeleton
from tests.distillation.poisoned import HONEST_ROWS, INJECTION_ROWS, INJECTIONS, TASK, WRONG_LABELS, subject
from tests.distillation.scenarios import run_nodes
from tests.fakes import FakeChatModel, scored, text_of

NODES = (generate, extract, critique)
# What is left of an obeyed instruction in any spelling.
TRACES = sorted({skeleton(output)[:18] for one in INJECTIONS for output in one.outputs})


def obedient_teacher(number: int) -> FakeChatModel:
    """Writes what the injected instructions say, word for word, into condition and cues, at every occasion."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        question = "\n".join(str(message.text) for message in messages)
        outputs = [one.outputs[number % len(one.outputs)] for one in INJECTIONS if clean_text(one.text) in question]
        extra = outputs[0] if outputs else ""
        condition = f"If the text is about {subject(text_of(messages))} that came. {extra}".strip()
        answer = {
            "reason": extra or "r",
            "shared": extra or "s",
            "condition": condition[:300],
            "cues": [extra or "subject"],
            "counter_cues": [extra or "other"],
            "drop": [],
            "edits": [],
            "cause": extra,
        }
        return AIMessage(json.dumps(answer))

    return FakeChatModel(script=script)


def student_script(messages: list[BaseMessage]) -> AIMessage:
    if "Rules" not in str(messages[0].text):
        return scored({"amber": 0.6, "violet": 0.4})
    return scored({"amber": 0.1, "violet": 0.9} if "parcel" in text_of(messages) else {"amber": 0.9, "violet": 0.1})


def holds_a_trace(text: str) -> bool:
    plain = skeleton(text)
    return any(trace in plain for trace in TRACES)


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_no_injected_instruction_becomes_part_of_a_micro_rule(number: int) -> None:
    sets: dict[Role, ExampleSet] = {
        "train": ExampleSet.of([*HONEST_ROWS[:20], *INJECTION_ROWS], TASK),
        "validation": ExampleSet.of(HONEST_ROWS[20:30], TASK),
    }
    state = await run_nodes(
        *NODES, task=TASK, sets=sets, teacher=obedient_teacher(number), train_examples=100, judge=True
    )
    texts = [text for one in state["micro_rules"] for text in (one.condition, *one.cues, *one.counter_cues)]
    assert not [text for text in texts if holds_a_trace(text)]
    assert {one.source for one in state["micro_rules"]} == {row.id for row in HONEST_ROWS[:20]}


async def test_wrong_labels_lose_against_the_right_ones() -> None:
    sets: dict[Role, ExampleSet] = {
        "train": ExampleSet.of([*HONEST_ROWS[:40], *WRONG_LABELS], TASK),
        "validation": ExampleSet.of(HONEST_ROWS[40:50], TASK),
    }
    state = await run_nodes(*NODES, task=TASK, sets=sets, teacher=obedient_teacher(0), train_examples=100)
    assert {one.source for one in state["micro_rules"]} == {row.id for row in HONEST_ROWS[:40]}
    assert "10 that argue for several labels at once" in state["log"]


async def test_no_injected_instruction_reaches_a_prompt_or_the_artifact() -> None:
    student = FakeChatModel(script=student_script)
    artifact = await adistill(
        TASK,
        train=ExampleSet.of([*HONEST_ROWS[:10], *INJECTION_ROWS, *WRONG_LABELS[:1]], TASK),
        validation=ExampleSet.of(HONEST_ROWS[10:], TASK),
        teacher=obedient_teacher(1),
        student=student,
        effort=PLANS["light"].model_copy(update={"train_examples": 100, "judge": True}),
    )
    prompts = {str(messages[0].text) for messages in student.asked}
    assert len(prompts) > 1
    assert not [prompt for prompt in prompts if holds_a_trace(prompt)]
    assert not holds_a_trace(artifact.system_prompt)
    assert not [rule for rule in artifact.rules if holds_a_trace(" ".join((rule.condition, *rule.cues)))]
