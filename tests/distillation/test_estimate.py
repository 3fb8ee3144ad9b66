"""What a run asks lies between the bounds that were told before, for each node and model."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import Example, adistill
from langchain_pld.distillation.estimate import EstimateLine, estimate
from langchain_pld.distillation.plan import PLANS, Effort, Plan
from langchain_pld.examples import ExampleSet
from tests.fakes import FakeChatModel, FakeEmbeddings, scored, text_of
from tests.teams import SUBJECTS, TASK, rows

TEACHER, STUDENT = "fake-chat:teacher", "fake-chat:student"
WORDS = [["bill", "box", "key"], ["money", "post", "access"], ["pay", "send", "log"], ["A", "B", "C"]]
DETAILS = ("in the morning", "by a stranger", "with a question", "in a hurry", "full of thanks")


def counted(answer: AIMessage, messages: list[BaseMessage]) -> AIMessage:
    """The answer with its tokens, four characters each, as English prose has it."""
    read, written = sum(len(message.text) for message in messages) // 4, len(answer.text) // 4
    answer.usage_metadata = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return answer


def teacher_script(messages: list[BaseMessage]) -> AIMessage:
    """Says something else about each example; its first drafts about green copy a number, and some merges a label."""
    told = "\n".join(str(message.text) for message in messages)
    label = next((name for name in TASK.label_names if f'label is "{name}"' in told), "amber")
    again = told.rstrip()[-1] not in ">…"
    detail = DETAILS[len(text_of(messages)) % 5] if "Conditions" in told else DETAILS[sum(map(ord, told[-30:])) % 5]
    condition = f"If the text that somebody sent {detail} is about the {SUBJECTS[label]} at hand"
    if label == "green" and not again:
        condition = f"If the text is about {text_of(messages)[-40:]}"
    conditions = [f"If somebody wrote {detail} and was not glad at all about it"]
    answer = {
        "reason": "so",
        "label": next(name for name, subject in SUBJECTS.items() if subject in text_of(messages))
        if any(subject in text_of(messages) for subject in SUBJECTS.values())
        else "amber",
        "shared": "so",
        "condition": condition,
        "cues": [SUBJECTS[label], detail],
        "drop": [],
        "cause": "so",
        "edits": [{"action": "add", "rule": 0, "label": "", "conditions": conditions}],
        "settlements": [],
        "sets": WORDS[:3],
        "texts": ["a key for the letter box"],
    }
    return counted(AIMessage(json.dumps(answer)), messages)


def student_script(messages: list[BaseMessage]) -> AIMessage:
    """Mostly right, the more rules the better; answers with the words that the prompt asks for."""
    system, text = str(messages[0].text), text_of(messages)
    right = next((label for label, subject in SUBJECTS.items() if subject in text), "amber")
    sure = min(0.9, 0.4 + 0.02 * system.count("If ")) if not text.endswith(("3", "7")) else 0.2
    asked = next(
        (words for words in WORDS if all(re.search(rf"\b{word}\b", system) for word in words)), TASK.label_names
    )
    spread = {
        word: sure if label == right else (1 - sure) / 2 for label, word in zip(TASK.label_names, asked, strict=True)
    }
    return counted(scored(spread), messages)


def models() -> dict[str, FakeChatModel]:
    return {
        "teacher": FakeChatModel(script=teacher_script, model="teacher"),
        "student": FakeChatModel(script=student_script, model="student"),
    }


def data(plan: Plan, *, unlabelled: int) -> dict[str, ExampleSet]:
    known = list(rows("train", 2 * plan.train_examples - 20 if not unlabelled else plan.train_examples - 6))
    others = [Example(id=f"open-{n}", input=f"{SUBJECTS['green']} note open number {n}") for n in range(unlabelled)]
    train = ExampleSet.of([*known, *others], TASK, source="train")
    return {"train": train, "validation": rows("validation", 36), "test": rows("test", 6)}


def by_node(lines: Any, what: str) -> Counter[tuple[str, str]]:
    """Sums for node and model; test rows are read by the node validate."""
    found: Counter[tuple[str, str]] = Counter()
    for line in lines:
        found["validate" if line.node == "test" else line.node, line.model] += getattr(line, what)
    return found


def check(told: tuple[EstimateLine, ...], ledger: Any) -> None:
    most, least, calls = by_node(told, "calls"), by_node(told, "least"), by_node(ledger, "calls")
    assert set(calls) <= set(most)
    for key, number in calls.items():
        assert least[key] <= number <= most[key], key
    assert all(calls[key] >= number for key, number in least.items())
    for what in ("input_tokens", "output_tokens"):
        spent, bound = by_node(ledger, what), by_node(told, what)
        assert all(number <= bound[key] for key, number in spent.items()), what


@pytest.mark.parametrize(("effort", "unlabelled", "made_up"), [("light", 10, 2), ("medium", 0, 0), ("heavy", 0, 0)])
async def test_a_run_asks_no_more_and_no_less_than_was_told(effort: Effort, unlabelled: int, made_up: int) -> None:
    plan = PLANS[effort].model_copy(
        update={"train_examples": 24, "ceiling": None, "race_level": 0.0, "synthetic_per_small_label": made_up}
    )
    sets = data(plan, unlabelled=unlabelled)
    embeddings = FakeEmbeddings(size=8)
    artifact = await adistill(TASK, **sets, **models(), effort=plan, embeddings=embeddings)  # type: ignore[arg-type]
    told = estimate(TASK, plan, **sets, teacher=TEACHER, students=[STUDENT], embeddings="fake:words")  # type: ignore[arg-type]
    check(told.lines, artifact.ledger)
    calls = by_node(artifact.ledger, "calls")
    assert {node for node, model in calls if model == TEACHER} >= {"generate", "extract", "consolidate", "critique"}
    assert calls["critique", STUDENT] > 0, "the loop was not reached"
    assert calls["consolidate", "fake:words"] > 0


async def test_a_run_that_is_as_good_as_it_needs_to_be_at_once_asks_the_least() -> None:
    plan = PLANS["light"].model_copy(update={"train_examples": 12})
    sets = data(plan, unlabelled=0)
    perfect = FakeChatModel(
        script=lambda messages: scored(
            {label: 0.9 if subject in text_of(messages) else 0.01 for label, subject in SUBJECTS.items()}
        ),
        model="student",
    )
    artifact = await adistill(TASK, **sets, teacher=models()["teacher"], student=perfect, effort=plan)
    told = estimate(TASK, plan, **sets, teacher=TEACHER, students=[STUDENT])
    assert artifact.finish_reason == "ceiling"
    calls, least = by_node(artifact.ledger, "calls"), by_node(told.lines, "least")
    assert calls["generate", TEACHER] == least["generate", TEACHER] == 4
    assert 0 < calls["validate", STUDENT] - least["validate", STUDENT] <= 3 + 1 + 3  # content-free, probe, words
