"""Planted instructions and wrong labels, and a teacher that obeys every one of them: none reaches a prompt."""

from __future__ import annotations

import json

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import Example, adistill
from langchain_pld.distillation.context import RunModels
from langchain_pld.distillation.nodes.critique import critique_node
from langchain_pld.distillation.nodes.extract import extract_node
from langchain_pld.distillation.nodes.generate import generate_node
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.roles import Role
from langchain_pld.examples import ExampleSet
from langchain_pld.student.sanitize import clean_text, skeleton
from tests.distillation.poisoned import PLANTED, PLANTED_ROWS, TASK, WRONG_LABELS, subject
from tests.distillation.running import run_nodes
from tests.fakes import FakeChatModel, scored, text_of

HONEST = tuple(
    Example(
        id=f"honest-{n}", input=f"{'parcel' if n % 2 else 'invoice'} note, {n}", label="violet" if n % 2 else "amber"
    )
    for n in range(60)
)
# What is left of an obeyed instruction in any spelling.
TRACES = sorted({skeleton(obeyed)[:18] for one in PLANTED for obeyed in one.obeyed})


def obeying(number: int) -> FakeChatModel:
    """Writes what the planted texts say, word for word, into condition and cues, at every occasion."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        asked = "\n".join(str(message.text) for message in messages)
        found = [one.obeyed[number % len(one.obeyed)] for one in PLANTED if clean_text(one.text) in asked]
        extra = found[0] if found else ""
        condition = f"If the text is about {subject(text_of(messages))} that came. {extra}".strip()
        answer = {
            "reason": extra or "r",
            "shared": extra or "s",
            "condition": condition[:300],
            "cues": [extra or "subject"],
        }
        return AIMessage(
            json.dumps({**answer, "counter_cues": [extra or "other"], "drop": [], "edits": [], "cause": extra})
        )

    return FakeChatModel(script=script)


def student() -> FakeChatModel:
    def script(messages: list[BaseMessage]) -> AIMessage:
        if "Rules" not in str(messages[0].text):
            return scored({"amber": 0.6, "violet": 0.4})
        return scored({"amber": 0.1, "violet": 0.9} if "parcel" in text_of(messages) else {"amber": 0.9, "violet": 0.1})

    return FakeChatModel(script=script)


def holds_a_trace(text: str) -> list[str]:
    plain = skeleton(text)
    return [trace for trace in TRACES if trace in plain]


def test_the_set_is_large_enough() -> None:
    assert len({one.disguise for one in PLANTED}) >= 20
    assert len(WRONG_LABELS) >= 10


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_no_planted_instruction_becomes_part_of_a_micro_rule(number: int) -> None:
    models = RunModels(teacher=obeying(number))
    sets: dict[Role, ExampleSet] = {
        "train": ExampleSet.of([*HONEST[:20], *PLANTED_ROWS], TASK),
        "validation": ExampleSet.of(HONEST[20:30], TASK),
    }
    nodes = generate_node(models), extract_node(models), critique_node(models)
    state = await run_nodes(*nodes, task=TASK, sets=sets, train_examples=100, judge=True)
    said = [text for one in state["micro_rules"] for text in (one.condition, *one.cues, *one.counter_cues)]
    assert not [text for text in said if holds_a_trace(text)]
    assert {one.source for one in state["micro_rules"]} == {row.id for row in HONEST[:20]}


async def test_wrong_labels_lose_against_the_right_ones() -> None:
    models = RunModels(teacher=obeying(0))
    sets: dict[Role, ExampleSet] = {
        "train": ExampleSet.of([*HONEST[:40], *WRONG_LABELS], TASK),
        "validation": ExampleSet.of(HONEST[40:50], TASK),
    }
    nodes = generate_node(models), extract_node(models), critique_node(models)
    state = await run_nodes(*nodes, task=TASK, sets=sets, train_examples=100)
    kept = {one.source for one in state["micro_rules"]}
    assert kept == {row.id for row in HONEST[:40]}
    assert "10 that argue for several labels at once" in state["said"]


async def test_no_planted_instruction_reaches_a_prompt_or_the_artifact() -> None:
    reader = student()
    train = ExampleSet.of([*HONEST[:10], *PLANTED_ROWS, *WRONG_LABELS[:1]], TASK)
    artifact = await adistill(
        TASK,
        train=train,
        validation=ExampleSet.of(HONEST[10:], TASK),
        teacher=obeying(1),
        student=reader,
        effort=PLANS["light"].model_copy(update={"train_examples": 100, "judge": True}),
    )
    prompts = {str(messages[0].text) for messages in reader.asked}
    assert len(prompts) > 1
    assert not [prompt for prompt in prompts if holds_a_trace(prompt)]
    assert not holds_a_trace(artifact.system_prompt)
    assert not [rule for rule in artifact.rules if holds_a_trace(" ".join((rule.condition, *rule.cues)))]
